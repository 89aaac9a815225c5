package simtest

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// bridge is a machine's bridge of a network beside the default one.
type bridge struct {
	id, name string
	addrs    []netip.Prefix
}

// registryRates are chances per tick.
type registryRates struct{ create, label, end, force, add, del float64 }

// actOnRegistry has the registry changed by anybody, and containers use what there is.
func (w *World) actOnRegistry(r registryRates) {
	up := slices.DeleteFunc(w.up(), func(m *machine) bool {
		return m.proc.core == nil || !m.proc.ready || m.proc.leaving > 0 || m.stalled > 0
	})
	if len(up) == 0 {
		return
	}
	m := pick(w, up)
	switch {
	case w.chance(r.create):
		m.change(w.newNetwork(m.name))
	case w.chance(r.label):
		m.changeOne(func(n ledger.Network) ledger.Command {
			set := []ledger.Label{{Key: fmt.Sprint("k", w.intn(3)), Value: fmt.Sprint(w.tick)}}
			return ledger.Command{SetLabels: &ledger.SetLabels{Name: n.Name, ID: n.ID, Set: set, Drop: []string{"k0"}}}
		})
	case w.chance(r.end):
		force := w.chance(r.force)
		m.changeOne(func(n ledger.Network) ledger.Command {
			return ledger.Command{CloseNetwork: &ledger.CloseNetwork{Name: n.Name, ID: n.ID, Force: force}}
		})
	}
	if w.chance(r.add) && m.proc != nil && len(m.bridges) > 0 && len(m.proc.adds) <= 3 {
		b := pick(w, m.bridges)
		m.do(func(r *router) { r.addOn(b.name) })
	}
	if w.chance(r.del) {
		w.del()
	}
}

// newNetwork draws a definition: few names, and subnets that are in each other's way.
func (w *World) newNetwork(host gossip.Peer) ledger.Command {
	n := ledger.Network{Name: fmt.Sprint("n", w.intn(3)), Driver: ctl.DriverWeave, MTU: 1400, Internal: w.chance(0.2)}
	if w.chance(0.2) {
		n.Driver, n.Host = ctl.DriverSimpleBridge, string(host)
	}
	add := &ledger.AddNetwork{Network: n}
	if w.chance(0.5) {
		given := []string{"10.48.0.0/28", "10.48.0.8/29", "10.50.0.0/28", "10.50.0.0/29"}
		add.Network.Subnets = []netip.Prefix{netip.MustParsePrefix(pick(w, given))}
	} else {
		add.Choose = []ledger.Choice{{From: netip.MustParsePrefix("10.48.0.0/26"), Bits: 28}}
	}
	return ledger.Command{AddNetwork: add}
}

// change proposes a change of the registry; what it comes to is the ledger's to say.
func (m *machine) change(c ledger.Command) {
	m.do(func(r *router) { r.propose(c, func(replica.Done) {}) })
}

// changeOne changes one of the networks that the machine knows.
func (m *machine) changeOne(c func(ledger.Network) ledger.Command) {
	if all := m.proc.state.Networks(); len(all) > 0 {
		m.change(c(pick(m.w, all)))
	}
}

// addOn begins an ADD on a network beside the default one.
func (r *router) addOn(network string) {
	r.w.nextContainer++
	o := &order{n: r.w.nextContainer, since: r.w.tick}
	o.key = attachment.Key{Network: network, ContainerID: fmt.Sprint("c", o.n), IfName: "eth0"}
	var err error
	if o.order, err = allot.ParseAllocate(ctl.AllocateRequest{Key: o.key, Network: network, Decider: ctl.DecidedByVeth}); err != nil {
		r.w.fail("%v: %v", r.m, err)
	}
	if r.w.tracing {
		r.w.tracef("%v: ADD of container %d on %s", r.m, o.n, network)
	}
	r.adds = append(r.adds, o)
	r.serve(o)
}

