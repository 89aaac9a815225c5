package replica

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// TicksPerSecond is the pace at which a Core expects Tick.
const TicksPerSecond = 10

// Times, in ticks.
const (
	heartbeatTicks = 3
	electionTicks  = 10
	retryTicks     = 5  // a proposal is sent again
	joinTicks      = 5  // a newcomer asks the next peer
	snapshotTicks  = 20 // a snapshot that nobody acknowledged is sent again
	wordsTicks     = 50 // a refusal is shown after it was heard last
)

// Sizes, in entries and bytes.
const (
	compactAfter = 512 // entries applied since the last snapshot
	keepEntries  = 128 // entries kept behind it, for those who are a little behind
	appendBytes  = 128 << 10
	uncommitted  = 4 << 20
)

// CoreConfig is what a Core is made of.
type CoreConfig struct {
	Self  ledger.Member   // ID and Name
	Saved Saved           // what the Store holds
	Found *ledger.Command // founds a cluster when Saved is empty; nil: joins one
	Log   *slog.Logger    // of raft's own words, at debug level

	// CompactAfter is after how many entries the log is cut; 0 is the default.
	CompactAfter uint64
}

// Core is the replica without its surroundings: no goroutine, no clock, no I/O.
// It is driven by Tick, Receive, SetPeers, Propose and Cancel; after any of them,
// while Pending reports so, the driver calls Begin, saves what it gets, and only
// then calls Finish and does what that says. A crash is to stop at any point and
// make a new Core of what was saved.
//
// Given the same calls it does the same, but for one thing: raft draws its
// election timeouts from crypto/rand's Reader. A simulator that wants to repeat a
// run replaces that.
type Core struct {
	self  ledger.Member
	codec wire.Codec
	rn    *raft.RawNode
	mem   *memory

	state   *ledger.State // shared with readers once published: cloned before it is changed
	conf    Conf
	cluster string // of state, or of the first snapshot that is on its way

	ticks    uint64
	lead     ledger.MemberID // as raft sees it
	leading  bool
	term     uint64
	peers    []gossip.Peer
	heard    map[ledger.MemberID]uint64      // tick of the last frame
	names    map[ledger.MemberID]gossip.Peer // of those that the ledger does not know yet
	counters Counters

	ready   *raft.Ready // between Begin and Finish
	out     []Out
	done    []Done
	changed bool

	snap         snapshots
	compactAfter uint64
	compactedTo  uint64 // index of the snapshot in the store
	confAt       uint64 // entry of the last change that we proposed
	uneven       uint64

	prop   proposals
	join   joining
	gone   string // why we are a member no longer, from others
	goneAt uint64
}

// Counters count what was dropped, for status and tests.
type Counters struct {
	Malformed    uint64 // not a frame
	WrongCluster uint64
	WrongMember  uint64 // for a predecessor of ours, or under a name that is not the sender's
	Refused      uint64 // raft would not have it
	Impossible   uint64 // speaks of a log that we do not have
	Panics       uint64 // raft did not survive it; we did
	NoRoute      uint64 // frames of ours for members whose name we do not know
	TooLarge     uint64 // frames of ours that do not fit
}

// Out is a frame to send. ID is whom it is for, 0 when that is not known yet.
type Out struct {
	To    gossip.Peer
	ID    ledger.MemberID
	Frame []byte
}

// Done is the end of a proposal.
type Done struct {
	Ticket uint64
	Result ledger.Result
	Err    error // ErrGone; nil when it was applied
}

// Effects is what the driver does after it has saved: publish State, tell the
// proposers, send the frames.
type Effects struct {
	State *ledger.State // nil: unchanged
	Done  []Done
	Send  []Out
}

