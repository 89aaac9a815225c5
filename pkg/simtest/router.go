package simtest

import (
	"slices"

	"github.com/weave-cni/weave-cni/pkg/founding"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/place"
	"github.com/weave-cni/weave-cni/pkg/record"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// router is one life of a machine's router: what pkg/router wires, without its I/O.
type router struct {
	m *machine
	w *World

	id      ledger.MemberID
	core    *replica.Core  // nil while the cluster is being founded
	found   *founding.Core // nil when there is no founding
	alloc   *allot.Core
	names   *record.Store
	state   *ledger.State // as it was published last
	shown   *ledger.State // as the allocator has it
	ready   bool
	offered []allot.Offer // as the allocator has them
	over    string        // why this life must end

	adds    []*order
	asks    map[string]uint64             // proposals of the allocator under way, by Lack.Key
	ends    map[uint64]func(replica.Done) // by ticket
	giving  bool
	heard   map[ledger.MemberID]uint64 // the latest life of each that reached this one
	retires bool                       // it has proposed to retire somebody
	raised  map[string]bool            // bridges of other networks that have their addresses, by the network's id
	deletes bool                       // it has proposed to end a network
	settled bool                       // the bridge has its addresses; before that no ADD is taken
	leave   uint64                     // the ticket of Leave
	leaving int                        // tick until which it waits to be let go; 0: it does not leave
	lookAt  int                        // tick of the next look at the kernel
	tellAt  int                        // tick of the next exchange of records
}

// start reads what is there, in the order in which pkg/router does.
func (r *router) start() {
	m := r.m
	r.heard, r.raised = map[ledger.MemberID]uint64{}, map[string]bool{}
	r.asks, r.ends = map[string]uint64{}, map[uint64]func(replica.Done){}
	if m.state.id != 0 && m.state.hardware != m.hardware && r.w.mistake != TrustOldState {
		r.wipe("it is another machine's")
	}
	verdict := m.run.witness.Judge(m.bootID(), uint64(m.state.id), m.state.ledger.Generation, m.state.saves)
	if verdict == place.OldCopy && r.w.mistake != TrustOldState {
		r.wipe("it is an old copy")
		verdict = place.Unvouched
	}
	fresh := m.state.id == 0
	if fresh {
		m.persist()
		m.state = stateDir{id: r.w.newID(), hardware: m.hardware}
		verdict = place.Unvouched
	}
	m.persist()
	m.state.ledger.Generation++
	m.state.lives++
	m.state.saves = 0
	r.id = m.state.id
	if fresh || verdict == place.Vouched {
		r.testify()
	}
	r.w.tracef("%v is member %x, life %d, %v", m, r.id, m.state.ledger.Generation, verdict)
	r.startAllocator()
	r.startNames()
	vouched := verdict == place.Vouched || r.w.mistake == TrustOldState
	if m.flags.bootstrap != nil && m.state.decided == nil && m.state.ledger.Snapshot.Index == 0 {
		r.startFounding()
		return
	}
	r.startCore(vouched, r.foundCommand())
}

// testify has the witness follow this life. One whose state may be an old copy does so
// only once it is confirmed: else the next life would find a witness, and not be doubted.
func (r *router) testify() {
	m := r.m
	m.persist()
	m.run.witness = place.Witness{Member: uint64(r.id), Generation: m.state.ledger.Generation, Saves: m.state.saves, Boot: m.bootID()}
	m.persist()
}

// wipe empties the state directory: the next life is a new member.
func (r *router) wipe(why string) {
	r.w.tracef("%v: the state directory counts as empty: %s", r.m, why)
	r.m.persist()
	r.m.state = stateDir{}
	r.m.persist()
}

func (r *router) foundCommand() *ledger.Command {
	v := r.m.state.decided
	switch {
	case r.m.flags.found:
		return r.w.foundCommand(r.m.clusterID())
	case v != nil && v.Founder == founding.Host{Name: r.m.name, ID: r.id}:
		return &ledger.Command{Found: &ledger.Found{Cluster: v.Cluster, Network: *v.Network}}
	}
	return nil
}

func (w *World) foundCommand(cluster string) *ledger.Command {
	return &ledger.Command{Found: &ledger.Found{Cluster: cluster, Network: w.network}}
}

func (r *router) startCore(vouched bool, found *ledger.Command) {
	saved := r.m.state.ledger
	saved.Entries = slices.Clone(saved.Entries)
	core, first, err := replica.NewCore(r.coreConfig(saved, vouched, found))
	if err != nil {
		r.w.fail("%v: start of the replica: %v", r.m, err)
	}
	r.core = core
	r.save(first)
	r.publish(core.State())
	r.core.SetPeers(r.w.net.peers(r.m.at))
}

func (r *router) startAllocator() {
	a := allot.New(allot.Config{Self: r.id, Claims: files{r.m}, Offers: r.m.state.offers, BootID: r.m.bootID(), Log: quiet, Now: r.m.now})
	r.alloc, r.offered = a, r.m.state.offers
	kernel := r.m.kernelShows()
	if r.w.mistake == KernelNotCounted {
		kernel = nil
	}
	if err := a.Adopt(kernel); err != nil {
		r.w.fail("%v: adopt: %v", r.m, err)
	}
}

// save makes a batch durable.
func (r *router) save(b replica.Batch) {
	if b.Empty() {
		return
	}
	r.m.persist()
	if err := r.m.state.ledger.Change(b); err != nil {
		r.w.fail("%v: save: %v", r.m, err)
	}
	r.m.saved()
	r.m.persist()
}

func (r *router) tick() {
	if r.found != nil {
		r.found.Tick()
	}
	if r.core != nil {
		r.core.Tick()
	}
	if r.w.tick >= r.lookAt {
		r.lookAt = r.w.tick + 10 + r.w.intn(5)
		r.retryDels()
		r.reconcile()
		r.rename()
		r.alloc.DropRested()
		r.provide()
		r.settleBridge()
		r.tend()
	}
	if r.w.tick >= r.tellAt {
		r.tellAt = r.w.tick + 20 + r.w.intn(20)
		r.gossip()
	}
	r.hurry()
	if r.leaving > 0 && r.w.tick >= r.leaving {
		r.stay()
	}
}

func (r *router) receive(from gossip.Peer, p packet) {
	switch {
	case p.kind == toRecords:
		r.receiveRecords(from, p.value)
	case p.kind == toFounding && r.found != nil:
		r.found.Receive(from, p.msg)
	case p.kind == toFounding && r.m.state.decided != nil:
		r.tellDecided(from, p.msg)
	case p.kind == toReplica && r.core != nil:
		r.heard[p.id] = max(r.heard[p.id], p.life)
		r.core.Receive(from, p.msg)
	}
}

// settle saves, then acts, until there is nothing more to do.
func (r *router) settle() {
	if r.found != nil {
		r.settleFounding()
	}
	for r.core != nil && r.core.Pending() && r.over == "" {
		r.save(r.core.Begin())
		e := r.core.Finish()
		if e.State != nil {
			r.publish(e.State)
		}
		for _, d := range e.Done {
			if end, ok := r.ends[d.Ticket]; ok {
				delete(r.ends, d.Ticket)
				end(d)
			}
		}
		for _, o := range e.Send {
			if !r.w.net.send(r.m.at, o.To, packet{kind: toReplica, msg: o.Frame, id: r.id, life: r.m.state.ledger.Generation}) && o.ID != 0 {
				r.core.Unreachable(o.ID)
			}
		}
		r.ripe()
	}
}

// publish is what the shell does with a new ledger.
func (r *router) publish(s *ledger.State) {
	r.state = s
	r.w.noteState(r.m, s)
	r.show(s)
	r.look()
	r.tend()
}

// show hands a ledger to the allocator.
func (r *router) show(s *ledger.State) {
	r.shown = s
	r.alloc.Sync(s, r.ready)
	r.m.count()
}

// ripe looks whether the allocator may begin, or this life is over.
func (r *router) ripe() {
	if ready := r.core.Ready(); ready != r.ready {
		r.ready = ready
		if ready && r.m.run.witness.Generation != r.m.state.ledger.Generation {
			r.testify()
		}
		r.w.tracef("%v ready %v at entry %d", r.m, ready, r.state.Index())
		r.show(r.state)
		r.look()
	}
	if why := r.core.Spent(); why != "" && r.over == "" {
		r.wipe(why)
		r.over = why
	}
}

// propose asks the ledger, end is called with the answer unless this life ends first.
func (r *router) propose(c ledger.Command, end func(replica.Done)) uint64 {
	if r.w.tracing {
		r.w.tracef("%v proposes %s", r.m, describe(c))
	}
	t := r.core.Propose(c)
	r.ends[t] = end
	return t
}

// mayGive is the set of addresses of a subnet that the allocator may give now.
func (r *router) mayGive(space int) (set uint64) {
	if !r.ready || r.shown == nil || r.leaving > 0 || r.over != "" {
		return 0
	}
	if m, ok := r.shown.Member(r.id); !ok || !m.Live() {
		return 0
	}
	s := r.w.spaces[space]
	for _, own := range r.shown.Owned(r.w.network.Name, s.prefix, r.id) {
		set |= s.set(own)
	}
	for _, o := range r.offered {
		for _, x := range o.Ranges {
			if s.prefix.Contains(x.First) {
				set &^= s.set(x)
			}
		}
	}
	return set
}

// times are a fraction of the usual ones: a seed has no minutes to spend.
var times = replica.Times{Twin: 15, Object: 8, Silent: 30, Uneven: 30}

func (r *router) coreConfig(saved replica.Saved, vouched bool, found *ledger.Command) replica.CoreConfig {
	return replica.CoreConfig{
		Self: r.m.member(), Saved: saved, Found: found, Vouched: vouched, Nonce: uint32(r.w.rng.Uint64()),
		CompactAfter: r.w.compactAfter, Times: times, Mutate: r.w.mistake.replica(),
	}
}
