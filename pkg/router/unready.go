package router

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// ailing is a network that is not as it should be on this host.
type ailing struct {
	name   string
	stands bool // its bridge does, if not as it should
	why    string
}

// ailing are those of this host's networks that stay, but the default one: what is wrong
// with that one is wrong with the host.
func (r *Router) ailing() (out []ailing) {
	for _, n := range r.here() {
		if why := r.ailment(n); why != "" && n.Name != DefaultNetwork && !n.Closing {
			out = append(out, ailing{n.Name, r.stands(n), why})
		}
	}
	return out
}

// ailingProblems are a line for each of the first few, and one for the rest.
func ailingProblems(all []ailing) (out []string) {
	const most = 3
	for _, n := range all[:min(len(all), most)] {
		how := "ready"
		if n.stands {
			how = "as it should be"
		}
		out = append(out, fmt.Sprintf("network %q is not %s on this host: %s", n.name, how, n.why))
	}
	if more := len(all) - most; more > 0 {
		out = append(out, fmt.Sprintf("%s likewise; see `weave net list`", amount(more, "network more is", "networks more are")))
	}
	return out
}

// routedElsewhere is a range that the host routes elsewhere than to a bridge of ours.
type routedElsewhere struct {
	want  netip.Prefix
	route netdev.HostRoute
}

func (e *routedElsewhere) Error() string {
	return fmt.Sprintf("range %s overlaps route %s of this host (device %s)", e.want, e.route.Dst, e.route.Device)
}

// overlap finds the first route that overlaps one of some ranges and leads elsewhere than
// to a bridge.
func overlap(routes []netdev.HostRoute, ranges []netip.Prefix, bridge string) *routedElsewhere {
	for _, route := range routes {
		if route.Dst.Bits() == 0 || route.Device == bridge {
			continue
		}
		if i := slices.IndexFunc(ranges, route.Dst.Overlaps); i >= 0 {
			return &routedElsewhere{ranges[i], route}
		}
	}
	return nil
}

// elsewhere is that of this host; nil with --force-range.
func (r *Router) elsewhere(ranges []netip.Prefix, bridge string) (*routedElsewhere, error) {
	if r.config.ForceRange {
		return nil, nil
	}
	routes, err := netdev.HostRoutes()
	return overlap(routes, ranges, bridge), err
}

// checkRanges refuses a range for the cluster that is to be founded.
func (r *Router) checkRanges(ranges []netip.Prefix) error {
	e, err := r.elsewhere(ranges, DefaultBridge)
	if err != nil || e == nil {
		return err
	}
	return fmt.Errorf("%w: found the cluster with another --range, remove the route, or take the range with --force-range", e)
}

// checkHere refuses to make the bridge of a network that the cluster has.
func (r *Router) checkHere(n ledger.Network) error {
	e, err := r.elsewhere(n.Subnets, bridgeName(n))
	if err != nil || e == nil {
		return err
	}
	cure := fmt.Sprintf("or remove the network (weave net rm %s) and create it with another --subnet", n.Name)
	if n.Name == DefaultNetwork {
		cure = "or found the cluster anew with another --range"
	}
	return fmt.Errorf("%w: remove the route, start weaver on this host with --force-range, %s", e, cure)
}