// NewCore makes a core. The batch it returns, when not Empty, must be saved
// before anything else is done. State is there at once. A saved memory of another
// member is not used at all (and wiped by the batch): a host without its identity
// is a new member, always.
func NewCore(cfg CoreConfig) (*Core, Batch, error) {
	if !validID(cfg.Self.ID) || cfg.Self.Name == "" {
		return nil, Batch{}, fmt.Errorf("member %q with id %x: both are needed", cfg.Self.Name, cfg.Self.ID)
	}
	saved, first := cfg.Saved, Batch{}
	if saved.Owner != 0 && saved.Owner != cfg.Self.ID {
		saved = Saved{Generation: saved.Generation}
		first = Batch{Reset: true, Snapshot: &Snapshot{}, Hard: &Hard{}}
	}
	if saved.Owner == 0 {
		first.Owner = cfg.Self.ID
	}
	c := &Core{
		self: cfg.Self, codec: wire.New(), compactAfter: compactAfter, changed: true,
		heard: make(map[ledger.MemberID]uint64), names: make(map[ledger.MemberID]gossip.Peer),
	}
	if cfg.CompactAfter > 0 {
		c.compactAfter = cfg.CompactAfter
	}
	c.prop.init(saved.Generation)
	if cfg.Found != nil && saved.Snapshot.Index == 0 {
		if err := c.found(cfg.Found, &saved, &first); err != nil {
			return nil, Batch{}, err
		}
	}
	if err := c.restore(saved); err != nil {
		return nil, Batch{}, fmt.Errorf("ledger in the state directory: %w", err)
	}
	return c, first, c.startRaft(cfg.Log)
}

// found writes the memory of a cluster of one whose ledger is two entries old.
func (c *Core) found(cmd *ledger.Command, saved *Saved, first *Batch) error {
	s := ledger.New()
	if res := s.Apply(1, *cmd); cmd.Found == nil || res.Code != ledger.OK {
		return fmt.Errorf("found a cluster: %s", res.Err)
	}
	if res := s.Apply(2, ledger.Command{Join: &ledger.Join{Member: c.self}}); res.Code != ledger.OK {
		return fmt.Errorf("found a cluster: %s", res.Err)
	}
	data, err := c.codec.Encode(s.Dump())
	if err != nil {
		return fmt.Errorf("found a cluster: %w", err)
	}
	saved.Snapshot = Snapshot{Index: 2, Term: 1, Conf: Conf{Voters: []uint64{uint64(c.self.ID)}}, Data: data}
	saved.Hard, saved.Entries = Hard{Term: max(saved.Hard.Term, 1), Commit: 2}, nil
	first.Reset, first.Snapshot, first.Hard = true, &saved.Snapshot, &saved.Hard
	return nil
}

// restore makes the ledger of what was saved: the snapshot, and every entry after
// it that is known to be committed.
func (c *Core) restore(saved Saved) error {
	mem, err := newMemory(saved)
	if err != nil {
		return err
	}
	c.mem, c.state, c.conf = mem, ledger.New(), saved.Snapshot.Conf
	if saved.Snapshot.Index > 0 {
		if err := c.conf.check(); err != nil {
			return fmt.Errorf("snapshot %d: %w", saved.Snapshot.Index, err)
		}
		if c.state, err = c.loadSnapshot(saved.Snapshot.Index, saved.Snapshot.Data); err != nil {
			return err
		}
	}
	c.compactedTo = saved.Snapshot.Index
	for _, e := range saved.Entries {
		if e.Index > saved.Snapshot.Index && e.Index <= saved.Hard.Commit {
			c.replay(e)
		}
	}
	c.mem.conf, c.cluster = c.conf, c.state.Cluster()
	return nil
}

// replay applies an entry without raft.
func (c *Core) replay(e Entry) {
	ch, isConf, err := confChange(e)
	if err != nil || !isConf {
		c.applyCommand(e)
		return
	}
	c.state.Advance(e.Index)
	if after, ok := c.conf.with(ch); ok {
		c.conf = after
	}
}

func (c *Core) loadSnapshot(index uint64, data []byte) (*ledger.State, error) {
	var d ledger.Dump
	if err := c.codec.Decode(data, &d); err != nil {
		return nil, fmt.Errorf("snapshot %d: %w", index, err)
	}
	s, err := ledger.Load(d)
	if err != nil {
		return nil, fmt.Errorf("snapshot %d: %w", index, err)
	}
	if s.Index() != index {
		return nil, fmt.Errorf("snapshot %d holds the ledger of entry %d", index, s.Index())
	}
	return s, nil
}

