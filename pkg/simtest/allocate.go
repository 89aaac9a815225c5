package simtest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// Bounds of an ADD, in ticks, as in pkg/ipam.
const (
	allocateWithin = 50
	restWithin     = 10
	begWithin      = 15
)

// order is an ADD under way: pkg/ipam's fill, turned inside out.
type order struct {
	n      int // of the container
	key    attachment.Key
	byFile bool
	host   bool // for the bridge
	named  bool // for the bridge of another network than the default one
	order  allot.Order
	since  int
	asked  string // key of the proposal that it waits for, "" for none

	addrs []netip.Prefix // given
	code  uint           // refused, when done and there are none
	why   string
	done  func(*order)
}

// add begins an ADD. wanted asks for an address, the zero one for any.
func (r *router) add(wanted netip.Addr, byFile bool, done func(*order)) {
	r.w.nextContainer++
	o := &order{n: r.w.nextContainer, byFile: byFile, since: r.w.tick, done: done}
	o.key = attachment.Key{Network: r.w.network.Name, ContainerID: fmt.Sprint("c", o.n), IfName: "eth0"}
	in := ctl.AllocateRequest{Key: o.key, Network: r.w.network.Name, Decider: ctl.DecidedByVeth}
	if byFile {
		in.Decider = ctl.DecidedByClaim
	}
	if wanted.IsValid() {
		in.Requested = []string{wanted.String()}
	}
	var err error
	if o.order, err = allot.ParseAllocate(in); err != nil {
		r.w.fail("%v: %v", r.m, err)
	}
	if byFile {
		r.m.pending = append(r.m.pending, o.key.Hash()) // its runtime sends DEL unless the ADD succeeds
	}
	if r.w.tracing {
		r.w.tracef("%v: ADD of container %d (%v)", r.m, o.n, wanted)
	}
	r.adds = append(r.adds, o)
	r.serve(o)
}

// serve tries to fill an order. It ends it, or leaves it waiting for something.
func (r *router) serve(o *order) {
	for range 20 {
		addrs, lack, err := r.alloc.Try(o.order)
		switch {
		case err != nil:
			r.refuse(o, err)
			return
		case lack == nil:
			r.fill(o, addrs)
			return
		case r.w.tick >= o.since+allocateWithin:
			r.refuse(o, &ctl.Error{Code: ctl.CodeTryAgain, Msg: lack.Why})
			return
		case lack.Instead && r.w.tick >= o.since+restWithin:
			o.order.Restless = true
			continue
		case lack.Begs && r.w.tick >= o.since+begWithin:
			o.order.Denied = true
			continue
		case lack.Command != nil && !r.begged(*lack):
			r.ask(*lack)
			o.asked = lack.Key
		}
		return
	}
	r.w.fail("%v: the ADD of container %d goes round in circles", r.m, o.n)
}

// begged reports whether the ledger shows already what the host needs: then it waits for
// what others give.
func (r *router) begged(l allot.Lack) bool {
	return l.Begs && slices.ContainsFunc(r.state.Needs(), func(n ledger.Need) bool {
		if n.Member != r.id {
			return false
		}
		if l.Command.TakeAddr != nil {
			return n.Addr == l.Command.TakeAddr.Addr
		}
		return !n.Addr.IsValid() && n.Subnet == l.Command.Take.Subnet
	})
}

// ask proposes what is lacking, unless the same is under way.
func (r *router) ask(l allot.Lack) {
	if _, ok := r.asks[l.Key]; ok {
		return
	}
	r.early(*l.Command)
	r.asks[l.Key] = r.propose(*l.Command, func(d replica.Done) { r.answered(l, d) })
}

// early is a mistake: the blocks are used as if the command were committed.
func (r *router) early(c ledger.Command) {
	if r.w.mistake != UseBeforeCommit || r.state.Cluster() == "" {
		return
	}
	s := r.state.Clone()
	s.Apply(s.Index()+1, c)
	r.show(s)
}

func (r *router) answered(l allot.Lack, d replica.Done) {
	delete(r.asks, l.Key)
	err := d.Err
	if err == nil && !((l.Chosen || l.Begs) && d.Result.Code == ledger.CodeTaken) {
		err = allot.Refusal(d.Result)
	}
	for _, o := range slices.Clone(r.adds) {
		if o.asked != l.Key {
			continue
		}
		var coded *ctl.Error
		if o.asked = ""; errors.As(err, &coded) {
			r.refuse(o, err)
			continue
		}
		r.serve(o)
	}
}

// look is when the ledger has moved: those who wait try again, and the host provides.
func (r *router) look() {
	for _, o := range slices.Clone(r.adds) {
		if o.asked == "" {
			r.serve(o)
		}
	}
	r.provide()
}

// provide asks early and gives what others need.
func (r *router) provide() {
	if !r.ready || r.over != "" || r.core == nil {
		return
	}
	if r.leaving == 0 && len(r.offered) == 0 {
		r.m.leaves = false
	}
	if !r.settled {
		r.settleBridge()
	}
	for _, l := range r.alloc.Wants() {
		r.ask(l)
	}
	r.give()
}

