package replica

import (
	"cmp"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"

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
	governTicks    = 3   // a leader looks whether the configuration is to change; it does so when an entry is applied, too
	retryTicks     = 5   // a proposal is sent again
	joinTicks      = 5   // a newcomer asks the next peer; one on trial asks again
	snapshotTicks  = 20  // a snapshot that nobody acknowledged is sent again
	wordsTicks     = 50  // a refusal is shown after it was heard last
	twinTicks      = 60  // who was heard within them counts as alive under that name or identity
	objectTicks    = 30  // a sole voter waits for objections
	settleTicks    = 10  // a new leader does not know yet who is alive
	relieveTicks   = 300 // a voter that has left waits so long for the others to do without it
	grumbleTicks   = 600 // what stays wrong is logged again
	lonelyTicks    = 30  // who hears no leader asks whether it is gone, so often
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
	Self  ledger.Member   // ID, Name and Place
	Saved Saved           // what the Store holds
	Found *ledger.Command // founds a cluster when Saved is empty; nil: joins one
	Log   *slog.Logger    // of raft's own words, at debug level, and of what should never be; nil: nobody reads it

	// Vouched says that Saved is what this member saved last: something that does
	// not travel with copies of the state directory says so. Without it a core
	// that has a ledger asks the others first; see trial.
	Vouched bool
	Nonce   uint32 // drawn at random for this start

	// CompactAfter is after how many entries the log is cut; 0 is the default.
	CompactAfter uint64

	Times  Times    // for the simulator, which has no minutes to spend: zero
	Mutate Mutation // for the simulator's own test: 0
}

// Times are waits, in ticks, that nothing but convenience depends on; 0: the usual one.
type Times struct {
	Twin    uint64 // twinTicks
	Object  uint64 // objectTicks
	Silent  uint64 // silentFor
	Uneven  uint64 // unevenFor
	Lonely  uint64 // lonelyTicks
	Relieve uint64 // relieveTicks
}

func (t Times) orUsual() Times {
	return Times{
		Twin: cmp.Or(t.Twin, twinTicks), Object: cmp.Or(t.Object, objectTicks), Silent: cmp.Or(t.Silent, silentFor),
		Uneven: cmp.Or(t.Uneven, unevenFor), Lonely: cmp.Or(t.Lonely, lonelyTicks), Relieve: cmp.Or(t.Relieve, relieveTicks),
	}
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

	life      Life
	vouched   bool   // see CoreConfig
	announced bool   // the ledger has heard of this life: see announce
	took      Life   // the last one that spoke otherwise than on trial, as the disk knows: never behind what others have heard
	void      string // why this identity is over: takes part in nothing
	trial     *trial // not over yet; nil: none
	mutate    Mutation
	times     Times

	ticks    uint64
	lead     ledger.MemberID // as raft sees it
	leading  bool
	since    uint64 // tick at which it began to lead
	term     uint64
	peers    []gossip.Peer
	pulses   map[ledger.MemberID]*pulse
	lives    map[ledger.MemberID]Heard // what the disk has of them, or gets with the next batch: see livesUnsaved
	answers  map[ledger.MemberID]heardAnswer
	names    map[ledger.MemberID]gossip.Peer // of those that the ledger does not know yet
	counters Counters

	ready   *raft.Ready // between Begin and Finish: &rd
	rd      raft.Ready
	stirred bool // raft may have something to do
	in      parcel
	sent    parcel
	out     []Out
	done    []Done
	changed bool

	livesUnsaved bool // see keepLife
	snap         snapshots
	compactAfter uint64
	compactedTo  uint64 // index of the snapshot in the store
	newerApplied bool   // since then an entry was applied that the first release cannot read
	confAt       uint64 // entry of the last change that we proposed
	uneven       uint64

	prop   proposals
	join   joining
	alone  loneliness
	leftAt uint64 // last tick at which we were a member
	forks  []fork // where this cluster went on without a majority
	force  forcing
	halted string // why nothing more of the log can be applied: takes part in nothing, but is no less a member
	newer  newer
	log    *slog.Logger

	// rewound: halted while what was decided before this life was replayed, and a newer
	// version on this host has decided more since. It may have given back what State
	// shows as ours.
	rewound bool
}

