package simtest

import (
	"hash/maphash"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// judge holds the runs to what must be true after every step. It looks only at what
// has changed.
type judge struct {
	dirty bool
	seed  maphash.Seed
	lax   bool // a false word of the operator's was given: overlaps are shown, not prevented
}

// check asserts that no address can be used by two machines: could be given now by an
// allocator, or is held by a container that runs.
func (w *World) check() {
	if !w.judge.dirty {
		return
	}
	w.judge.dirty = false
	if w.judge.lax {
		return
	}
	w.checkRegistry()
	for i := range w.spaces {
		var all uint64
		for _, m := range w.machines {
			if all&m.usable[i] != 0 {
				w.overlap(i, all&m.usable[i])
			}
			all |= m.usable[i]
		}
	}
}

func (w *World) overlap(space int, set uint64) {
	var who []*machine
	for _, m := range w.machines {
		if m.usable[space]&set != 0 {
			who = append(who, m)
		}
	}
	w.fail("%v can use the same addresses of %v: %064b", who, w.spaces[space].prefix, set)
}

// noteState asserts that a machine that has applied an entry has the same ledger as
// everybody after that entry, and, the first time, that it holds together.
func (w *World) noteState(m *machine, s *ledger.State) {
	at := point{s.Cluster(), s.Index()}
	if at.cluster == "" {
		return
	}
	d := s.Dump()
	sum := w.sum(d)
	first, known := w.applied[at]
	if known && first != sum {
		w.fail("%v holds another ledger after entry %d than others did", m, at.index)
	}
	if known {
		return
	}
	w.applied[at] = sum
	if w.latest == nil || s.Index() > w.latest.Index() {
		w.latest, w.judge.dirty = s, w.judge.dirty || w.scenario.registry != nil
	}
	w.sound(s, d)
	if w.tracing {
		w.tracef("%v is first with entry %d: %s", m, at.index, owners(d))
	}
}

// sum is the same for equal ledgers.
func (w *World) sum(d ledger.Dump) uint64 {
	var h maphash.Hash
	h.SetSeed(w.judge.seed)
	maphash.WriteComparable(&h, [2]uint64{d.Index, uint64(d.NextVNI)})
	for _, m := range d.Members {
		maphash.WriteComparable(&h, m)
	}
	for _, n := range d.Networks {
		h.WriteString(n.Network.ID)
		h.WriteString(n.Network.Name)
		h.WriteString(n.Network.Driver)
		maphash.WriteComparable(&h, [2]int{int(n.Network.VNI), n.Network.MTU})
		h.WriteString(n.Network.Host)
		maphash.WriteComparable(&h, [3]bool{n.Network.Internal, n.Network.Closing, n.Network.Forced})
		for _, l := range n.Network.Labels {
			maphash.WriteComparable(&h, l)
		}
		for i, p := range n.Network.Subnets {
			maphash.WriteComparable(&h, p)
			for _, o := range n.Owners[i] {
				maphash.WriteComparable(&h, o)
			}
		}
	}
	for _, r := range d.Recalls {
		maphash.WriteComparable(&h, [4]uint64{uint64(r.ID), r.Seq, uint64(r.Result.Code), uint64(r.Result.Owner)})
		h.WriteString(r.Result.Err)
		for _, x := range r.Result.Ranges {
			maphash.WriteComparable(&h, x)
		}
	}
	for _, n := range d.Needs {
		maphash.WriteComparable(&h, n)
	}
	return h.Sum64()
}

// sound asserts of a ledger that each address has one owner, who is a member still.
func (w *World) sound(s *ledger.State, d ledger.Dump) {
	names := make([]string, 0, 8)
	for _, m := range d.Members {
		if m.Live() && slices.Contains(names, m.Name) {
			w.fail("entry %d: two live members are called %s", d.Index, m.Name)
		}
		if m.Live() {
			names = append(names, m.Name)
		}
	}
	w.apart(d)
	for i, n := range d.Networks {
		for j, owners := range n.Owners {
			for k, o := range owners {
				m, ok := s.Member(o.Member)
				if !ok || m.Left {
					w.fail("entry %d: %v belongs to %x, which is no member", d.Index, o.Range, uint64(o.Member))
				}
				if k > 0 && !owners[k-1].Range.Last.Less(o.Range.First) {
					w.fail("entry %d: %v and %v overlap", d.Index, owners[k-1], o)
				}
				if !d.Networks[i].Network.Subnets[j].Contains(o.Range.First) || !d.Networks[i].Network.Subnets[j].Contains(o.Range.Last) {
					w.fail("entry %d: %v is outside its subnet", d.Index, o)
				}
			}
		}
	}
}

// Bounds of what must be over after everything is healed, in ticks.
const (
	agreeWithin = 400
	patience    = 60 // then an operator looks whether the majority is lost
	serveWithin = 50
)

// finish heals everything and asserts that nothing is stuck, lost or leaked.
func (w *World) finish() {
	if w.over {
		return
	}
	w.tracef("everything is healed")
	w.crash, w.rate = 0, rates{}
	w.net.heal()
	w.net.arrive()
	for _, m := range w.machines {
		m.stalled = 0
		m.start()
	}
	if !w.until(patience, w.agreed) && w.majorityLost() {
		w.forceOn()
	}
	if !w.until(agreeWithin, w.agreed) {
		w.fail("after %d ticks of quiet still not in agreement: %s", agreeWithin, w.standing())
	}
	w.endRegistry()
	w.drain()
	w.noLeak()
	w.served()
	for _, m := range w.machines {
		if m.proc == nil || m.proc.core == nil {
			continue
		}
		if n := m.proc.core.Counters().Panics; n > 0 {
			w.fail("%v: %d panics in raft", m, n)
		}
	}
}

// agreed: every machine that is not destroyed runs, is a member and ready, and has the same ledger.
func (w *World) agreed() bool {
	var first *router
	for _, m := range w.machines {
		if m.startAt > 0 && w.tick >= m.startAt {
			m.start()
		}
	}
	w.retiring(1)
	for _, m := range w.machines {
		if m.dead {
			continue
		}
		r := m.proc
		if r == nil || r.core == nil || !r.ready || len(r.adds) > 0 || len(r.ends) > 0 || r.leaving > 0 {
			return false
		}
		if me, ok := r.state.Member(r.id); !ok || !me.Live() {
			return false
		}
		if first == nil {
			first = r
		}
		if r.state.Index() != first.state.Index() || r.state.Cluster() != first.state.Cluster() {
			return false
		}
	}
	return first != nil && len(w.mourned(first.state)) == 0
}

// drain lets what rests have rested and what was never finished be ended: some looks at
// the kernel, far apart, by the same lives.
func (w *World) drain() {
	for range 5 {
		before := w.lives()
		for range 3 { // what is gone is missed, then released, then it has rested
			for _, m := range w.up() {
				m.skew += minute
				m.proc.lookAt = 0
			}
			w.step()
		}
		if w.until(agreeWithin, w.agreed) && slices.Equal(before, w.lives()) {
			return
		}
	}
	w.fail("routers end by themselves, again and again: %s", w.standing())
}

// lives are the routers that run.
func (w *World) lives() (all []*router) {
	for _, m := range w.machines {
		all = append(all, m.proc)
	}
	return all
}

// noLeak asserts that claims and containers are the same, that records are everywhere,
// and that no owner of anything is somebody of whom nothing is left.
func (w *World) noLeak() {
	for _, m := range w.up() {
		for _, c := range m.proc.alloc.Claims() {
			if m.container(c.Hash) == nil && c.Key != allot.HostKey(c.Network) {
				w.fail("%v: claim %s on %v has no container", m, c.Key.ContainerID, c.Addrs)
			}
		}
		for _, c := range m.containers {
			if _, ok := m.proc.alloc.Claim(c.kernel.Alias.Hash); !ok {
				w.fail("%v: container %d has no claim", m, c.n)
			}
		}
		if _, ok := m.proc.alloc.Claim(allot.HostKey(w.network.Name).Hash()); ok != (len(m.bridge) > 0) {
			w.fail("%v: the bridge has %v, and a claim: %v", m, m.bridge, ok)
		}
		if n := len(m.state.offers); n > 0 {
			w.fail("%v: %d offers are not answered", m, n)
		}
	}
	w.ownersLive()
	w.sameRecords()
}

// ownersLive: a block belongs to a live member that runs, or to one that nobody retired yet.
func (w *World) ownersLive() {
	up := w.up()
	if len(up) == 0 {
		return
	}
	s := up[0].proc.state
	for _, m := range s.Members() {
		runs := slices.ContainsFunc(up, func(x *machine) bool { return x.proc.id == m.ID })
		if m.Live() && !runs {
			w.fail("member %s (%x) is live in the ledger and runs nowhere", m.Name, uint64(m.ID))
		}
	}
}

func (w *World) sameRecords() {
	same := func() bool {
		for _, m := range w.up() {
			m.proc.tellAt = 0
		}
		for _, m := range w.up() {
			for _, o := range w.up() {
				a, b := o.proc.names.Records(o.name), m.proc.names.Records(o.name)
				if len(a) != len(b) || len(a) != len(o.containers) {
					return false
				}
				for k, v := range a {
					if string(b[k]) != string(v) {
						return false
					}
				}
			}
		}
		return true
	}
	if !w.until(agreeWithin, same) {
		w.fail("the records are not the same everywhere, or not those of the containers that run")
	}
}

// served asserts that each host gets an address as long as one is free anywhere, soon.
func (w *World) served() {
	for _, m := range w.up() {
		if !w.until(serveWithin, func() bool { return m.proc.settled }) {
			if w.free() {
				w.fail("%v: the bridge has no address with some free: %s", m, w.standing())
			}
			continue
		}
		ended := false
		var got *order
		free := w.free()
		m.do(func(r *router) {
			r.add(w.any(), false, func(o *order) { got, ended = o, true })
		})
		if !w.until(serveWithin+1, func() bool { return ended }) {
			w.fail("%v: an ADD was neither served nor refused in time", m)
		}
		if len(got.addrs) == 0 && free {
			w.fail("%v: an ADD was refused (%s) with addresses free: %s", m, got.why, w.standing())
		}
	}
}

// free reports whether each subnet has an address that nobody uses and somebody could give.
func (w *World) free() bool {
	up := w.up()
	for i, s := range w.spaces {
		left := ^uint64(0) >> (64 - w.size(i))
		left &^= w.ends(i)
		for _, m := range w.machines {
			held := slices.Clone(m.bridge)
			for _, c := range m.containers {
				held = append(held, c.kernel.Alias.Addrs...)
			}
			for _, p := range held {
				if bit, ok := s.bit(p.Addr()); ok {
					left &^= bit
				}
			}
		}
		st := up[0].proc.state
		for _, o := range st.Owners(w.network.Name, s.prefix) {
			if m, ok := st.Member(o.Member); !ok || !m.Live() {
				left &^= s.set(o.Range)
			}
		}
		if left == 0 {
			return false
		}
	}
	return true
}