func (c *Core) startRaft(log *slog.Logger) (err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c.mem.snapshot = c.makeSnapshot
	c.rn, err = raft.NewRawNode(&raft.Config{
		ID: uint64(c.self.ID), ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: c.mem, Applied: c.state.Index(),
		MaxSizePerMsg: appendBytes, MaxUncommittedEntriesSize: uncommitted, MaxInflightMsgs: 64,
		CheckQuorum: true, PreVote: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: raftLogger{log},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	if len(c.conf.Voters) == 1 && c.conf.Voters[0] == uint64(c.self.ID) {
		return c.rn.Campaign() // nobody to wait for
	}
	return nil
}

// State is the ledger as far as it is applied here. Not to be applied to.
func (c *Core) State() *ledger.State { return c.state }

// Leading reports whether this member leads.
func (c *Core) Leading() bool { return c.leading }

// Counters is what was dropped so far.
func (c *Core) Counters() Counters { return c.counters }

// Tick is a tenth of a second.
func (c *Core) Tick() {
	c.ticks++
	c.rn.Tick()
	c.look()
	c.govern()
	c.retryProposal()
	c.askToJoin()
}

// SetPeers says who can be reached now. The core keeps the slice.
func (c *Core) SetPeers(peers []gossip.Peer) {
	c.peers = peers
	c.join.at = 0 // ask at the next tick
}

// Unreachable says that a frame for that member could not be sent.
func (c *Core) Unreachable(id ledger.MemberID) {
	if c.leading && c.conf.has(uint64(id)) {
		c.rn.ReportUnreachable(uint64(id))
	}
}

// Receive takes a frame from a peer, whatever it holds. It keeps nothing of it.
func (c *Core) Receive(from gossip.Peer, b []byte) {
	f, err := decodeFrame(c.codec, b)
	if err != nil {
		c.counters.Malformed++
		return
	}
	if !c.forUs(from, f) {
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
	case kindGone:
		c.receiveGone(f)
	}
	c.look()
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
		c.tellGone(from, m)
		return false
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
	if known || f.Kind == kindRaft {
		c.heard[f.From], c.join.heardAt = c.ticks, c.ticks
	}
	return true
}

// receiveGone believes a member that we know. We have not read it in the ledger
// ourselves, so it holds only as long as it is repeated.
func (c *Core) receiveGone(f *frame) {
	if _, known := c.state.Member(f.From); !known {
		c.counters.WrongMember++
		return
	}
	c.gone, c.goneAt = f.Words, c.ticks
	c.failProposals(goneError(f.Words))
}

// maxNames bounds what newcomers can make us remember.
const maxNames = 1024

func (c *Core) tellGone(to gossip.Peer, m ledger.Member) {
	words := "host " + m.Name + " has left the cluster under this identity"
	if m.Replaced != 0 {
		words = "host " + m.Name + " has joined again under a new identity, the old one is spent"
	}
	c.send(to, &frame{To: m.ID, Kind: kindGone, Words: words})
}

func (c *Core) receiveRaft(f *frame) {
	m := f.Raft.proto(f.From, f.To)
	last, _ := c.mem.LastIndex() // MemoryStorage never fails here
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if c.state.Index() == 0 {
			return // a host without a ledger may have forgotten a vote
		}
	case raftpb.MsgHeartbeat:
		if f.Raft.Commit > last {
			c.counters.Impossible++ // says that we acknowledged what we do not have
			c.join.amnesia = c.ticks
			return
		}
	case raftpb.MsgAppResp:
		if !f.Raft.Reject && f.Raft.Index > last {
			c.counters.Impossible++
			return
		}
	case raftpb.MsgApp:
		if c.state.Index() == 0 && f.Raft.Index == 0 && len(f.Raft.Entries) > 0 {
			c.counters.Impossible++ // every log starts with a snapshot
			return
		}
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
		if recover() != nil {
			c.counters.Panics++
		}
	}()
	if err := c.rn.Step(m); err != nil {
		c.counters.Refused++
	}
}

// look notices who leads now.
func (c *Core) look() {
	st := c.rn.BasicStatus()
	lead, leading := ledger.MemberID(st.Lead), st.RaftState == raft.StateLeader
	if lead == c.lead && leading == c.leading && st.GetTerm() == c.term {
		return
	}
	if leading && !c.leading {
		last, _ := c.mem.LastIndex()
		c.confAt = last + 1 // an earlier leader's change may be among what is not applied yet; and our own first entry
		for _, id := range slices.Concat(c.conf.Voters, c.conf.Learners) {
			c.heard[ledger.MemberID(id)] = c.ticks // give everybody the time to be heard
		}
	}
	c.prop.appended = nil
	c.uneven = 0
	c.lead, c.leading, c.term = lead, leading, st.GetTerm()
	if lead != 0 {
		c.sendProposal()
	}
}

// govern is what a leader does once a tick besides raft's own work.
func (c *Core) govern() {
	if !c.leading {
		return
	}
	if c.uneven++; len(c.conf.Voters)%2 == 1 {
		c.uneven = 0
	}
	c.retrySnapshots()
	c.changeConf()
}

// changeConf makes the next change of the configuration, when none is under way.
func (c *Core) changeConf() {
	if !c.leading || c.state.Index() < c.confAt {
		return
	}
	last, _ := c.mem.LastIndex()
	match := make(map[uint64]uint64, 8)
	c.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) { match[id] = pr.Match })
	v := view{
		self: uint64(c.self.ID), conf: c.conf, members: c.state.Members(), uneven: c.uneven,
		silence: func(id uint64) uint64 { return c.silence(ledger.MemberID(id)) },
		caught:  func(id uint64) bool { return match[id] > 0 && match[id]+behindAtUp >= last },
	}
	ch, ok := v.next()
	if !ok || c.rn.ProposeConfChange(ch.v2()) != nil {
		return
	}
	c.confAt = last + 1
}

