package replica

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// frame is one message on the gossip channel. Kind says which of the pointers is set.
type frame struct {
	Cluster string // the sender's, "" while it is in none
	From    ledger.MemberID
	To      ledger.MemberID // 0 only in kindJoin and kindCheck
	Kind    uint8
	Hops    uint8 // how often it was handed on
	Life    Life  // the sender's
	Trial   bool  // the sender is on trial: its life is not yet known to be the member's last

	Raft    *message
	Part    *part // with Raft: a piece of its snapshot's data
	Command *ledger.Command
	Member  *ledger.Member
	Words   string
	About   Life // which life of the receiver it answers
	Check   *check
	Answer  *answer
}

const (
	kindRaft    = 1 // Raft, and Part for a snapshot
	kindPropose = 2 // Command: please append it
	kindJoin    = 3 // Member asks to be one

	// These a member on trial sends too.
	kindRefused   = 4 // Words: why the receiver may not join, or has to wait
	kindGone      = 5 // Words, About: why the receiver is a member no longer
	kindCheck     = 6 // Check: what is known against the sender?
	kindAnswer    = 7 // Answer, About: nothing
	kindObjection = 8 // Words, About: this; only who is on trial heeds it
)

// message is what we use of a raft message. Of its Context only that a leader has
// handed over is kept: the rest serves reads, which we do not do.
type message struct {
	Type       int32
	Term       uint64
	LogTerm    uint64
	Index      uint64
	Commit     uint64
	Reject     bool
	RejectHint uint64
	HandedOver bool // of a vote: its candidate was told to stand by the leader itself
	Entries    []Entry
	Snapshot   *snapMeta
}

type snapMeta struct {
	Index uint64
	Term  uint64
	Conf  Conf
}

// part is piece N (from 0) of Of.
type part struct {
	N    int
	Of   int
	Data []byte
}

// Limits of what is sent and accepted.
const (
	partSize    = 192 << 10
	maxSnapshot = 16 << 20 // a ledger at all its limits at once is smaller
	maxParts    = (maxSnapshot + partSize - 1) / partSize
	maxCommand  = 96 << 10 // one command, encoded
	maxEntries  = 4096     // of one message
	maxNumber   = 1 << 62  // of a term or index: beyond it somebody counts wrong
	maxWords    = 512
	maxConf     = 2 * ledger.MaxMembers
	maxHops     = 2
)

var errFrame = errors.New("malformed frame")

// decodeFrame checks everything about a frame that can be checked without
// knowing the state of the receiver. Any bytes are safe to hand to it.
func decodeFrame(codec wire.Codec, b []byte) (*frame, error) { return new(parcel).decode(codec, b) }

func (f *frame) check() error {
	if !validID(f.From) || f.To != 0 && !validID(f.To) || f.To == 0 && f.Kind != kindJoin && f.Kind != kindCheck {
		return fmt.Errorf("from %x to %x", f.From, f.To)
	}
	if len(f.Cluster) > ledger.MaxName || len(f.Words) > maxWords || f.Hops > maxHops {
		return errors.New("header")
	}
	switch f.Kind {
	case kindRaft:
		return checkRaft(f.Raft, f.Part)
	case kindPropose:
		return checkCommand(f.Command)
	case kindJoin:
		return checkMember(f.Member)
	case kindCheck:
		return checkMember(&f.Check.Member)
	case kindAnswer:
		if max(f.Answer.Index, f.Answer.Term) >= maxNumber {
			return errors.New("index or term out of bounds")
		}
		return f.Answer.Conf.check()
	case kindRefused, kindGone, kindObjection:
		return nil
	}
	return fmt.Errorf("kind %d", f.Kind)
}

// validID rejects the ids that raft keeps for itself.
func validID(id ledger.MemberID) bool { return id != 0 && id < math.MaxUint64-1 }

func checkMember(m *ledger.Member) error {
	if m == nil || !validID(m.ID) || m.Name == "" || len(m.Name) > ledger.MaxName {
		return errors.New("no member")
	}
	return nil
}