// Counters count what was dropped, for status and tests.
type Counters struct {
	Malformed    uint64 // not a frame
	WrongCluster uint64
	WrongMember  uint64 // for a predecessor of ours, or under a name that is not the sender's
	WrongLife    uint64 // from a life that is over
	Refused      uint64 // raft would not have it
	Impossible   uint64 // speaks of a log that we do not have
	Panics       uint64 // raft did not survive it; we did, see step
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
		first = Batch{Lives: []Heard{}, Reset: true, Snapshot: &Snapshot{}, Hard: &Hard{}}
	}
	if saved.Owner == 0 {
		first.Owner = cfg.Self.ID
	}
	c := &Core{
		self: cfg.Self, codec: wire.New(), compactAfter: compactAfter, changed: true, mutate: cfg.Mutate, times: cfg.Times.orUsual(), log: cfg.Log,
		life: lifeOf(saved.Generation, cfg.Nonce), took: saved.Took,
		pulses: make(map[ledger.MemberID]*pulse), lives: make(map[ledger.MemberID]Heard), names: make(map[ledger.MemberID]gossip.Peer),
	}
	if cfg.CompactAfter > 0 {
		c.compactAfter = cfg.CompactAfter
	}
	for _, h := range saved.Lives {
		c.lives[h.ID] = h
	}
	c.prop.init(saved.Generation)
	c.prop.ownLeave = saved.Leave
	c.vouched = cfg.Vouched && saved.Snapshot.Index > 0
	if cfg.Found != nil && saved.Snapshot.Index == 0 {
		c.vouched = true // nobody else has anything of this ledger
		if err := c.found(cfg.Found, &saved, &first); err != nil {
			return nil, Batch{}, err
		}
	}
	if err := c.restore(saved); err != nil {
		return nil, Batch{}, fmt.Errorf("ledger in the state directory: %w", err)
	}
	c.beginTrial()
	c.noticeSelf()
	return c, first, c.startRaft()
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
	if c.void != "" {
		return
	}
	if c.halted != "" {
		c.askWhetherGone() // what follows in the log may say so
		return
	}
	c.watchDeparture()
	if c.trial != nil {
		c.askAround()
		if !c.mutate.has(VoteAfterForgetting) {
			return
		}
	}
	c.raft().Tick()
	c.govern()
	c.announce()
	c.retryProposal()
	c.askToJoin()
	c.askWhetherGone()
}

// SetPeers says who can be reached now. The core keeps the slice.
func (c *Core) SetPeers(peers []gossip.Peer) {
	c.peers = peers
	c.join.at = 0 // ask at the next tick
}

// Unreachable says that a frame for that member could not be sent.
func (c *Core) Unreachable(id ledger.MemberID) {
	if c.leading && c.conf.has(uint64(id)) {
		c.raft().ReportUnreachable(uint64(id))
	}
}

// raft is raft, about to be told something.
func (c *Core) raft() *raft.RawNode {
	c.stirred = true
	return c.rn
}

// unsettled reports whether raft has something to do. To ask it costs memory.
func (c *Core) unsettled() bool {
	c.stirred = c.stirred && c.halted == "" && c.rn.HasReady()
	return c.stirred
}

// Pending reports whether Begin has something.
func (c *Core) Pending() bool {
	return c.ready != nil || c.changed || len(c.out) > 0 || len(c.done) > 0 || c.prop.unsaved || c.livesUnsaved || c.tookPart() || c.unsettled() || c.mustCompact()
}

// Begin gives what must be saved before Finish is called.
func (c *Core) Begin() Batch {
	if c.ready != nil {
		panic("replica: Begin without Finish") // the driver's mistake, not a peer's
	}
	c.rd = c.rn.Ready()
	rd := &c.rd
	c.ready = rd
	var b Batch
	if n := len(rd.Entries); n > 0 {
		b.Entries = make([]Entry, n)
	}
	for i, e := range rd.Entries {
		b.Entries[i] = toEntry(e)
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
	if c.prop.unsaved {
		b.Leave = c.prop.ownLeave
	}
	if c.livesUnsaved {
		b.Lives = c.livesToSave()
	}
	if c.tookPart() {
		b.Took = c.life
	}
	return b
}

// Finish goes on after the batch was saved.
func (c *Core) Finish() Effects {
	rd, leave := c.ready, c.prop.unsaved // which is saved now
	c.ready, c.prop.unsaved, c.livesUnsaved = nil, false, false
	if c.tookPart() {
		c.took = c.life
	}
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
	c.raft().Advance(*rd)
	if leave {
		c.sendProposal()
	}
	if rd.SoftState != nil || !raft.IsEmptyHardState(rd.HardState) {
		c.look()
	}
	if !c.unsettled() { // the log in memory is all of it
		if c.changed {
			c.changeConf()
		}
		c.pump()
	}
	e := Effects{Done: c.done, Send: c.out}
	if c.changed {
		e.State = c.state
	}
	c.done, c.out, c.changed = nil, nil, false
	return e
}
