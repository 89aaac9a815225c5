package simtest

import (
	"net/netip"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

const minute = time.Minute

// rates are chances per tick, unless said otherwise.
type rates struct {
	add, del   float64
	wanted     float64 // of an ADD: that it asks for one address
	byFile     float64 // of an ADD: that it is another main plugin's
	plugin     float64 // of an ADD: that its plugin is killed on the way; twice
	vanish     float64 // a container's veth goes without a word
	kill       float64 // a router ends
	killLeader float64
	killGiver  float64 // one that waits for the answer to what it gives back
	start      float64 // per machine that is down
	cut        float64 // one direction of one link
	isolate    float64
	split      float64
	heal       float64
	amnesia    float64 // one that helped to decide on the founder forgets it, out of the others' sight
	stall      float64 // a router does not get to run for a while
	clock      float64 // a machine's clock jumps ahead
	reboot     float64
	loseState  float64
	loseRun    float64
	backup     float64
	restore    float64
	clone      float64
	destroy    float64
	leave      float64
	join       float64 // a new machine
	allReboot  float64
	allRestart float64
}

// act does what the rates say, once.
func (w *World) act() {
	r := &w.rate
	for range 1 + int(r.add) {
		if w.chance(r.add) {
			w.add()
		}
	}
	if w.chance(r.del) {
		w.del()
	}
	for _, m := range w.machines {
		if m.proc == nil && !m.dead && (m.startAt > 0 && w.tick >= m.startAt || m.startAt == 0 && w.chance(r.start)) {
			m.start()
		}
	}
	if w.frozen() {
		return
	}
	w.actOnNetwork(r)
	w.actOnMachines(r)
}

func (w *World) actOnNetwork(r *rates) {
	n := len(w.machines)
	if w.chance(r.cut) {
		if a, b := w.intn(n), w.intn(n); a != b {
			w.tracef("%v no longer reaches %v", w.machines[a], w.machines[b])
			w.net.cut[a][b] = true
			w.connections()
		}
	}
	if w.chance(r.isolate) {
		i := w.intn(n)
		w.tracef("%v is cut off", w.machines[i])
		w.net.isolate(i)
	}
	if w.chance(r.split) {
		side := uint(w.rng.Uint64()) & (1<<n - 1)
		w.tracef("split %0*b", n, side)
		w.net.split(side)
	}
	if w.chance(r.heal) {
		w.tracef("links are mended")
		w.net.cut = [maxMachines][maxMachines]bool{}
		w.connections()
	}
}

func (w *World) actOnMachines(r *rates) {
	m := pick(w, w.machines)
	if m.dead {
		return
	}
	switch {
	case w.chance(r.kill):
		w.tracef("%v is killed", m)
		m.kill()
	case w.chance(r.killLeader):
		w.killLeaders()
	case w.chance(r.killGiver):
		w.killGivers()
	case w.chance(r.amnesia):
		w.amnesia()
	case w.chance(r.stall):
		m.stalled = 1 + w.intn(30)
		w.tracef("%v stalls for %d ticks", m, m.stalled)
	case w.chance(r.clock):
		m.skew += time.Duration(w.intn(100)) * time.Second
	case w.chance(r.reboot):
		m.reboot()
	case w.chance(r.loseState):
		m.loseState()
	case w.chance(r.loseRun):
		m.loseRun()
	case w.chance(r.backup):
		w.tracef("a copy is made of %v's state directory", m)
		s := m.state.copy()
		m.backup = &s
	case w.chance(r.restore):
		m.restore()
	case w.chance(r.clone):
		w.clone(m)
	case w.chance(r.destroy):
		w.destroy(m)
	case w.chance(r.leave):
		m.leave()
	case w.chance(r.join):
		w.join()
	case w.chance(r.allReboot):
		for _, x := range w.machines {
			if !x.dead {
				x.reboot()
			}
		}
	case w.chance(r.allRestart):
		for _, x := range w.machines {
			x.kill()
		}
	}
}

func (w *World) killLeaders() {
	for _, m := range w.up() {
		if m.proc.core != nil && m.proc.core.Leading() {
			w.tracef("%v, which leads, is killed", m)
			m.kill()
		}
	}
}

// killGivers kills those that wait for the answer to what they give back.
func (w *World) killGivers() {
	for _, m := range w.up() {
		if m.proc.giving {
			w.tracef("%v, which gives something back, is killed", m)
			m.kill()
			m.startAt = w.tick + 1 + w.intn(3)
		}
	}
}

// any is the address that nobody asks for.
func (w *World) any() netip.Addr { return netip.Addr{} }

func (w *World) add() {
	up := w.up()
	if len(up) == 0 {
		return
	}
	m := pick(w, up)
	if len(m.proc.adds) > 3 || !m.proc.settled || m.proc.core == nil || m.proc.leaving > 0 || m.stalled > 0 {
		return
	}
	wanted := w.any()
	if w.chance(w.rate.wanted) {
		i := w.intn(len(w.spaces))
		wanted, _ = addr.Add(w.spaces[i].first, 1+uint64(w.intn(w.size(i)-2)))
	}
	byFile := w.chance(w.rate.byFile)
	m.do(func(r *router) { r.add(wanted, byFile, nil) })
}

func (w *World) del() {
	m := pick(w, w.machines)
	if len(m.containers) == 0 {
		return
	}
	c := pick(w, m.containers)
	switch {
	case c.byFile && m.proc == nil || m.stalled > 0:
	case !c.byFile && w.chance(w.rate.vanish):
		w.tracef("%v: container %d vanishes", m, c.n)
		m.stop(c)
	default:
		m.del(c)
	}
}

// lastCopy reports whether a machine has the only copy of the ledger.
func (w *World) lastCopy(m *machine) bool {
	for _, o := range w.machines {
		if o != m && !o.dead && o.state.ledger.Snapshot.Index > 0 && !o.leaves && !o.copied {
			return false
		}
	}
	return m.state.ledger.Snapshot.Index > 0
}

// loseState empties the state directory, while the router is down or under its feet: then
// it ends, since the next write fails.
func (m *machine) loseState() {
	if m.w.scenario.bootstrap && !m.w.mayForget(m) || m.w.lastCopy(m) {
		return
	}
	m.kill()
	m.w.tracef("%v loses its state directory", m)
	old := m.state
	m.state = stateDir{}
	if m.w.mistake == VoteAfterForgetting {
		m.state = stateDir{id: old.id, hardware: old.hardware}
		m.state.ledger.Owner, m.state.ledger.Generation = old.id, old.ledger.Generation
		m.run.witness.Saves = 0
	}
}

// loseRun empties the run directory. What other main plugins attached is known from it
// alone, so a machine that has such containers does not lose it.
func (m *machine) loseRun() {
	for _, c := range m.containers {
		if c.byFile {
			return
		}
	}
	m.kill()
	m.w.tracef("%v loses its run directory", m)
	m.run.reset()
}

// restore puts an old copy of the state directory back; see the package's assumptions.
func (m *machine) restore() {
	if m.backup == nil || m.w.lastCopy(m) || !m.w.mayGoBack(m) {
		return
	}
	seen := m.run.witness.Boot == m.bootID() && m.run.witness.Member == uint64(m.backup.id)
	how := m.w.intn(3)
	if (!seen || how > 0) && !m.w.othersKnowBetter(m) {
		if m.proc != nil && m.backup.ledger.Generation >= m.state.ledger.Generation {
			m.kill() // they will, when they have heard one more life
			m.startAt = m.w.tick + 1
		}
		return
	}
	m.kill()
	switch how {
	case 1:
		m.loseRun()
	case 2:
		m.reboot()
	}
	m.w.tracef("%v has its state directory put back from a copy (life %d)", m, m.backup.ledger.Generation)
	m.state, m.copied, m.wentBack = m.backup.copy(), true, true
	if !seen || how > 0 {
		m.w.net.cut = [maxMachines][maxMachines]bool{}
		m.frozen, m.spare = m.w.tick+200, 1
		m.startAt = m.w.tick + 1
		m.w.connections()
	}
}

// mayGoBack: a minority may, so that a majority of the voters remembers.
func (w *World) mayGoBack(m *machine) bool {
	n := 1
	for _, o := range w.machines {
		if o != m && o.wentBack {
			n++
		}
	}
	return n <= (len(w.machines)-1)/2
}

// frozen: a machine with an old copy must be able to ask those who know better.
func (w *World) frozen() bool {
	for _, m := range w.machines {
		if m.frozen > w.tick && (m.proc == nil || !m.proc.ready && m.proc.id == m.state.id) {
			if m.proc != nil && m.spare > 0 && w.chance(0.3) {
				w.tracef("%v is killed before it is confirmed", m)
				m.spare--
				m.kill()
				m.startAt = w.tick + 1
			}
			return true
		}
		m.frozen = 0
	}
	return false
}

// othersKnowBetter: all others run and have heard a life of that member that is later
// than the copy's own, or know that the member is no more.
func (w *World) othersKnowBetter(m *machine) bool {
	n := 0
	for _, o := range w.machines {
		if o == m || o.dead {
			continue
		}
		if o.proc == nil || o.proc.core == nil || o.stalled > 0 || o.name == m.name {
			return false
		}
		who, known := o.proc.state.Member(m.backup.id)
		if !(known && !who.Live()) && o.proc.heard[m.backup.id] <= m.backup.ledger.Generation {
			return false
		}
		n++
	}
	return n >= 2
}

// mayForget: a minority of those that found together may, and not the one that the others
// wait for.
func (w *World) mayForget(m *machine) bool {
	if w.forgot >= (len(w.machines)-1)/2 {
		return false
	}
	for _, o := range w.machines {
		if o.proc != nil && o.proc.core != nil && o.proc.state.Index() > 0 && o != m {
			continue // the cluster is founded, and has a copy
		}
		for _, v := range []*ledger.MemberID{founder(o.state.decided), founder(o.state.founding.Value)} {
			if v != nil && *v == m.state.id {
				return false
			}
		}
	}
	w.forgot++
	return true
}

// amnesia has one that took part in a decision about the founder forget it, while all who
// know of it as well are cut off from those who do not.
func (w *World) amnesia() {
	var knows []*machine
	var side uint
	for _, m := range w.machines {
		if m.state.decided != nil || m.state.founding.Value != nil {
			knows = append(knows, m)
			side |= 1 << m.at
		}
	}
	if len(knows) < 2 || len(knows) == len(w.machines) {
		return
	}
	m := pick(w, knows)
	id := m.state.id
	if m.loseState(); m.state.id == id {
		return
	}
	w.net.split(side &^ (1 << m.at))
	m.start()
}

// clone starts a copy of a machine, on other hardware.
func (w *World) clone(m *machine) {
	if len(w.machines) >= maxMachines || slices.ContainsFunc(w.machines, func(o *machine) bool { return o != m && o.name == m.name }) {
		return
	}
	c := w.addMachine(m.name)
	c.state, c.flags = m.state.copy(), m.flags
	if m.backup != nil && w.chance(0.5) {
		c.state = m.backup.copy()
	}
	w.tracef("%v is cloned", m)
	if w.chance(0.7) {
		side := uint(w.rng.Uint64())&(1<<len(w.machines)-1) | 1<<m.at
		w.net.split(side &^ (1 << c.at))
	}
	c.start()
}

// destroy ends a machine for good, and has it retired by one, or by two at once.
func (w *World) destroy(m *machine) {
	left := 0
	for _, o := range w.machines {
		if o.proc != nil && o.proc.core != nil && o != m {
			left++
		}
	}
	if left < 2 || w.lastCopy(m) || w.destroyed >= w.scenario.mayDestroy {
		return
	}
	w.destroyed++
	m.destroy()
	if !w.scenario.twins && w.chance(0.3) && len(w.machines) < maxMachines {
		w.addMachine(m.name) // new hardware under the old name
	}
}

// mourned lists the members that only a destroyed machine can have been, and that are
// in a ledger still.
func (w *World) mourned(s *ledger.State) (out []ledger.MemberID) {
	for _, x := range s.Members() {
		if !x.Left && slices.ContainsFunc(w.machines, func(m *machine) bool { return m.dead && m.hardware == x.Place.Machine }) {
			out = append(out, x.ID)
		}
	}
	return out
}

// retiring is the operators' work: each member of a destroyed machine is retired, by
// whoever is asked, by several at once.
func (w *World) retiring(p float64) {
	if w.destroyed == 0 {
		return
	}
	for _, m := range w.up() {
		r := m.proc
		if r.core == nil || !r.ready || r.retires || m.stalled > 0 || !w.chance(p) {
			continue
		}
		for _, id := range w.mourned(r.state) {
			r.retire(id)
			break
		}
	}
}

func (r *router) retire(id ledger.MemberID) {
	r.retires = true
	r.m.do(func(r *router) {
		r.propose(ledger.Command{Retire: &ledger.Retire{ID: id}}, func(replica.Done) { r.retires = false })
	})
}

// slander has a host retired that lives, cut off from the one who says so or not.
func (w *World) slander() {
	up := w.up()
	if len(up) < 2 {
		return
	}
	by, about := pick(w, up), pick(w, up)
	if by == about || by.proc.core == nil || !by.proc.ready || about.state.id == 0 {
		return
	}
	w.judge.lax = true
	w.tracef("%v says that %v is destroyed, which is not true", by, about)
	if w.chance(0.5) {
		w.net.isolate(about.at)
	}
	by.proc.retire(about.state.id)
}

// oneOfEach destroys one of two machines with one name: only one can be a host.
func (w *World) oneOfEach() {
	for i, m := range w.machines {
		for _, o := range w.machines[i+1:] {
			if o.name != m.name || o.dead || m.dead {
				continue
			}
			if w.lastCopy(o) || !w.lastCopy(m) && w.chance(0.5) {
				m, o = o, m
			}
			w.destroyed++
			o.destroy()
		}
	}
}

// force destroys most voters, and has the survivor that is furthest go on without them.
func (w *World) force() {
	w.crash, w.rate = 0, rates{}
	voters := min(5, len(w.machines)-1+len(w.machines)%2)
	for _, m := range w.machines[:voters/2+1] {
		w.destroyed++
		m.destroy()
	}
	left := w.machines[voters/2+1:]
	if len(left) == 0 {
		w.over = true
		return
	}
	w.net.heal()
	for _, m := range left {
		m.start()
	}
	w.run(10)
	w.forceOn()
}

// majorityLost reports whether nobody leads, though everybody who is left is there: most
// voters are destroyed, or have lost their state.
func (w *World) majorityLost() bool {
	best := w.furthest()
	if best == nil || best.proc.state.Index() == 0 {
		return false
	}
	for _, m := range w.up() {
		if m.proc.core != nil && m.proc.core.Leading() {
			return false
		}
	}
	return true
}

// forceOn is the operator's word that the majority will not come back: who is left and
// has most of the ledger goes on. What is known only to those who lost it is forgotten; if
// their containers run on, overlaps are possible, as the operator was told.
func (w *World) forceOn() {
	var last error
	for range 200 {
		if best := w.furthest(); best != nil && best.force(&last) {
			return
		}
		w.step()
		if w.agreed() {
			return // it was there, after all
		}
	}
	w.fail("the majority is lost and no survivor can go on: %v%s", last, w.standing())
}

// furthest is the survivor that has most of the ledger, and has not left.
func (w *World) furthest() (best *machine) {
	for _, m := range w.up() {
		if m.proc.core == nil || m.proc.leaving != 0 {
			continue
		}
		if me, known := m.proc.state.Member(m.proc.id); known && !me.Live() {
			continue
		}
		if best == nil || m.proc.state.Index() > best.proc.state.Index() {
			best = m
		}
	}
	return best
}

func (m *machine) force(last *error) (done bool) {
	m.do(func(r *router) {
		b, err := r.core.Force()
		if *last = err; err != nil {
			return
		}
		index := r.core.State().Index()
		r.w.tracef("%v goes on by force from entry %d", m, index)
		for p := range r.w.applied { // what only the destroyed had is forgotten
			if p.index > index {
				delete(r.w.applied, p)
				r.w.judge.lax = r.w.judge.lax || !r.w.scenario.survivors // containers of who forgot run on
			}
		}
		r.save(b)
		done = true
	})
	return done
}