// tend is what pkg/router does for the networks: it raises the bridges of those that are
// there, and takes down those that are being removed.
func (r *router) tend() {
	if r.w.scenario.registry == nil || !r.ready || r.over != "" || r.leaving > 0 || r.core == nil {
		return
	}
	all := r.state.Networks()
	for _, n := range all {
		switch {
		case n.Name == r.w.network.Name:
		case n.Closing:
			r.lower(n)
		case n.Host == "" || n.Host == string(r.m.name):
			r.raise(n)
		}
	}
	r.m.bridges = slices.DeleteFunc(r.m.bridges, func(b *bridge) bool {
		return !slices.ContainsFunc(all, func(n ledger.Network) bool { return n.ID == b.id })
	})
	if err := r.alloc.Forsake(); err != nil {
		r.w.fail("%v: %v", r.m, err)
	}
}

// raise asks for the host's own address on a network, as settleBridge does.
func (r *router) raise(n ledger.Network) {
	key := allot.HostKey(n.Name)
	if r.raised[n.ID] || slices.ContainsFunc(r.adds, func(o *order) bool { return o.host && o.key == key }) {
		return
	}
	var has []netip.Prefix
	if b := r.m.bridgeOf(n.ID); b != nil {
		has = b.addrs
	}
	o := &order{key: key, host: true, named: true, since: r.w.tick, order: allot.HostOrder(n.Name, has)}
	r.adds = append(r.adds, o)
	r.serve(o)
}

// stand makes the bridge of a network, or notes its addresses. An order goes by the name:
// the network may be another one by now than when it began.
func (r *router) stand(o *order, addrs []netip.Prefix) {
	n, _ := r.shown.Network(o.key.Network)
	r.raised[n.ID] = true
	if b := r.m.bridgeOf(n.ID); b != nil {
		b.addrs = addrs
		return
	}
	r.w.tracef("%v: the bridge of %s has %v", r.m, o.key.Network, addrs)
	r.m.bridges = append(r.m.bridges, &bridge{n.ID, n.Name, addrs})
	r.w.judge.dirty = true
}

func (m *machine) bridgeOf(id string) *bridge {
	if i := slices.IndexFunc(m.bridges, func(b *bridge) bool { return b.id == id }); i >= 0 {
		return m.bridges[i]
	}
	return nil
}

// lower goes in pkg/router's order: containers, bridge, addresses, definition.
func (r *router) lower(n ledger.Network) {
	if n.Forced {
		for _, c := range slices.Clone(r.m.containers) {
			if c.key.Network == n.Name && (c.kernel.NetID == "" || c.kernel.NetID == n.ID) {
				r.detach(c)
			}
		}
	}
	if r.w.mistake == GiveUnderContainers {
		r.giveAll(n)
	}
	if len(r.alloc.Dwellers(n)) == 0 {
		r.m.bridges = slices.DeleteFunc(r.m.bridges, func(b *bridge) bool { return b.id == n.ID })
		r.m.persist()
		r.vacate(n)
	}
	if len(r.state.Holders(n.Name)) == 0 && !r.deletes && (r.core.Leading() || r.w.chance(0.2)) {
		r.deletes = true
		r.propose(ledger.Command{DelNetwork: &ledger.DelNetwork{Name: n.Name, ID: n.ID}}, func(replica.Done) { r.deletes = false })
	}
}

// detach ends a container's attachment, as the reaper does.
func (r *router) detach(c *container) {
	r.w.tracef("%v: container %d is detached", r.m, c.n)
	r.m.stop(c)
	r.m.persist()
	if r.alloc.Release(c.kernel.Alias.Hash) == nil {
		r.unname(c.kernel.Alias.Hash)
	}
}

func (r *router) vacate(n ledger.Network) {
	if !slices.Contains(r.alloc.Vacant(), n.Name) {
		return
	}
	unsaved, held, err := r.alloc.Vacate(n.Name)
	if err != nil || len(held) > 0 {
		r.w.fail("%v: network %s is not given back: %v, %v", r.m, n.Name, held, err)
	}
	if unsaved != nil {
		r.fileOffers(unsaved)
		r.alloc.Saved()
	}
	r.give()
}

// giveAll is a mistake: a network is given back before its containers are gone.
func (r *router) giveAll(n ledger.Network) {
	for _, p := range n.Subnets {
		if own := r.state.Owned(n.Name, p, r.id); len(own) > 0 && !r.giving {
			r.giving = true
			r.propose(ledger.Command{Give: &ledger.Give{ID: r.id, Network: n.Name, Ranges: own}}, func(replica.Done) { r.giving = false })
		}
	}
}

