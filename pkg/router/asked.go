package router

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// sayWhatDoesNotCount logs the flags that were given and that the cluster, which is
// known now, has otherwise since it was founded.
func (r *Router) sayWhatDoesNotCount() {
	n, ok := r.replica.State().Network(DefaultNetwork)
	if !ok {
		return
	}
	for _, d := range differences(r.config, n) {
		r.log.Warn("a flag of founding does not count: the cluster was founded with another", "flag", d.flag, "given", d.given, "cluster", d.has)
	}
}

type difference struct{ flag, given, has string }

// differences are those flags of founding that were given and differ from the network.
func differences(c Config, n ledger.Network) (out []difference) {
	for _, flag := range c.Asked {
		given, has := family(c.Ranges, flag == "--range"), family(n.Subnets, flag == "--range")
		if flag == "--mtu" {
			given, has = fmt.Sprint(c.MTU), fmt.Sprint(n.MTU)
		}
		if given != has {
			out = append(out, difference{flag, given, has})
		}
	}
	return out
}

// family is the prefix of a family, or that there is none.
func family(ps []netip.Prefix, is4 bool) string {
	if i := slices.IndexFunc(ps, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 }); i >= 0 {
		return ps[i].String()
	}
	return "none"
}

// checkDevice refuses another --vxlan-port where containers run that reach other hosts
// by the old one: the device would be made anew, and nobody would hear them.
func (r *Router) checkDevice(ports []port) error {
	if !slices.ContainsFunc(ports, func(p port) bool { return p.bridge == DefaultBridge }) {
		return nil
	}
	f, err := netdev.ReadForwarding(DefaultBridge, DefaultDevice)
	if err != nil || len(f.Remotes)+len(f.Flood) == 0 {
		return nil // what cannot be read, or is not there, cannot be cut off
	}
	old, err := netdev.VXLANPort(DefaultDevice)
	if err != nil || old == r.config.VXLANPort {
		return nil
	}
	return fmt.Errorf("--vxlan-port is %d, and containers of this host reach other hosts by port %d: they would be cut off. "+
		"Give --vxlan-port %d as before, or remove the containers of this host first", r.config.VXLANPort, old, old)
}
