package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	petname "github.com/dustinkirkland/golang-petname"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/netlists"
)

// How long a call waits for what follows a change, before it answers all the same.
const (
	standWithin  = 2 * time.Second // for the bridge of a network that was created, or that a router which starts makes
	removeWithin = 2 * time.Second // for the hosts to give a network back
	nameTries    = 20              // random names, until one is free
)

// apiNetCreate defines a network: what is wrong with it is refused before the ledger is
// asked, what is left out is chosen by it.
func (r *Router) apiNetCreate(ctx context.Context, in ctl.NetCreateRequest) (ctl.Net, error) {
	state := r.replica.State()
	n, err := r.defineNet(state, in)
	if err != nil {
		return ctl.Net{}, err
	}
	options, err := r.chooseSubnets(state, n, in.IPv6)
	if err != nil {
		return ctl.Net{}, err
	}
	named := in.Name != ""
	for try := 0; ; try++ {
		if !named {
			n.Name = randomName(r.replica.State())
		}
		err = r.addNet(ctx, n, options)
		var taken *nameTaken
		if named || !errors.As(err, &taken) || try == nameTries {
			break
		}
	}
	if err != nil {
		return ctl.Net{}, err
	}
	r.log.Info("network created", "network", n.Name)
	return r.created(ctx, n.Name)
}

// defineNet checks a request, all but whether its subnets are free in the ledger.
func (r *Router) defineNet(state *ledger.State, in ctl.NetCreateRequest) (n ledger.Network, err error) {
	switch {
	case in.MTU != 0:
		return n, ctl.Errorf(ctl.CodeNotSupported, "a network's own MTU is not built: every network has that of the cluster, which is chosen with weaver's --mtu when it is founded")
	case in.Encrypt:
		return n, ctl.Errorf(ctl.CodeNotSupported, "an encrypted overlay is not built: traffic between hosts is VXLAN in the clear")
	case state.Cluster() == "":
		return n, &ctl.Error{Code: ctl.CodeTryAgain, Msg: "this host is in no cluster yet", Details: r.waiting()}
	}
	n = ledger.Network{Name: in.Name, Driver: in.Driver, Subnets: in.Subnets, Internal: in.Internal, MTU: r.config.MTU}
	if d, ok := state.Network(DefaultNetwork); ok {
		n.MTU = d.MTU
	}
	switch n.Driver {
	case "":
		n.Driver = ctl.DriverWeave
	case ctl.DriverWeave:
	case ctl.DriverSimpleBridge:
		n.Host = string(r.id.Name())
	default:
		return n, ctl.Errorf(ctl.CodeNotSupported, "no driver is called %.40q: there are %s and %s", n.Driver, ctl.DriverWeave, ctl.DriverSimpleBridge)
	}
	if in.Name != "" {
		if err := checkName(in.Name); err != nil {
			return n, err
		}
	}
	if err := checkLabels(in.Labels); err != nil {
		return n, err
	}
	n.Labels = labelsOf(in.Labels)
	return n, r.checkSubnets(state, n.Subnets)
}

// checkLabels refuses keys that could not be told from their neighbours in a list. The
// ledger takes them: they may be there, and can be dropped.
func checkLabels(m map[string]string) error {
	for key := range m {
		if strings.Contains(key, ",") || strings.ContainsFunc(key, unicode.IsSpace) {
			return ctl.Errorf(ctl.CodeInvalidConfig, "label %.80q: want a key without blanks and commas", key)
		}
	}
	return nil
}

