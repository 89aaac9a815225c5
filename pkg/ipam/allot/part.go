package allot

import (
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// setEndpoint has the order keep to what an endpoint says of addresses. Which network
// it is on has been found out before.
func (o *Order) setEndpoint(text string) error {
	e, err := endpoint.ParseBare(text)
	if err != nil {
		return ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	if !e.Prefix.IsValid() {
		return nil
	}
	o.part = e.Prefix.Masked()
	if a := e.Prefix.Addr(); e.Addr {
		o.requested = slices.Insert(slices.DeleteFunc(o.requested, func(b netip.Addr) bool { return b == a }), 0, a)
	}
	if w := o.bounds.Within; w.IsValid() && w.Addr().Is4() == o.part.Addr().Is4() && !w.Overlaps(o.part) {
		return ctl.Errorf(ctl.CodeInvalidConfig, "endpoint %s is not in the subnet %s, to which the configuration keeps", e.Place(), w)
	}
	return nil
}

// sized gives the addresses of the endpoint's family its length.
func (o Order) sized(addrs []netip.Prefix) []netip.Prefix {
	if !o.part.IsValid() {
		return addrs
	}
	out := slices.Clone(addrs)
	for i, p := range out {
		if o.part.Contains(p.Addr()) {
			out[i] = netip.PrefixFrom(p.Addr(), o.part.Bits())
		}
	}
	return out
}

// notIn refuses a subnet to choose from, or an endpoint, that is not in the network.
func (o Order) notIn(n ledger.Network) error {
	for _, p := range []netip.Prefix{o.bounds.Within, o.part} {
		if p.IsValid() && !slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Bits() <= p.Bits() && s.Contains(p.Addr()) }) {
			return ctl.Errorf(ctl.CodeInvalidConfig, "subnet %s is not in network %q, which has %v", p, n.Name, n.Subnets)
		}
	}
	return nil
}

// elsewhere refuses a repeated ADD that asks for another endpoint than what the
// attachment holds addresses of.
func (o Order) elsewhere(c Claim) error {
	wants := ""
	switch kin := func(p netip.Prefix) bool { return p.Addr().Is4() == o.part.Addr().Is4() }; {
	case c.Network != "" && c.Network != o.claim.Network && !c.Borrowed:
		wants = "an address of network " + o.claim.Network
	case o.part.IsValid() && slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return kin(p) && !o.part.Contains(p.Addr()) }):
		wants = "one of " + o.part.String()
	default:
		return nil
	}
	return ctl.Errorf(ctl.CodeInvalidConfig, "container %s, interface %s holds %v of network %s already, so it cannot get %s: detach it first", c.Key.ContainerID, c.Key.IfName, c.Addrs, c.Network, wants)
}
