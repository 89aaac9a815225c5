package router

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Which network an endpoint is on: the one that it names, or the one of whose subnets
// one holds its prefix. An endpoint that says neither is on the network that its plugin
// has for it otherwise.

// networkFor is the ledger's name of the network of an endpoint. usual is that of the
// configuration; it need not exist where the endpoint says another.
func (r *Router) networkFor(text, usual string) (string, error) {
	e, err := endpoint.ParseBare(text)
	if err != nil {
		return "", ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	if !e.Somewhere() {
		return usual, nil
	}
	state := r.replica.State()
	if state.Cluster() == "" {
		return "", &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("which network %s is on is not known on this host yet", e.Place()), Details: r.waiting()}
	}
	return placeOf(state.Networks(), e)
}

// placeOf finds the network that an endpoint names, or lies in.
func placeOf(networks []ledger.Network, e endpoint.Endpoint) (string, error) {
	if e.Prefix.IsValid() {
		return holdingNetwork(networks, e.Prefix.Masked())
	}
	return calledNetwork(networks, e.Network)
}

// holdingNetwork finds the network that has all of a prefix, the longest of its subnets first.
func holdingNetwork(networks []ledger.Network, p netip.Prefix) (string, error) {
	best, name, part := -1, "", ""
	for _, n := range networks {
		for _, s := range n.Subnets {
			switch {
			case !s.Overlaps(p):
			case s.Bits() > p.Bits():
				part = fmt.Sprintf("network %s has a part of it, %s: give a prefix inside that", n.Name, s)
			case s.Bits() > best:
				best, name = s.Bits(), n.Name
			}
		}
	}
	if name != "" {
		return name, nil
	}
	if part == "" {
		part = fmt.Sprintf("weave net create --subnet %s makes one; `weave net list` lists those that there are", p)
	}
	return "", &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("no network holds %s", p), Details: part}
}

// calledNetwork finds a network as `weave net` does, but by no less of its id than a list
// shows: an endpoint is written down somewhere, and "db" is not to become another
// network's when the one of that name has gone.
func calledNetwork(networks []ledger.Network, ref string) (string, error) {
	if len(ref) < idLike && !slices.ContainsFunc(networks, func(n ledger.Network) bool { return n.Name == ref }) {
		return "", &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("no network is called %q", ref), Details: "there are " + candidates(networks)}
	}
	n, err := resolve(networks, ref)
	return n.Name, err
}

// resolved is the request with the network that its endpoint is on. What the
// configuration says of the addresses of its own network says nothing of another's.
func (r *Router) resolved(in ctl.AllocateRequest) (ctl.AllocateRequest, error) {
	if in.Endpoint == "" {
		return in, nil
	}
	name, err := r.networkFor(in.Endpoint, in.Network)
	if err != nil || name == in.Network {
		return in, err
	}
	if in.Fixed {
		return in, &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("%s is on network %q", in.Endpoint, name),
			Details: fmt.Sprintf("and this container's interface is on network %q, which only weave-net can change", in.Network)}
	}
	in.Network, in.Subnet, in.Exclude, in.Reserve = name, "", nil, nil
	return in, nil
}

// networkOfAttachment is the network on whose bridge an attachment stands, "" when it
// does not, or that is not known.
func (r *Router) networkOfAttachment(k attachment.Key) string {
	if c, ok := r.ipam.Claim(k.Hash()); ok && c.OnBridge {
		return c.Network
	}
	return ""
}