func (r *router) give() {
	if r.giving {
		return
	}
	c, unsaved := r.alloc.Offer()
	if unsaved != nil {
		r.fileOffers(unsaved)
		r.alloc.Saved()
	}
	if c == nil {
		return
	}
	r.giving = true
	early := r.w.mistake == GiveBeforeStop
	if early {
		r.given() // it is allocated from until the ledger has moved
	}
	r.propose(*c, func(d replica.Done) {
		r.giving = false
		if d.Err != nil {
			return
		}
		if !early {
			r.given()
		}
		r.m.count()
		r.look()
	})
}

// given ends the offer that was proposed last, on file first.
func (r *router) given() {
	r.fileOffers(r.alloc.Left())
	r.alloc.Answered()
}

// hurry ends what has waited for too long.
func (r *router) hurry() {
	for _, o := range slices.Clone(r.adds) {
		switch age := r.w.tick - o.since; {
		case age >= allocateWithin:
			r.refuse(o, &ctl.Error{Code: ctl.CodeTryAgain, Msg: "not within 5 s"})
		case age == restWithin || age == begWithin:
			r.serve(o)
		}
	}
}

func (r *router) drop(o *order) {
	r.adds = slices.DeleteFunc(r.adds, func(x *order) bool { return x == o })
}

func (r *router) refuse(o *order, err error) {
	var coded *ctl.Error
	if !errors.As(err, &coded) {
		r.w.fail("%v: ADD of container %d: %v", r.m, o.n, err)
	}
	o.code, o.why = coded.Code, coded.Error()
	if r.w.tracing {
		r.w.tracef("%v: ADD of container %d refused: %v", r.m, o.n, err)
	}
	r.drop(o)
	if o.done != nil {
		o.done(o)
	}
}

// fill makes the container: the plugin's part of an ADD. It may be killed on the way.
func (r *router) fill(o *order, addrs []netip.Prefix) {
	r.drop(o)
	o.addrs = addrs
	if o.host && o.named {
		r.stand(o, addrs)
		return
	}
	if o.host {
		r.w.tracef("%v: the bridge has %v", r.m, addrs)
		r.m.bridge, r.settled = addrs, true
		r.m.count()
		return
	}
	if r.w.tracing {
		r.w.tracef("%v: container %d gets %v", r.m, o.n, addrs)
	}
	if len(addrs) == 0 {
		r.w.fail("%v: ADD of container %d answered with nothing", r.m, o.n)
	}
	if o.done == nil && r.w.chance(r.w.rate.plugin) {
		return // before the veth: the reservation ends by itself
	}
	c := &container{n: o.n, key: o.key, byFile: o.byFile}
	c.kernel = allot.Kernel{Veth: o.key.Veth(), Network: o.key.Network,
		Alias: attachment.Alias{Hash: o.key.Hash(), Network: o.key.Network, Addrs: addrs}}
	if n, _ := r.shown.Network(o.key.Network); o.key.Network != r.w.network.Name {
		c.kernel.NetID = n.ID // by the bridge
	}
	r.m.unpend(c.kernel.Alias.Hash)
	r.m.runs(c)
	if o.done == nil && r.w.chance(r.w.rate.plugin) {
		return // before the router heard of it
	}
	if !o.byFile {
		if _, err := r.alloc.Commit(allot.Commit{Key: o.key, Network: o.key.Network, Addrs: addrs}); err != nil {
			r.w.fail("%v: commit of container %d: %v", r.m, o.n, err)
		}
	}
	r.name(c)
	if o.done != nil {
		o.done(o)
	}
}

// del ends a container. The address follows its veth.
func (m *machine) del(c *container) {
	if m.w.tracing {
		m.w.tracef("%v: DEL of container %d", m, c.n)
	}
	m.stop(c)
	if c.byFile {
		m.pending = append(m.pending, c.kernel.Alias.Hash)
	}
	m.do(func(r *router) {
		r.alloc.Release(c.kernel.Alias.Hash)
		r.unname(c.kernel.Alias.Hash)
		r.m.unpend(c.kernel.Alias.Hash)
	})
}

// retryDels sends the DELs that have not succeeded yet.
func (r *router) retryDels() {
	for _, hash := range slices.Clone(r.m.pending) {
		if !slices.ContainsFunc(r.adds, func(o *order) bool { return o.key.Hash() == hash }) {
			r.alloc.Release(hash)
			r.m.unpend(hash)
		}
	}
}

// reconcile compares with the kernel.
func (r *router) reconcile() {
	kernel := r.m.kernelShows()
	if r.w.mistake == KernelNotCounted {
		kernel = slices.DeleteFunc(kernel, func(k allot.Kernel) bool { _, ok := r.alloc.Claim(k.Alias.Hash); return !ok })
	}
	released, _ := r.alloc.Reconcile(kernel)
	for _, c := range released {
		if live := r.m.container(c.Hash); live != nil {
			r.w.fail("%v: reconciliation released the address of container %d, which runs", r.m, live.n)
		}
	}
}

// describe is a command in a trace.
func describe(c ledger.Command) string {
	switch {
	case c.Take != nil:
		return fmt.Sprintf("take %d of %v (early %v)", c.Take.Want, c.Take.Subnet, c.Take.Early)
	case c.TakeAddr != nil:
		return fmt.Sprintf("take %v", c.TakeAddr.Addr)
	case c.Give != nil:
		return fmt.Sprintf("give %v", c.Give.Ranges)
	case c.Leave != nil:
		return "leave"
	}
	return describeMore(c)
}