// silence is how many ticks ago a member was heard; 0 for ourselves.
func (c *Core) silence(id ledger.MemberID) uint64 {
	if id == c.self.ID {
		return 0
	}
	at, ok := c.heard[id]
	if !ok {
		return 1 << 32
	}
	return c.ticks - at
}

// Pending reports whether Begin has something.
func (c *Core) Pending() bool {
	return c.ready != nil || c.changed || len(c.out) > 0 || len(c.done) > 0 || c.rn.HasReady() || c.mustCompact()
}

// Begin gives what must be saved before Finish is called.
func (c *Core) Begin() Batch {
	if c.ready != nil {
		panic("replica: Begin without Finish") // the driver's mistake, not a peer's
	}
	rd := c.rn.Ready()
	c.ready = &rd
	var b Batch
	for _, e := range rd.Entries {
		b.Entries = append(b.Entries, toEntry(e))
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		b.Hard = &Hard{rd.GetTerm(), rd.GetVote(), rd.GetCommit()}
	}
	if s := rd.Snapshot; !raft.IsEmptySnap(s) {
		meta := s.GetMetadata()
		b.Reset, b.Snapshot = true, &Snapshot{meta.GetIndex(), meta.GetTerm(), toConf(meta.GetConfState()), s.GetData()}
	} else if c.mustCompact() {
		c.compact(&b)
	}
	return b
}

// Finish goes on after the batch was saved.
func (c *Core) Finish() Effects {
	rd := c.ready
	c.ready = nil
	must := func(err error) {
		if err != nil {
			panic(fmt.Sprintf("replica: log in memory: %v", err)) // it would differ from the one on disk
		}
	}
	if !raft.IsEmptySnap(rd.Snapshot) {
		must(c.mem.ApplySnapshot(rd.Snapshot))
		must(c.install(rd.Snapshot))
	}
	must(c.mem.Append(rd.Entries))
	if !raft.IsEmptyHardState(rd.HardState) {
		must(c.mem.SetHardState(rd.HardState))
	}
	c.apply(rd.CommittedEntries)
	for _, m := range rd.Messages {
		c.sendRaft(m)
	}
	c.rn.Advance(*rd)
	c.look()
	if !c.rn.HasReady() { // the log in memory is all of it
		c.changeConf()
		c.pump()
	}
	e := Effects{Done: c.done, Send: c.out}
	if c.changed {
		e.State = c.state
	}
	c.done, c.out, c.changed = nil, nil, false
	return e
}

