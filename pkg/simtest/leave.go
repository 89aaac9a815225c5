package simtest

import (
	"fmt"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// leaveWithin is how long a host waits to be let go, in ticks.
const leaveWithin = 40

// settleBridge asks for the host's own addresses, or for those that the bridge has.
func (r *router) settleBridge() {
	if !r.ready || r.over != "" || r.leaving > 0 || r.core == nil {
		return
	}
	if r.settled || slices.ContainsFunc(r.adds, func(o *order) bool { return o.host && !o.named }) {
		return
	}
	key := allot.HostKey(r.w.network.Name)
	o := &order{key: key, host: true, since: r.w.tick, order: allot.HostOrder(r.w.network.Name, r.m.bridge)}
	r.adds = append(r.adds, o)
	r.serve(o)
}

// leave is `weave reset`, in pkg/router's order: nothing is given any more, the bridge
// has no address, everything is offered, and then the ledger hears of it.
func (m *machine) leave() {
	r := m.proc
	if r == nil || r.core == nil || len(m.containers) > 0 || len(r.adds) > 0 || !r.ready || r.leaving > 0 || m.stalled > 0 || m.w.few(r.state) {
		return
	}
	m.do(func(r *router) {
		if held := r.alloc.Leave(); len(held) > 0 {
			return
		}
		r.w.tracef("%v leaves", m)
		r.leaving = r.w.tick + leaveWithin
		m.bridge, m.bridges = nil, nil
		clear(r.raised)
		m.count()
		offers, held, err := r.alloc.OfferAll()
		if err != nil || len(held) > 0 {
			r.w.fail("%v cannot leave: %v, %v", m, held, err)
		}
		r.fileOffers(offers)
		r.alloc.Saved()
		r.tellLeave()
	})
}

// few: the cluster would be too small without one more. Of those that leave it is not yet
// known whether they stay after all; were all to leave, the cluster would end with them.
func (w *World) few(s *ledger.State) bool {
	stay := 0
	for _, m := range s.Members() {
		if m.Live() && !slices.ContainsFunc(w.machines, func(o *machine) bool { return o.state.id == m.ID && o.leaves }) {
			stay++
		}
	}
	return stay < 3
}

// tellLeave proposes it. The state directory is emptied when the cluster has let go.
func (r *router) tellLeave() {
	r.m.leaves = true
	r.leave = r.propose(ledger.Command{Leave: &ledger.Leave{ID: r.id}}, func(d replica.Done) {
		if d.Err == nil && d.Result.Code != ledger.OK {
			r.stay()
			return
		}
		r.wipe("it has left")
		r.over = "it has left"
		r.m.flags.found = false
	})
}

// stay takes leave back: it took too long. What was offered goes to the pool first.
func (r *router) stay() {
	r.w.tracef("%v stays", r.m)
	delete(r.ends, r.leave)
	r.core.Cancel(r.leave)
	r.leaving, r.settled = 0, false
	r.alloc.Stay()
	r.m.count()
	r.look()
}

// join is a machine that was never there.
func (w *World) join() {
	if len(w.machines) >= w.scenario.mayGrow {
		return
	}
	w.addMachine(gossip.Peer(fmt.Sprintf("%c", 'a'+len(w.machines)))).start()
}
