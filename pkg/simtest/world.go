package simtest

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// World is one run: machines, the network between them, and what must hold.
type World struct {
	seed     uint64
	rng      *rand.PCG
	mistake  Mutation
	scenario *Scenario

	tick     int
	machines []*machine
	names    []gossip.Peer // sorted, each once
	net      network
	inbox    []packet       // of the machine that acts
	network  ledger.Network // the default one
	spaces   []space        // its subnets

	nextID        ledger.MemberID
	nextContainer int
	compactAfter  uint64
	crash         float64 // chance of a crash at each point where something is written
	rate          rates
	forgot        int // machines that lost their state while they founded
	destroyed     int
	over          bool // nobody is left
	applied       map[point]uint64
	latest        *ledger.State // the furthest that anybody has applied
	judge         judge
	trace         []string
	tracing       bool
	steps         int
}

// point is an entry of one cluster's log.
type point struct {
	cluster string
	index   uint64
}

// space is a subnet, small enough that a set of its addresses is one word.
type space struct {
	prefix netip.Prefix
	first  netip.Addr
}

// bit is the address's place in the set; ok is false when it is of another subnet.
func (s space) bit(a netip.Addr) (uint64, bool) {
	if !s.prefix.Contains(a) {
		return 0, false
	}
	return 1 << addr.Distance(s.first, a), true
}

// set is the addresses of a range.
func (s space) set(r addr.Range) (set uint64) {
	lo, hi := addr.Distance(s.first, r.First), addr.Distance(s.first, r.Last)
	return ^uint64(0) >> (63 - hi) & (^uint64(0) << lo)
}

// bad is how a step ends that must not be: by panic, caught in Run.
type bad struct{ what string }

// fail ends the run.
func (w *World) fail(format string, args ...any) { panic(bad{fmt.Sprintf(format, args...)}) }

func (w *World) chance(p float64) bool {
	return p > 0 && float64(w.rng.Uint64()>>11)/(1<<53) < p
}

func (w *World) intn(n int) int { return int(w.rng.Uint64() % uint64(n)) }

func pick[T any](w *World, from []T) T { return from[w.intn(len(from))] }

// tracef notes what happens, when somebody reads it.
func (w *World) tracef(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%4d  ", w.tick)+fmt.Sprintf(format, args...))
	}
}

var quiet = slog.New(slog.DiscardHandler)

// addMachine makes a machine that was never started.
func (w *World) addMachine(name gossip.Peer) *machine {
	if len(w.machines) >= maxMachines {
		panic("simtest: a scenario with too many machines")
	}
	m := &machine{w: w, at: len(w.machines), name: name, hardware: fmt.Sprint("m", len(w.machines)), boot: 1, skew: time.Duration(w.intn(1000)) * time.Second}
	m.run.reset()
	w.machines = append(w.machines, m)
	if !slices.Contains(w.names, name) {
		w.names = append(w.names, name)
		slices.Sort(w.names)
	}
	return m
}

func (w *World) newID() ledger.MemberID {
	w.nextID++
	return w.nextID*8 + ledger.MemberID(w.intn(8)) // so that their order is not that of their birth alone
}

// connections tells everybody who can be reached now.
func (w *World) connections() {
	for _, m := range w.machines {
		if m.proc != nil && m.proc.core != nil {
			m.proc.core.SetPeers(w.net.peers(m.at))
		}
	}
}

// step is a tenth of a second.
func (w *World) step() {
	w.tick++
	for _, m := range w.machines {
		if m.stalled > 0 {
			m.stalled--
			continue
		}
		m.do((*router).tick)
	}
	w.net.due()
	for range 400 {
		p, ok := w.net.next()
		if !ok {
			break
		}
		w.inbox = append(w.inbox[:0], p)
		if w.chance(0.7) { // as replica.Run does, when it did not get to run for a moment
			w.inbox = w.net.others(p.to, w.inbox)
		}
		w.deliver(w.machines[p.to], w.inbox)
	}
}

// deliver hands a machine what has arrived for it.
func (w *World) deliver(m *machine, inbox []packet) {
	if m.proc == nil {
		return
	}
	if m.stalled > 0 {
		at := (w.tick + 1) % horizon
		w.net.later[at] = append(w.net.later[at], inbox...)
		return
	}
	inbox = slices.DeleteFunc(inbox, func(p packet) bool { return w.net.cut[p.from][p.to] || !w.net.accepts(p.to, p.from) })
	if len(inbox) == 0 {
		return
	}
	m.do(func(r *router) {
		for _, p := range inbox {
			r.receive(w.machines[p.from].name, p)
		}
	})
}

// run runs ticks without new faults.
func (w *World) run(ticks int) {
	for range ticks {
		w.step()
	}
}

// until steps until cond holds; false when it does not within max ticks.
func (w *World) until(max int, cond func() bool) bool {
	for range max {
		if cond() {
			return true
		}
		w.step()
	}
	return cond()
}

// up are the machines whose router runs.
func (w *World) up() (out []*machine) {
	for _, m := range w.machines {
		if m.proc != nil {
			out = append(out, m)
		}
	}
	return out
}