// checkCommand lets through only what a member may ask for: raft's own business
// and founding are not for asking.
func checkCommand(c *ledger.Command) error {
	if c == nil || c.From == 0 || c.Seq == 0 || c.Found != nil {
		return errors.New("not a member's command")
	}
	return nil
}

// remoteTypes are the messages that raft expects from others and that we use.
var remoteTypes = []raftpb.MessageType{
	raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote,
	raftpb.MsgPreVoteResp, raftpb.MsgSnap, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow,
}

func checkRaft(m *message, p *part) error {
	if m == nil {
		return errors.New("no raft message")
	}
	typ := raftpb.MessageType(m.Type)
	switch {
	case !slices.Contains(remoteTypes, typ):
		return fmt.Errorf("raft message type %d", m.Type)
	case m.Term == 0 || max(m.Term, m.LogTerm, m.Index, m.Commit, m.RejectHint) >= maxNumber:
		return errors.New("term or index out of bounds")
	case (typ == raftpb.MsgSnap) != (m.Snapshot != nil) || (typ == raftpb.MsgSnap) != (p != nil):
		return errors.New("snapshot where there should be none, or none where there should be one")
	case typ != raftpb.MsgApp && len(m.Entries) > 0 || len(m.Entries) > maxEntries:
		return fmt.Errorf("%d entries", len(m.Entries))
	}
	if m.Snapshot != nil {
		return checkSnapMeta(m, p)
	}
	return checkEntries(m)
}

// checkEntries holds raft to what it relies on without looking: entries without
// holes, terms that do not fall, changes of the configuration that can be read.
func checkEntries(m *message) error {
	term := m.LogTerm
	for i, e := range m.Entries {
		switch {
		case e.Index != m.Index+1+uint64(i):
			return fmt.Errorf("entry %d where %d should be", e.Index, m.Index+1+uint64(i))
		case e.Term < term || e.Term == 0 || e.Term > m.Term:
			return fmt.Errorf("entry %d of term %d after term %d", e.Index, e.Term, term)
		}
		if _, _, err := confChange(e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		term = e.Term
	}
	return nil
}

func checkSnapMeta(m *message, p *part) error {
	s := m.Snapshot
	switch {
	case s.Index == 0 || s.Term == 0 || s.Index >= maxNumber || s.Term > m.Term:
		return errors.New("snapshot's index or term out of bounds")
	case p.Of < 1 || p.Of > maxParts || p.N < 0 || p.N >= p.Of || len(p.Data) > partSize || len(p.Data) == 0:
		return fmt.Errorf("snapshot part %d of %d with %d bytes", p.N, p.Of, len(p.Data))
	}
	return s.Conf.check()
}

// check makes sure that raft can restore the configuration.
func (c Conf) check() error {
	if len(c.Voters) == 0 || len(c.Voters)+len(c.Learners) > maxConf {
		return fmt.Errorf("configuration with %d voters and %d learners", len(c.Voters), len(c.Learners))
	}
	seen := make(map[uint64]bool, len(c.Voters)+len(c.Learners))
	for _, id := range slices.Concat(c.Voters, c.Learners) {
		if !validID(ledger.MemberID(id)) || seen[id] {
			return fmt.Errorf("configuration with member %x", id)
		}
		seen[id] = true
	}
	for i, id := range c.Outgoing {
		if !slices.Contains(c.Voters, id) || slices.Contains(c.Outgoing[:i], id) {
			return fmt.Errorf("configuration with outgoing voter %x", id) // we only ever add two at once
		}
	}
	return nil
}

// change is a change of the configuration: one step of any kind; two new voters
// at once; or none, with which raft itself ends the time of two majorities.
type change []step

type step struct {
	op raftpb.ConfChangeType // add a voter, add a learner (or make a voter one), remove
	id uint64
}

// confChange reads the change of an entry; ok is false for an entry of another kind.
func confChange(e Entry) (ch change, ok bool, err error) {
	switch raftpb.EntryType(e.Kind) {
	case raftpb.EntryNormal:
		return nil, false, nil
	case raftpb.EntryConfChangeV2:
	default:
		return nil, false, fmt.Errorf("entry of kind %d", e.Kind)
	}
	var cc raftpb.ConfChangeV2
	if err := proto.Unmarshal(e.Data, &cc); err != nil {
		return nil, false, fmt.Errorf("change of the configuration: %w", err)
	}
	if len(cc.Changes) > 2 || cc.GetTransition() != raftpb.ConfChangeTransitionAuto {
		return nil, false, fmt.Errorf("change of the configuration with %d steps", len(cc.Changes))
	}
	for _, c := range cc.Changes {
		s := step{c.GetType(), c.GetNodeId()}
		if !validID(ledger.MemberID(s.id)) || s.op == raftpb.ConfChangeUpdateNode || s.op < 0 || s.op > raftpb.ConfChangeAddLearnerNode {
			return nil, false, fmt.Errorf("change %d of member %x", s.op, s.id)
		}
		ch = append(ch, s)
	}
	return ch, true, nil
}

func (ch change) v2() *raftpb.ConfChangeV2 {
	cc := new(raftpb.ConfChangeV2)
	for _, s := range ch {
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: s.op.Enum(), NodeId: new(s.id)})
	}
	return cc
}