func labelsOf(m map[string]string) (out []ledger.Label) {
	for k, v := range m {
		out = append(out, ledger.Label{Key: k, Value: v})
	}
	slices.SortFunc(out, func(a, b ledger.Label) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// smallestHost is how many bits of an address are the host's at least.
const smallestHost = 3

// special are what no host or container is called by: this network, loopback, link-local,
// multicast, reserved.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/64"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// checkSubnets refuses subnets that are none, that nobody can use, that a network has, or that this host
// routes elsewhere.
func (r *Router) checkSubnets(state *ledger.State, subnets []netip.Prefix) error {
	for _, p := range subnets {
		switch {
		case !p.IsValid() || p.Addr().Is4In6():
			return ctl.Errorf(ctl.CodeInvalidConfig, "subnet %v: want a prefix like 10.2.45.0/24", p)
		case p != p.Masked():
			return ctl.Errorf(ctl.CodeInvalidConfig, "subnet %s: has host bits set, did you mean %s?", p, p.Masked())
		case p.Addr().BitLen()-p.Bits() < smallestHost:
			return ctl.Errorf(ctl.CodeInvalidConfig, "subnet %s: too small, want at least %d addresses", p, 1<<smallestHost)
		}
		if i := slices.IndexFunc(special, p.Overlaps); i >= 0 {
			return ctl.Errorf(ctl.CodeInvalidConfig, "subnet %s overlaps %s, of which no container can have an address: choose another --subnet, such as 10.2.45.0/24", p, special[i])
		}
		for _, n := range state.Networks() {
			if i := slices.IndexFunc(n.Subnets, p.Overlaps); i >= 0 {
				return ctl.Errorf(ctl.CodeInvalidConfig, "subnet %s overlaps %s of network %s: choose another --subnet, such as 10.2.45.0/24, or leave it out for a free one", p, n.Subnets[i], n.Name)
			}
		}
	}
	routes, err := r.foreignRoutes(state)
	if err != nil {
		return ctl.Errorf(ctl.CodeInternal, "read the routes of this host: %v", err)
	}
	lists := r.foreignRanges()
	for _, p := range subnets {
		if i := slices.IndexFunc(routes, func(x netdev.HostRoute) bool { return x.Dst.Overlaps(p) }); i >= 0 {
			return ctl.Errorf(ctl.CodeInvalidConfig, "subnet %s overlaps route %s of this host (device %s): choose another --subnet, remove the route, or start weaver with --force-range",
				p, routes[i].Dst, routes[i].Device)
		}
		if i := slices.IndexFunc(lists, func(x netlists.Range) bool { return x.Prefix.Overlaps(p) }); i >= 0 {
			return ctl.Errorf(ctl.CodeInvalidConfig, "subnet %s overlaps %s of network %q in %s on this host: choose another --subnet, or start weaver with --force-range",
				p, lists[i].Prefix, lists[i].Network, lists[i].File)
		}
	}
	return nil
}

// foreignRoutes are the routes of this host that lead elsewhere than to a bridge of ours;
// none with --force-range.
func (r *Router) foreignRoutes(state *ledger.State) ([]netdev.HostRoute, error) {
	if r.config.ForceRange {
		return nil, nil
	}
	routes, err := netdev.HostRoutes()
	ours := map[string]bool{DefaultBridge: true}
	for _, n := range state.Networks() {
		ours[bridgeName(n)] = true
	}
	return slices.DeleteFunc(routes, func(x netdev.HostRoute) bool { return x.Dst.Bits() == 0 || ours[x.Device] }), err
}

// foreignRanges are those of other plugins' networks of this host, which need not be up;
// none with --force-range.
func (r *Router) foreignRanges() []netlists.Range {
	if r.config.ForceRange {
		return nil
	}
	return r.lists.Ranges()
}

// chooseSubnets is what the ledger is to choose for a network, see choices.
func (r *Router) chooseSubnets(state *ledger.State, n ledger.Network, six bool) ([][]ledger.Choice, error) {
	has := func(is4 bool) bool {
		return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
	}
	routes, err := r.foreignRoutes(state)
	if err != nil {
		return nil, ctl.Errorf(ctl.CodeInternal, "read the routes of this host: %v", err)
	}
	var avoid []netip.Prefix
	for _, x := range routes {
		avoid = append(avoid, x.Dst)
	}
	for _, x := range r.foreignRanges() {
		avoid = append(avoid, x.Prefix)
	}
	options := choices(state.Cluster(), !has(true), six && !has(false), avoid)
	if len(options) == 0 {
		return nil, ctl.Errorf(ctl.CodeInvalidConfig, "every subnet of %s overlaps a route, or another network's list, of this host: name one with --subnet", pool4)
	}
	return options, nil
}

// nameTaken is a refusal for the name alone.
type nameTaken struct{ error }

// Unwrap gives the coded error.
func (e *nameTaken) Unwrap() error { return e.error }

// addNet has the ledger add a network with the first of some choices that it finds room for.
func (r *Router) addNet(ctx context.Context, n ledger.Network, options [][]ledger.Choice) error {
	var res ledger.Result
	for _, choose := range options {
		var err error
		res, err = r.change(ctx, ledger.Command{AddNetwork: &ledger.AddNetwork{Network: n, Choose: choose}})
		if err != nil {
			return err
		}
		if res.Code != ledger.CodeEmpty {
			break
		}
	}
	err := refusal(res)
	if _, there := r.replica.State().Network(n.Name); err != nil && res.Code == ledger.CodeTaken && there {
		return &nameTaken{err}
	}
	return err
}

// randomName is a readable name that no network has now, as far as is known here.
func randomName(state *ledger.State) string {
	name := petname.Generate(2, "-")
	for range nameTries {
		if _, taken := state.Network(name); !taken && checkName(name) == nil {
			break
		}
		name = petname.Generate(2, "-")
	}
	return name
}

// created answers once the network's bridge stands here and runtimes can see it, or
// standWithin has passed.
func (r *Router) created(ctx context.Context, name string) (out ctl.Net, err error) {
	ctx, cancel := context.WithTimeout(ctx, standWithin)
	defer cancel()
	r.untilStood(ctx, func() bool {
		n, ok := r.replica.State().Network(name)
		if !ok {
			err = ctl.Errorf(ctl.CodeInvalidConfig, "network %s was removed while it was being created", name)
			return true
		}
		out = r.describeNet(n, r.endpointsOn(n))
		return out.State != netStarting
	})
	if err != nil {
		return ctl.Net{}, err
	}
	if out.State != netStarting {
		r.awaitList(ctx, &out)
	}
	return out, nil
}

func (r *Router) apiNetLabel(ctx context.Context, in ctl.NetLabelRequest) (ctl.Net, error) {
	n, err := resolve(r.replica.State().Networks(), in.Ref)
	if err != nil {
		return ctl.Net{}, err
	}
	if err := checkLabels(in.Set); err != nil {
		return ctl.Net{}, err
	}
	set := ledger.SetLabels{Name: n.Name, ID: n.ID, Set: labelsOf(in.Set), Drop: in.Drop}
	res, err := r.change(ctx, ledger.Command{SetLabels: &set})
	if err == nil {
		err = refusal(res)
	}
	if err != nil {
		return ctl.Net{}, err
	}
	return r.apiNetInspect(ctx, ctl.NetRef{Ref: n.ID})
}

// apiNetRemove closes a network. It is gone once every host that has addresses of it has
// given them back; that is waited for a moment, and goes on without the caller.
func (r *Router) apiNetRemove(ctx context.Context, in ctl.NetRemoveRequest) (ctl.NetRemoved, error) {
	n, err := resolve(r.replica.State().Networks(), in.Ref)
	switch {
	case err != nil:
		return ctl.NetRemoved{}, err
	case n.Name == DefaultNetwork:
		return ctl.NetRemoved{}, ctl.Errorf(ctl.CodeInvalidConfig, "network %s is the cluster's default network: it stays as long as the cluster", n.Name)
	}
	if users := r.users(n); len(users) > 0 && !in.Force {
		return ctl.NetRemoved{}, &ctl.Error{Code: ctl.CodeInUse, Msg: fmt.Sprintf("network %s is in use: %s", n.Name, strings.Join(firstOf(users), ", ")),
			Details: fmt.Sprintf("remove these containers or `weave net unplug` them; `weave net rm --force %s` detaches them, on every host, but for those that another main plugin attached", n.Name)}
	}
	res, err := r.change(ctx, ledger.Command{CloseNetwork: &ledger.CloseNetwork{Name: n.Name, ID: n.ID, Force: in.Force}})
	if err == nil {
		err = refusal(res)
	}
	if err != nil {
		return ctl.NetRemoved{}, err
	}
	r.log.Info("network is being removed", "network", n.Name, "force", in.Force)
	return ctl.NetRemoved{ID: n.ID, Waiting: r.removed(ctx, n)}, nil
}

// users name what is on a network, on which host: endpoints, what an ADD that is under way
// here has reserved, and how much another main plugin attached elsewhere.
func (r *Router) users(n ledger.Network) (out []string) {
	out = usersOf(string(r.id.Name()), r.ipam.Dwellers(n.Name), r.endpointsOn(n))
	return append(out, foreignUsers(r.view.Uses(n.ID))...)
}

// removed waits until a network is gone, and answers with the hosts that it waits for
// when it still is not after removeWithin.
func (r *Router) removed(ctx context.Context, n ledger.Network) []string {
	deadline := time.After(removeWithin)
	for {
		changed := r.replica.Changed()
		if now, there := r.replica.State().Network(n.Name); !there || now.ID != n.ID {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-deadline:
		case <-ctx.Done():
		}
		if waiting := r.holders(n.Name); len(waiting) > 0 {
			return waiting
		}
		return []string{string(r.id.Name())} // nobody holds any of it: what lacks is the last entry
	}
}