// checkRegistry asserts of all that is on a network, bridge or container, that the network
// is in the ledger, as anybody knows it, and the address in a block of this very host.
func (w *World) checkRegistry() {
	if w.latest == nil || w.scenario.registry == nil {
		return
	}
	for _, m := range w.machines {
		for _, b := range m.bridges {
			w.mustOwn(m, b.name, b.addrs)
		}
		for _, c := range m.containers {
			if c.key.Network != w.network.Name {
				w.mustOwn(m, c.key.Network, c.kernel.Alias.Addrs)
			}
		}
	}
}

func (w *World) mustOwn(m *machine, network string, addrs []netip.Prefix) {
	for _, p := range addrs {
		if owner, _ := w.latest.Owner(network, p.Addr()); owner != m.state.id {
			w.fail("%v uses %v of network %s, which belongs to %x: entry %d", m, p.Addr(), network, uint64(owner), w.latest.Index())
		}
	}
}

// apart asserts that no two networks of a ledger share anything.
func (w *World) apart(d ledger.Dump) {
	for i, n := range d.Networks {
		for _, o := range d.Networks[:i] {
			a, b := n.Network, o.Network
			if a.Name == b.Name || a.ID == b.ID || a.VNI == b.VNI {
				w.fail("entry %d: networks %+v and %+v", d.Index, a, b)
			}
			for _, p := range a.Subnets {
				if slices.ContainsFunc(b.Subnets, p.Overlaps) {
					w.fail("entry %d: networks %s and %s overlap in %v", d.Index, a.Name, b.Name, p)
				}
			}
		}
	}
}

// endRegistry asserts, once all is healed, that what is being removed goes when nobody
// uses it any more, and that no host has anything of a network that is not there.
func (w *World) endRegistry() {
	if w.scenario.registry == nil {
		return
	}
	ends := func(name string) bool {
		n, _ := w.latest.Network(name)
		return n.Closing
	}
	for _, m := range w.up() {
		for _, c := range slices.Clone(m.containers) {
			if ends(c.key.Network) && w.isOn(c, c.key.Network) {
				m.del(c)
			}
		}
	}
	if !w.until(agreeWithin, func() bool {
		return w.agreed() && !slices.ContainsFunc(w.latest.Networks(), func(n ledger.Network) bool { return n.Closing })
	}) {
		w.fail("a network is still being removed, though nobody uses it: %+v%s", w.latest.Networks(), w.standing())
	}
	for _, m := range w.up() {
		for _, b := range m.bridges {
			if n, _ := w.latest.Network(b.name); n.ID != b.id {
				w.fail("%v has a bridge of network %s, which is gone", m, b.name)
			}
			if _, ok := m.proc.alloc.Claim(allot.HostKey(b.name).Hash()); !ok {
				w.fail("%v has a bridge of network %s, and no claim", m, b.name)
			}
		}
		for _, c := range m.proc.alloc.Claims() {
			if _, there := w.latest.Network(c.Network); !there && (c.Host() || !c.Stale()) {
				w.fail("%v has a claim on network %q, which is gone", m, c.Network)
			}
		}
		w.noGhosts(m)
	}
}

// isOn reports whether a container is on the network that has the name now: not on one
// that had it before.
func (w *World) isOn(c *container, name string) bool {
	n, ok := w.latest.Network(name)
	return ok && (c.kernel.NetID == "" || n.ID == c.kernel.NetID)
}

// noGhosts asserts that a container of a network that is gone counts for none of today,
// and any other for its own.
func (w *World) noGhosts(m *machine) {
	for _, c := range m.containers {
		claim, _ := m.proc.alloc.Claim(c.kernel.Alias.Hash)
		for _, n := range w.latest.Networks() {
			counts := slices.ContainsFunc(m.proc.alloc.Dwellers(n), func(d allot.Claim) bool { return d.Hash == claim.Hash })
			if is := n.Name == c.key.Network && w.isOn(c, n.Name); counts != is || (claim.Network == n.Name) != is {
				w.fail("%v: container %d of a network %s (%.6s) counts as one of %s (%.6s): %v, its claim says %q", m, c.n, c.key.Network, c.kernel.NetID, n.Name, n.ID, counts, claim.Network)
			}
		}
	}
}