// with is the configuration after a change, as raft computes it; ok is false for
// a change that raft cannot make of this configuration.
func (c Conf) with(ch change) (after Conf, ok bool) {
	joint := len(c.Outgoing) > 0
	switch {
	case len(ch) == 0:
		return Conf{Voters: c.Voters, Learners: c.Learners}, joint
	case joint:
		return c, false
	case len(ch) == 1:
		return c.after(ch[0])
	}
	for _, s := range ch {
		if s.op != raftpb.ConfChangeAddNode || slices.Contains(c.Voters, s.id) {
			return c, false
		}
	}
	after, _ = c.after(ch[0])
	after, _ = after.after(ch[1])
	after.Outgoing = c.Voters
	return after, true
}

// after is one step; ok is false when it would remove the last voter.
func (c Conf) after(s step) (after Conf, ok bool) {
	drop := func(ids []uint64) []uint64 {
		return slices.DeleteFunc(slices.Clone(ids), func(id uint64) bool { return id == s.id })
	}
	add := func(ids []uint64) []uint64 {
		ids = append(drop(ids), s.id)
		slices.Sort(ids)
		return ids
	}
	switch s.op {
	case raftpb.ConfChangeAddNode:
		after = Conf{Voters: add(c.Voters), Learners: drop(c.Learners)}
	case raftpb.ConfChangeAddLearnerNode:
		after = Conf{Voters: drop(c.Voters), Learners: add(c.Learners)}
	default:
		after = Conf{Voters: drop(c.Voters), Learners: drop(c.Learners)}
	}
	if len(after.Voters) == 0 {
		return c, false
	}
	return after, true
}

func (c Conf) has(id uint64) bool {
	return slices.Contains(c.Voters, id) || slices.Contains(c.Learners, id)
}

// sole reports whether that member decides alone.
func (c Conf) sole(id ledger.MemberID) bool {
	return len(c.Voters) == 1 && len(c.Outgoing) == 0 && c.Voters[0] == uint64(id)
}

func (c Conf) proto() *raftpb.ConfState {
	return &raftpb.ConfState{
		Voters: slices.Clone(c.Voters), Learners: slices.Clone(c.Learners),
		VotersOutgoing: slices.Clone(c.Outgoing), AutoLeave: new(len(c.Outgoing) > 0),
	}
}

func toConf(cs *raftpb.ConfState) Conf {
	return Conf{cs.GetVoters(), cs.GetLearners(), cs.GetVotersOutgoing()}
}

func toEntry(e *raftpb.Entry) Entry {
	return Entry{e.GetIndex(), e.GetTerm(), uint8(e.GetType()), e.GetData()}
}

func (e Entry) proto() *raftpb.Entry {
	all := &struct {
		e           raftpb.Entry
		index, term uint64
		typ         raftpb.EntryType
	}{index: e.Index, term: e.Term, typ: raftpb.EntryType(e.Kind)}
	all.e.Index, all.e.Term, all.e.Type, all.e.Data = &all.index, &all.term, &all.typ, e.Data
	return &all.e
}
