package router

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/overlay"
)

// States of a network, as ctl.Net has them.
const (
	netReady     = "ready"
	netStarting  = "starting"
	netElsewhere = "elsewhere"
	netRemoving  = "removing"
)

func (r *Router) apiNets(context.Context) (ctl.NetList, error) {
	endpoints := r.netEndpoints()
	out := ctl.NetList{Networks: []ctl.Net{}}
	for _, n := range r.replica.State().Networks() {
		out.Networks = append(out.Networks, r.describeNet(n, endpoints[n.Name]))
	}
	return out, nil
}

func (r *Router) apiNetInspect(_ context.Context, in ctl.NetRef) (ctl.Net, error) {
	n, err := resolve(r.replica.State().Networks(), in.Ref)
	if err != nil {
		return ctl.Net{}, err
	}
	return r.describeNet(n, r.endpointsOn(n)), nil
}

func (r *Router) describeNet(n ledger.Network, endpoints []ctl.NetEndpoint) ctl.Net {
	out := ctl.Net{
		ID: n.ID, Name: n.Name, Driver: n.Driver, Host: n.Host, Subnets: n.Subnets, VNI: n.VNI, MTU: n.MTU,
		Internal: n.Internal, Endpoints: endpoints,
	}
	if out.Endpoints == nil {
		out.Endpoints = []ctl.NetEndpoint{}
	}
	for _, l := range n.Labels {
		if out.Labels == nil {
			out.Labels = map[string]string{}
		}
		out.Labels[l.Key] = l.Value
	}
	out.State, out.Waiting = r.netState(n)
	out.Conflist = r.lists.File(n.Name)
	if r.stands(n) {
		out.Bridge = bridgeName(n)
	}
	return out
}

func (r *Router) netState(n ledger.Network) (state, waiting string) {
	switch {
	case n.Closing:
		return netRemoving, r.removalWaits(n)
	case !r.serves(n):
		return netElsewhere, ""
	case r.stands(n):
		return netReady, r.ailment(n)
	}
	return netStarting, cmp.Or(r.ailment(n), r.waiting(), "this host makes its bridge")
}

// serves reports whether this host is to have a bridge for the network.
func (r *Router) serves(n ledger.Network) bool {
	return n.Host == "" || n.Host == string(r.id.Name())
}

// stands reports whether the network's bridge stands here.
func (r *Router) stands(n ledger.Network) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.networks[n.ID] != nil
}

// removalWaits says what keeps a network that is being removed.
func (r *Router) removalWaits(n ledger.Network) string {
	if here := r.ipam.Dwellers(n.Name); len(here) > 0 {
		return heldHere(n, here)
	}
	away, former := othersOf(r.replica.State(), n.Name, ledger.MemberID(r.id.MemberID()))
	foreign := r.foreignWaits(n)
	switch {
	case len(away) == 0:
		return ""
	case foreign != "":
		return foreign
	case former != "":
		return fmt.Sprintf("a former life of host %s owns addresses of it: `weave rmpeer --destroyed %s` gives them to the pool", former, former)
	}
	return fmt.Sprintf("%s: it gives its addresses back when it is there and has no container on the network; if it is destroyed: `weave rmpeer --destroyed %s`", strings.Join(away, ", "), away[0])
}

// heldHere says what ends the stay of containers here on a network that is being removed.
func heldHere(n ledger.Network, here []ipam.Claim) string {
	foreign := slices.DeleteFunc(slices.Clone(here), detachable)
	switch list := func(claims []ipam.Claim) string { return strings.Join(firstOf(calledOf(claims)), ", ") }; {
	case len(foreign) > 0 && (n.Forced || len(foreign) == len(here)):
		return fmt.Sprintf("containers on this host that another main plugin attached, which --force does not detach (%s): remove them; of one that is gone already have the runtime run CNI GC, or DEL again", list(foreign))
	case n.Forced:
		return fmt.Sprintf("containers on this host (%s): each is detached once its ADD has ended; what hinders that is in weaver's log", list(here))
	default:
		return fmt.Sprintf("containers on this host (%s): `weave net unplug` or remove them, or `weave net rm --force %s`", list(here), n.Name)
	}
}

