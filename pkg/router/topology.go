package router

import (
	"bytes"
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/record"
	"github.com/weave-cni/weave-cni/pkg/topology"
)

// tellEvery is how often a host looks whether it has news of its links for the others.
const tellEvery = 2 * time.Second

// tellLinks publishes this host's links whenever they have changed, until ctx ends. It
// is a picture for people: late by tellEvery, and nothing rests on it.
func (r *Router) tellLinks(ctx context.Context) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var told []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		b, err := r.codec.Encode(ownLinks(r.link.Status()))
		if err == nil && !bytes.Equal(b, told) {
			err = r.exchange.Put(overlay.LinksKey, b)
		}
		if err != nil {
			r.log.Warn("the other hosts do not hear of this one's links", "error", err)
			continue
		}
		told = b
	}
}

var linkStates = map[meshlink.State]overlay.LinkState{
	meshlink.Connected: overlay.LinkConnected, meshlink.Relayed: overlay.LinkRelayed,
	meshlink.Refused: overlay.LinkRefused, meshlink.Dialling: overlay.LinkDialling,
}

// ownLinks are the links worth telling of: to hosts whose names are known, the direct
// ones first where there are too many.
func ownLinks(peers []meshlink.PeerStatus) overlay.Links {
	var out overlay.Links
	for _, p := range peers {
		if p.Name != "" && p.Count == 0 {
			out.To = append(out.To, overlay.Link{Peer: string(p.Name), State: linkStates[p.State]})
		}
	}
	slices.SortFunc(out.To, func(a, b overlay.Link) int { return strings.Compare(a.Peer, b.Peer) })
	out.To = slices.CompactFunc(out.To, func(a, b overlay.Link) bool { return a.Peer == b.Peer })
	if len(out.To) > overlay.MaxLinks {
		out.To = slices.DeleteFunc(out.To, func(l overlay.Link) bool { return l.State == overlay.LinkRelayed })
		out.To = out.To[:min(len(out.To), overlay.MaxLinks)]
	}
	return out
}

func (r *Router) linksChanged(c record.Change) {
	var l overlay.Links
	if c.New == nil {
		r.view.SetLinks(c.Origin, nil)
		return
	}
	if err := r.codec.Decode(c.New, &l); err != nil || !l.Valid() {
		r.log.Warn("record of links not understood", "host", c.Origin, "error", err)
		return
	}
	r.view.SetLinks(c.Origin, &l)
}

// apiTopology is the cluster as this host and its neighbours tell of it.
func (r *Router) apiTopology(context.Context) (ctl.Topology, error) {
	self := string(r.id.Name())
	t := ctl.Topology{Self: self, Hosts: r.topologyHosts(), Networks: r.topologyNetworks()}
	up := map[string]bool{}
	for _, h := range t.Hosts {
		up[h.Name] = h.State == ctl.HostUp || h.State == ctl.HostHere
	}
	told := map[string][]topology.Told{}
	for _, p := range r.link.Status() {
		told[self] = append(told[self], topology.Told{Peer: cmp.Or(string(p.Name), p.Addr), State: string(p.State)})
	}
	for origin, links := range r.view.Links() {
		for _, l := range links.To {
			told[string(origin)] = append(told[string(origin)], topology.Told{Peer: l.Peer, State: stateOf(l.State)})
		}
	}
	t.Links = topology.Merge(up, told)
	return t, nil
}

func stateOf(s overlay.LinkState) string {
	for state, is := range linkStates {
		if is == s {
			return string(state)
		}
	}
	return string(meshlink.Dialling)
}

// topologyHosts are this host, those that have spoken, the members that have not, and
// whoever is dialled or refused.
func (r *Router) topologyHosts() []ctl.TopologyHost {
	reached := map[gossip.Peer]bool{}
	for _, p := range r.link.Peers() {
		reached[p] = true
	}
	told, all := r.view.Links(), map[string]ctl.TopologyHost{}
	for name, h := range r.view.Hosts() {
		line := ctl.TopologyHost{Name: string(name), Address: h.VTEP, State: ctl.HostAway}
		if _, tells := told[name]; reached[name] {
			line.State, line.Silent = ctl.HostUp, !tells
		}
		all[line.Name] = line
	}
	for _, m := range r.absentMembers() {
		if _, known := all[m]; !known {
			all[m] = ctl.TopologyHost{Name: m, State: ctl.HostAway}
		}
	}
	for _, p := range r.link.Status() {
		name := cmp.Or(string(p.Name), p.Addr)
		if _, known := all[name]; !known {
			all[name] = unspoken(p)
		}
	}
	self := string(r.id.Name())
	all[self] = ctl.TopologyHost{Name: self, Address: r.vtep, State: ctl.HostHere}
	var out []ctl.TopologyHost
	for _, h := range all {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b ctl.TopologyHost) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// unspoken is a router that gossip knows and whose record is not here.
func unspoken(p meshlink.PeerStatus) ctl.TopologyHost {
	h := ctl.TopologyHost{Name: cmp.Or(string(p.Name), p.Addr), State: ctl.HostUnknown}
	if p.State == meshlink.Connected || p.State == meshlink.Relayed {
		h.State, h.Silent = ctl.HostUp, true
	}
	if a, err := netip.ParseAddrPort(p.Addr); err == nil {
		h.Address = a.Addr().Unmap()
	}
	return h
}

func (r *Router) topologyNetworks() []ctl.TopologyNetwork {
	members, self := r.view.Members(), r.id.Name()
	for _, c := range r.ipam.Claims() {
		if !c.Live() || c.Network == "" {
			continue
		}
		if members[c.Network] == nil {
			members[c.Network] = map[gossip.Peer]int{}
		}
		members[c.Network][self]++
	}
	var out []ctl.TopologyNetwork
	for _, n := range r.replica.State().Networks() {
		line := ctl.TopologyNetwork{Name: n.Name, ID: n.ID, Driver: n.Driver, Subnets: n.Subnets}
		for host, count := range members[n.Name] {
			line.Hosts = append(line.Hosts, ctl.HostEndpoints{Host: string(host), Endpoints: count})
		}
		slices.SortFunc(line.Hosts, func(a, b ctl.HostEndpoints) int { return strings.Compare(a.Host, b.Host) })
		out = append(out, line)
	}
	slices.SortFunc(out, func(a, b ctl.TopologyNetwork) int { return strings.Compare(a.Name, b.Name) })
	return out
}
