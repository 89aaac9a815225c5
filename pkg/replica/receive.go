package replica

import (
	"fmt"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Receive takes a frame from a peer, whatever it holds. It keeps nothing of it.
func (c *Core) Receive(from gossip.Peer, b []byte) {
	if c.void != "" {
		return
	}
	f, err := c.in.decode(c.codec, b)
	if err != nil {
		c.counters.Malformed++
		return
	}
	if !c.forUs(from, f) || c.halted != "" && f.Kind != kindGone {
		return
	}
	switch f.Kind {
	case kindRaft:
		c.receiveRaft(f)
	case kindPropose:
		c.receiveProposal(f)
	case kindJoin:
		c.receiveJoin(from, f)
	case kindRefused:
		c.join.refused, c.join.refusedAt = f.Words, c.ticks
	case kindGone, kindObjection:
		c.receiveGone(f)
	case kindCheck:
		c.receiveCheck(from, f)
	case kindAnswer:
		c.receiveAnswer(f)
	}
}

// forUs drops what is for another cluster, for another life of this host, or from
// somebody who is not who it says; it notes who was heard.
func (c *Core) forUs(from gossip.Peer, f *frame) bool {
	if f.Cluster != c.cluster && f.Cluster != "" && c.cluster != "" || f.Cluster == "" && f.Kind != kindJoin {
		c.counters.WrongCluster++
		return false
	}
	if f.To != c.self.ID && f.To != 0 || f.From == c.self.ID {
		c.counters.WrongMember++
		return false
	}
	m, known := c.state.Member(f.From)
	if known && m.Name != string(from) {
		c.counters.WrongMember++
		return false
	}
	if known && !m.Live() && !c.conf.has(uint64(m.ID)) { // one that has left may still lead us until it is relieved
		c.tellGone(from, f, departed(m))
		return false
	}
	if !c.current(from, f, known) {
		return false
	}
	if f.Trial {
		return f.Kind >= kindRefused
	}
	if !known {
		if len(c.names) >= maxNames {
			clear(c.names)
		}
		c.names[f.From] = from
	}
	if f.Kind == kindRaft && c.cluster == "" {
		c.cluster = f.Cluster // it lets us in; see askToJoin
	}
	if f.Kind == kindRaft {
		c.join.heardAt = c.ticks
	}
	return true
}

// maxNames bounds what newcomers can make us remember.
const maxNames = 1024

func (c *Core) receiveRaft(f *frame) {
	forgetful := c.mutate.has(VoteAfterForgetting)
	if c.trial != nil && !forgetful {
		return // what it promised is not known; see trial
	}
	m := c.in.proto(f.From, f.To)
	last, _ := c.mem.LastIndex() // MemoryStorage never fails here
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if c.state.Index() == 0 && !forgetful {
			return // a host without a ledger may have forgotten a vote
		}
		if c.mutate.has(StaleWins) {
			m.Index, m.LogTerm = new(max(m.GetIndex(), last)), new(max(m.GetLogTerm(), m.GetTerm()))
		}
	case raftpb.MsgHeartbeat:
		if f.Raft.Commit > last {
			c.counters.Impossible++
			c.amnesia(f)
			return
		}
		c.alone.ledAt = c.ticks
	case raftpb.MsgTimeoutNow:
		if f.From != c.lead || f.Raft.Term != c.term || !c.member() {
			c.counters.Impossible++ // only who leads can hand over
			return
		}
	case raftpb.MsgAppResp:
		if !f.Raft.Reject && f.Raft.Index > last {
			c.counters.Impossible++
			return
		}
	case raftpb.MsgApp:
		if era(f.Raft.Term) > era(c.lastTerm()) {
			c.wantSnapshot(f)
			return
		}
		if c.state.Index() == 0 && f.Raft.Index == 0 && len(f.Raft.Entries) > 0 {
			c.counters.Impossible++ // every log starts with a snapshot
			return
		}
		if c.contradicts(f) {
			return
		}
		c.alone.ledAt = c.ticks
	case raftpb.MsgSnap:
		if !c.assemble(f, m) {
			return
		}
	}
	c.step(m)
}

// step hands a message to raft. It was checked; what raft still does not survive
// is dropped. Nothing was saved of it, so nothing can have been broken on disk.
func (c *Core) step(m *raftpb.Message) {
	defer func() {
		if p := recover(); p != nil {
			c.survive(p, m)
		}
	}()
	if err := c.raft().Step(m); err != nil {
		c.counters.Refused++
	}
}

// survive is what is done after a panic of raft.
func (c *Core) survive(p any, m *raftpb.Message) {
	c.counters.Panics++
	words := fmt.Sprint(p)
	c.report("raft does not survive a message", "panic", words, "type", m.GetType().String(), "from", c.display(m.GetFrom()), "term", m.GetTerm(), "at", m.GetIndex())
	if strings.Contains(words, "conflict with committed entry") || strings.Contains(words, "is out of range [committed(") {
		c.brokenBy(ledger.MemberID(m.GetFrom()), words)
	}
}

// contradicts notices a leader whose log is another one than ours where ours is
// decided. raft does not look: it answers that it has those entries already.
func (c *Core) contradicts(f *frame) bool {
	m := f.Raft
	if m.Term < c.term || !c.conf.votes(uint64(f.From)) || c.mutate != 0 {
		return false // it leads no more, or not as far as we know
	}
	if c.differs(f.From, m.Index, m.LogTerm) {
		return true
	}
	for _, e := range m.Entries {
		if c.differs(f.From, e.Index, e.Term) {
			return true
		}
	}
	return false
}

func (c *Core) differs(from ledger.MemberID, index, term uint64) bool {
	if index == 0 || index > c.state.Index() {
		return false
	}
	have, err := c.mem.Term(index)
	if err != nil || have == term { // or it is behind the snapshot
		return false
	}
	c.brokenBy(from, fmt.Sprintf("entry %d, of term %d there and %d here", index, term, have))
	return true
}

// brokenBy ends this identity: two hosts took different things for decided, and which
// of them is right nobody can tell any more. So nothing more is given out of what this
// one thinks is its own.
func (c *Core) brokenBy(leader ledger.MemberID, what string) {
	name := c.display(uint64(leader))
	c.report("the ledgers of two hosts contradict each other", "other", name, "what", what)
	c.end(contradiction(name, what))
}

func contradiction(leader, what string) string {
	return fmt.Sprintf("this host and %s, which leads, took different things for decided (%s): keep the *.old files of this one and the state of the other, and report it", leader, what)
}