// apply carries out committed entries on a copy of the ledger.
func (c *Core) apply(entries []*raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	c.state, c.changed = c.state.Clone(), true
	for _, pe := range entries {
		e := toEntry(pe)
		if ch, isConf, err := confChange(e); err == nil && isConf {
			c.applyConf(e, ch)
			continue
		}
		c.applyCommand(e)
	}
	c.noticeSelf()
}

func (c *Core) applyConf(e Entry, ch change) {
	c.state.Advance(e.Index)
	after, ok := c.conf.with(ch)
	if !ok {
		return // the same on every host
	}
	c.conf = after // before raft learns of it: it may ask for a snapshot at once
	cs := c.rn.ApplyConfChange(ch.v2())
	if err := cs.Equivalent(after.proto()); err != nil {
		panic(fmt.Sprintf("replica: configuration after entry %d: %v", e.Index, err))
	}
}

// applyCommand is also how a restarted core replays. An entry that cannot be read
// is passed over, by every host alike.
func (c *Core) applyCommand(e Entry) {
	var cmd ledger.Command
	if len(e.Data) == 0 || c.codec.Decode(e.Data, &cmd) != nil {
		c.state.Advance(e.Index)
		return
	}
	res := c.state.Apply(e.Index, cmd)
	if cmd.From == c.self.ID {
		c.proposalApplied(cmd.Seq, res)
	}
}

// noticeSelf follows what the ledger says of ourselves.
func (c *Core) noticeSelf() {
	c.cluster = c.state.Cluster()
	for id := range c.names {
		if _, ok := c.state.Member(id); ok {
			delete(c.names, id)
		}
	}
	if why := c.spent(); why != "" {
		c.failProposals(goneError(why))
	}
}

// spent says why we are a member no longer, "" while we are or may become one.
func (c *Core) spent() string {
	m, ok := c.state.Member(c.self.ID)
	switch {
	case ok && m.Left:
		return "host " + m.Name + " has left the cluster under this identity"
	case ok && m.Replaced != 0:
		return "host " + m.Name + " has joined again under a new identity, the old one is spent"
	case c.gone != "" && c.ticks-c.goneAt < wordsTicks:
		return c.gone
	}
	return ""
}

func (c *Core) member() bool {
	m, ok := c.state.Member(c.self.ID)
	return ok && m.Live()
}

// sendRaft puts a message of raft into a frame, a snapshot into several.
func (c *Core) sendRaft(m *raftpb.Message) {
	to := ledger.MemberID(m.GetTo())
	name, ok := c.nameOf(to)
	if !ok {
		c.counters.NoRoute++
		return
	}
	f := &frame{To: to, Kind: kindRaft, Raft: toMessage(m)}
	if m.GetType() != raftpb.MsgSnap {
		c.send(name, f)
		return
	}
	c.snap.sent(to, c.ticks)
	parts := slices.Collect(slices.Chunk(m.GetSnapshot().GetData(), partSize))
	for i, p := range parts {
		f.Part = &part{i, len(parts), p}
		c.send(name, f)
	}
}

func (c *Core) nameOf(id ledger.MemberID) (gossip.Peer, bool) {
	if m, ok := c.state.Member(id); ok {
		return gossip.Peer(m.Name), true
	}
	p, ok := c.names[id]
	return p, ok
}

// send fills in who we are.
func (c *Core) send(to gossip.Peer, f *frame) {
	f.Cluster, f.From = c.cluster, c.self.ID
	b, err := c.codec.Encode(f)
	if err != nil || len(b) > gossip.MaxMessage {
		c.counters.TooLarge++
		return
	}
	c.out = append(c.out, Out{to, f.To, b})
}

// appendCommand puts a command into the log; only a leader can.
func (c *Core) appendCommand(cmd ledger.Command) error {
	data, err := c.codec.Encode(cmd)
	if err != nil {
		return fmt.Errorf("encode command: %w", err)
	}
	if len(data) > maxCommand {
		return errTooLarge
	}
	return c.rn.Propose(data)
}

var errTooLarge = errors.New("command larger than 96 KiB")