// detachable reports whether the router may take a container off its network: what
// another main plugin made is not ours to take away.
func detachable(c ipam.Claim) bool { return c.Decider == ctl.DecidedByVeth }

// holders are the names of the hosts that own blocks of a network, sorted, each once.
func (r *Router) holders(network string) (out []string) {
	state := r.replica.State()
	for _, id := range state.Holders(network) {
		m, _ := state.Member(id)
		out = append(out, m.Name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// othersOf are the names of the members that own blocks of a network, but for this one,
// sorted. former is the name of one that a live member has taken over: it never comes
// back, and so never gives them back.
func othersOf(state *ledger.State, network string, self ledger.MemberID) (away []string, former string) {
	for _, id := range state.Holders(network) {
		if id == self {
			continue
		}
		m, _ := state.Member(id)
		if away = append(away, m.Name); !m.Live() {
			former = m.Name
		}
	}
	slices.Sort(away)
	return slices.Compact(away), former
}

// netEndpoints are the endpoints of all hosts by network: this host's by their claims,
// the others' by what they tell.
func (r *Router) netEndpoints() map[string][]ctl.NetEndpoint {
	out := map[string][]ctl.NetEndpoint{}
	for _, c := range r.ipam.Claims() {
		if c.Live() && c.Network != "" {
			out[c.Network] = append(out[c.Network], r.ownEndpoint(c))
		}
	}
	subnets := map[string][]netip.Prefix{}
	for _, n := range r.replica.State().Networks() {
		subnets[n.Name] = n.Subnets
	}
	for host := range r.view.Hosts() {
		for _, e := range r.view.Endpoints(host) {
			if !e.Bridge {
				out[e.Network] = append(out[e.Network], remoteEndpoint(string(host), e, subnets[e.Network]))
			}
		}
	}
	for _, list := range out {
		slices.SortFunc(list, compareEndpoints)
	}
	return out
}

// endpointsOn are those of one network.
func (r *Router) endpointsOn(n ledger.Network) (out []ctl.NetEndpoint) {
	for _, c := range r.ipam.Claims() {
		if c.Live() && c.Network == n.Name {
			out = append(out, r.ownEndpoint(c))
		}
	}
	for host, all := range r.view.EndpointsOn(n.Name) {
		for _, e := range all {
			if !e.Bridge {
				out = append(out, remoteEndpoint(string(host), e, n.Subnets))
			}
		}
	}
	slices.SortFunc(out, compareEndpoints)
	return out
}

func compareEndpoints(a, b ctl.NetEndpoint) int {
	return cmp.Or(strings.Compare(a.Host, b.Host), slices.CompareFunc(a.Addresses, b.Addresses, netip.Prefix.Compare),
		strings.Compare(a.MAC, b.MAC), strings.Compare(a.ID, b.ID))
}

func (r *Router) ownEndpoint(c ipam.Claim) ctl.NetEndpoint {
	e := ctl.NetEndpoint{
		Host: string(r.id.Name()), ContainerID: c.Key.ContainerID, IfName: c.Key.IfName, MAC: c.MAC.String(), Addresses: c.Addrs, Names: c.Names,
	}
	if c.Key.ContainerID != "" { // else it was read from the kernel, which has no more than a part of the id
		e.ID = c.Key.EndpointID()
	}
	return e
}

// remoteEndpoint is another host's, with the lengths of the network's subnets.
func remoteEndpoint(host string, e overlay.Endpoint, subnets []netip.Prefix) ctl.NetEndpoint {
	out := ctl.NetEndpoint{Host: host, MAC: e.MAC.String(), Names: e.Names, Addresses: []netip.Prefix{}}
	for _, a := range e.Addrs {
		bits := a.BitLen()
		if i := slices.IndexFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) }); i >= 0 {
			bits = subnets[i].Bits()
		}
		out.Addresses = append(out.Addresses, netip.PrefixFrom(a, bits))
	}
	return out
}
