package router

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/record"
)

// recordsChanged hears of every change of another host's records. It is called
// by the exchange, one call at a time, and does no I/O.
func (r *Router) recordsChanged(changes []record.Change) {
	moved := false
	for _, c := range changes {
		switch {
		case c.Origin == r.id.Name():
			continue
		case c.Key == overlay.LinksKey:
			r.linksChanged(c)
			continue // the kernel has nothing to do with it
		case strings.HasPrefix(c.Key, overlay.UsePrefix):
			r.useChanged(c)
			continue
		case strings.HasPrefix(c.Key, overlay.HandPrefix):
			r.handChanged(c)
			continue
		case c.Key == overlay.HostKey:
			r.hostChanged(c)
		case strings.HasPrefix(c.Key, overlay.EndpointPrefix):
			r.endpointChanged(c)
		}
		moved = true
	}
	if moved {
		poke(r.forward)
	}
}

// forgetRetired drops the records of hosts of which the ledger says that they are
// gone for good: their containers are, or will be told by a new member of that name.
func (r *Router) forgetRetired() {
	if !r.replica.Ready() {
		return
	}
	here := map[gossip.Peer]bool{}
	for _, m := range r.replica.State().Members() {
		name := gossip.Peer(m.Name)
		here[name] = here[name] || !m.Left
	}
	for _, o := range r.exchange.Origins() {
		if there, known := here[o]; known && !there {
			r.log.Info("records of a host that has left are dropped", "host", o)
			r.exchange.Forget(o)
		}
	}
}

func (r *Router) hostChanged(c record.Change) {
	var h overlay.Host
	if c.New == nil {
		r.view.SetHost(c.Origin, nil)
		return
	}
	if err := r.codec.Decode(c.New, &h); err != nil || !h.Valid() {
		r.log.Warn("host record not understood", "host", c.Origin, "error", err)
		return
	}
	r.view.SetHost(c.Origin, &h)
	r.link.Learn(c.Origin, h.Gossip)
	poke(r.kick) // the firewall lets its VXLAN in
}

func (r *Router) endpointChanged(c record.Change) {
	owner := nameOwner(c.Origin, c.Key)
	var e overlay.Endpoint
	if c.New != nil {
		if err := r.codec.Decode(c.New, &e); err != nil || !e.Valid() {
			r.log.Warn("endpoint record not understood", "host", c.Origin, "key", c.Key, "error", err)
			c.New = nil
		}
	}
	if c.New == nil {
		r.view.SetEndpoint(c.Origin, c.Key, nil)
		r.table.Drop(owner)
		return
	}
	r.view.SetEndpoint(c.Origin, c.Key, &e)
	r.table.PutSet(owner, nameSet(c.Origin, e))
}

// nameOwner is under which key an endpoint's names stand in the name table.
func nameOwner(origin gossip.Peer, key string) string { return string(origin) + "/" + key }

func nameSet(origin gossip.Peer, e overlay.Endpoint) names.Set {
	s := names.Set{Network: e.Network, Host: string(origin), Names: e.Names, Addrs: e.Addrs, Texts: e.Texts}
	for _, x := range e.Services {
		s.Services = append(s.Services, names.Service{Name: x.Name, Proto: x.Protocol, Port: x.Port})
	}
	return s
}

// follow writes the overlay's plans into the kernel: of the networks whose records have
// changed, and of those that have come to stand since. The settling has those compared
// that somebody else may have changed.
func (r *Router) follow(ctx context.Context) error {
	written := map[string]bool{} // networks by id
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.forward:
		}
		// Records that arrive together are written together.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(forwardDelay):
		}
		if r.complete() {
			r.view.Disinherit()
		}
		r.writeChanged(written)
	}
}

// writeChanged writes what changed, and notes which networks of those that stand have
// been written. What fails is tried again with the next change, and by the settling.
func (r *Router) writeChanged(written map[string]bool) {
	changed, standing := r.view.TakeChanged(), map[string]bool{}
	for _, n := range r.standing() {
		standing[n.ID] = true
		if !overlaid(n.Network) || written[n.ID] && !changed.Has(n.Name) {
			continue
		}
		err := r.writeForwarding(n)
		if written[n.ID] = err == nil; err != nil && r.stands(n.Network) { // else it was taken down meanwhile
			r.log.Error("write forwarding entries", "network", n.Name, "error", err)
			poke(r.recheck) // its devices may lack
		}
	}
	maps.DeleteFunc(written, func(id string, _ bool) bool { return !standing[id] })
}

func (r *Router) writeForwarding(n *network) error {
	want := r.forwarding(n)
	changed, err := netdev.SyncForwarding(bridgeName(n.Network), deviceName(n.Network), want)
	if err == nil {
		r.metrics.forwarded(n.ID, want, changed)
	}
	return err
}

// forwarding is what the kernel is to know of other hosts, on one network.
func (r *Router) forwarding(n *network) netdev.Forwarding {
	plan := r.view.Plan(n.Name)
	want := netdev.Forwarding{Flood: plan.Flood}
	for _, e := range plan.Remotes {
		if e.VTEP.Is4() != r.vtep.Is4() {
			continue // one VXLAN device speaks one family; `weave status overlay` shows the host as unreachable
		}
		want.Remotes = append(want.Remotes, netdev.Remote{MAC: e.MAC, VTEP: e.VTEP, Addrs: within(e.Addrs, n.Subnets)})
	}
	want.Flood = slices.DeleteFunc(want.Flood, func(a netip.Addr) bool { return a.Is4() != r.vtep.Is4() || a == r.vtep })
	return want
}

// within keeps the addresses that belong to the network: a neighbour entry for
// any other would hide an address of somebody else.
func within(addrs []netip.Addr, subnets []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
			out = append(out, a)
		}
	}
	return out
}

// complete reports whether every living member of the cluster has spoken.
func (r *Router) complete() bool {
	hosts, state := r.view.Hosts(), r.replica.State()
	if state.Cluster() == "" {
		return false // who the members are is not known
	}
	for _, m := range state.Members() {
		h, spoken := hosts[gossip.Peer(m.Name)]
		if m.Live() && m.Name != string(r.id.Name()) && (!spoken || h.MemberID != uint64(m.ID)) {
			return false
		}
	}
	return true
}

// watchPresence withdraws the names of hosts whose routers have died and brings
// them back when they return.
func (r *Router) watchPresence(ctx context.Context) error {
	p := newPresence(r.id.Name())
	for {
		changed := r.link.Changed()
		served, next := p.update(time.Now(), r.link.Peers(), r.exchange.UpToDate)
		r.setServed(served)
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-due:
		}
	}
}

// setServed has the names of these hosts answered, and no others'.
func (r *Router) setServed(served map[gossip.Peer]bool) {
	if maps.Equal(served, r.served) {
		return
	}
	hosts := map[string]bool{}
	for h := range served {
		if hosts[string(h)] = true; !r.served[h] {
			r.log.Info("router is here: its names are served", "host", h)
		}
	}
	for h := range r.served {
		if !served[h] {
			r.log.Info("router is away: its names are withdrawn, its addresses stay", "host", h)
		}
	}
	r.served = served
	r.table.SetServed(hosts)
}
