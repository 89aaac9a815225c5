package attach

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

const (
	defaultNetwork = "weave"
	maxNames       = 64  // of one endpoint
	maxInterfaces  = 256 // ethN that are tried
)

// plan chooses the road and the interface.
func (a *Attacher) plan(ctx context.Context, c runtimes.Container, at place, req ctl.AttachRequest, w Wish) (Intent, error) {
	network, ifname := at.list, req.IfName
	all, _ := a.Intents.All() // one that cannot be read may cost a collision of names, which the ADD tells
	var own []Intent
	for _, i := range all {
		if i.Key.ContainerID == c.CNI {
			own = append(own, i)
		}
	}
	road, next, err := a.road(ctx, c, network, ifname, w, own)
	if err != nil {
		return Intent{}, err
	}
	if ifname == "" {
		ifname = next
	}
	k := attachment.Key{Network: network, ContainerID: c.CNI, IfName: ifname}
	if slices.ContainsFunc(own, func(i Intent) bool { return i.Key.IfName == ifname }) {
		return Intent{}, ctl.Errorf(ctl.CodeInvalidConfig, "container %s has an endpoint by %s already", c, ifname)
	}
	i := Intent{ID: k.EndpointID(), Key: k, Road: road, Container: describe(c, req.ContainerID), Net: at.net, Wish: w}
	if err := k.Validate(); err != nil {
		return Intent{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	return i, free(c, i)
}

// free refuses an endpoint of which something is there already: then it is another's,
// most of all the runtime's own, whose key is the same, and our DEL would take it.
func free(c runtimes.Container, i Intent) error {
	taken := func(what string, of ...any) error {
		e := ctl.Errorf(ctl.CodeInvalidConfig, what, of...)
		e.Details = "take another interface's name, or leave it out: the next ethN that is free is taken then"
		return e
	}
	if c.State == runtimes.Running {
		has, err := hasLink(c.NetNS, i.Key.IfName)
		if err != nil {
			return ctl.Errorf(ctl.CodeTryAgain, "container %s: %v", c, err)
		}
		if has {
			return taken("container %s has an interface %s already, and not by a plug", c, i.Key.IfName)
		}
	} else if i.Road == ByHook && isNext(i.Key.IfName, len(c.Networks)) {
		return taken("container %s gets its %s from its runtime when it starts", c, i.Key.IfName)
	}
	has, err := netdev.HasLink(nil, i.Key.Veth())
	if err != nil {
		return err
	}
	if has {
		return taken("container %s is on network %s by %s already: this host has the other end, %s", c, i.Key.Network, i.Key.IfName, i.Key.Veth())
	}
	return nil
}

// isNext reports whether a name is one of the first n ethN.
func isNext(ifname string, n int) bool {
	for k := range n {
		if ifname == eth(k) {
			return true
		}
	}
	return false
}

// road says who does the ADD, and the interface that is next on that road.
func (a *Attacher) road(ctx context.Context, c runtimes.Container, network, ifname string, w Wish, own []Intent) (Road, string, error) {
	running := c.State == runtimes.Running
	switch c.Runtime {
	case runtimes.NamePodman:
		next := podmanNext(c)
		why, err := a.podmanCannot(ctx, c, network, ifname, next, w, own)
		if err != nil {
			return "", "", err
		}
		if why == "" {
			return ByRuntime, next, nil
		}
		if !running {
			return "", "", notBefore(c, why, "podman start")
		}
	case runtimes.NameContainerd, runtimes.NameNerdctl:
		if running {
			next, err := freeIn(c, own)
			return ByHook, next, err
		}
		return ByHook, freeBefore(c, own), nil
	}
	if running {
		next, err := freeIn(c, own)
		return ByCNI, next, err
	}
	start := c.Runtime + " start"
	if c.Runtime == runtimes.NamePath {
		return "", "", ctl.Errorf(ctl.CodeUnknownContainer, "%s is not there", c.ID)
	}
	return "", "", notBefore(c, c.Runtime+" knows no road into a container that does not run", start)
}

// notBefore refuses to plug into a container that does not run, with what to do.
func notBefore(c runtimes.Container, why, start string) error {
	e := ctl.Errorf(ctl.CodeNotSupported, "container %s does not run, and cannot be plugged before its first process starts: %s", c, why)
	name := c.Name()
	if name == "" {
		name = c.ID
	}
	e.Details = fmt.Sprintf("start it, then plug it: %s %s; while `weave attachd` runs, the endpoint comes back at each later start", start, name)
	return e
}

// podmanCannot says why podman cannot do it itself; "" when it can. An error when
// podman could not be asked.
func (a *Attacher) podmanCannot(ctx context.Context, c runtimes.Container, network, ifname, next string, w Wish, own []Intent) (string, error) {
	switch {
	case slices.Contains(c.Networks, network):
		return fmt.Sprintf("podman connects a container only once to a network, and this one is on %s", network), nil
	case ifname != "" && ifname != next:
		return fmt.Sprintf("podman would call the interface %s", next), nil
	case w.Endpoint != "":
		return fmt.Sprintf("podman cannot be told of %s, only of an address with its network's own length", w.Endpoint), nil
	case slices.ContainsFunc(own, func(i Intent) bool { return i.Key.IfName == next }):
		return fmt.Sprintf("podman would call the interface %s, which another endpoint has", next), nil
	}
	knows, err := a.Podman.Knows(ctx, network)
	switch {
	case err != nil:
		return "", ctl.Errorf(ctl.CodeTryAgain, "podman was asked whether it knows network %s: %v", network, err)
	case !knows:
		return fmt.Sprintf("podman does not know network %s (is its network backend CNI, and its network_config_dir %s?)", network, a.CNI.ConfDir), nil
	}
	return "", nil
}

// podmanNext is the interface that podman will make: the first ethN that none of its networks has.
func podmanNext(c runtimes.Container) string {
	named := min(len(c.Taken), len(c.Networks))
	n := len(c.Networks) - named
	for slices.Contains(c.Taken, eth(n)) {
		n++
	}
	return eth(n)
}

func eth(n int) string { return fmt.Sprintf("eth%d", n) }

// freeIn is the first ethN that neither the container's namespace has, nor an
// endpoint that is to be there.
func freeIn(c runtimes.Container, own []Intent) (string, error) {
	for n := range maxInterfaces {
		has, err := hasLink(c.NetNS, eth(n))
		if err != nil {
			return "", ctl.Errorf(ctl.CodeTryAgain, "container %s: %v", c, err)
		}
		if !has && !slices.ContainsFunc(own, func(i Intent) bool { return i.Key.IfName == eth(n) }) {
			return eth(n), nil
		}
	}
	return "", ctl.Errorf(ctl.CodeInvalidConfig, "container %s has %d interfaces", c, maxInterfaces)
}

// freeBefore is the first ethN that will be free when the runtime has attached the container.
func freeBefore(c runtimes.Container, own []Intent) string {
	n := len(c.Networks)
	for slices.ContainsFunc(own, func(i Intent) bool { return i.Key.IfName == eth(n) }) {
		n++
	}
	return eth(n)
}

// wish reads a request: the network, and what the endpoint is to have.
func (a *Attacher) wish(ctx context.Context, req ctl.AttachRequest, c runtimes.Container) (at place, w Wish, err error) {
	w = Wish{Labels: req.Labels}
	e, err := endpoint.ParseBare(req.Endpoint)
	if err != nil {
		return place{}, Wish{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	if at, err = a.place(ctx, e, &w); err != nil {
		return place{}, Wish{}, err
	}
	if req.IP != "" {
		ip, err := netip.ParseAddr(req.IP)
		if err != nil || !ip.IsGlobalUnicast() || ip.Zone() != "" {
			return place{}, Wish{}, ctl.Errorf(ctl.CodeInvalidConfig, "address %q: want one like 10.32.0.7", req.IP)
		}
		if w.IP.IsValid() && w.IP != ip {
			return place{}, Wish{}, ctl.Errorf(ctl.CodeInvalidConfig, "two addresses are asked for, %s and %s", w.IP, ip)
		}
		w.IP = ip
	}
	if req.MAC != "" {
		mac, err := net.ParseMAC(req.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return place{}, Wish{}, ctl.Errorf(ctl.CodeInvalidConfig, "hardware address %q: want one of an interface, like 02:42:0a:20:00:07", req.MAC)
		}
		w.MAC = mac.String()
	}
	if w.Names = slices.Clone(req.Names); len(w.Names) == 0 {
		w.Names = givenName(c)
	}
	w.Names = append(append(w.Names, req.Aliases...), e.Aliases...)
	return at, w, checkNames(w.Names)
}

// givenName is what the container is called where it is from. A path's last
// part is found by weavedns itself.
func givenName(c runtimes.Container) []string {
	switch {
	case c.Runtime == runtimes.NameCRI && len(c.Names) > 1: // a pod: NAMESPACE/NAME
		if space, pod, ok := strings.Cut(c.Names[1], "/"); ok {
			return valid(pod + "." + space)
		}
	case c.Name() != "":
		return valid(c.Name())
	case c.Runtime == runtimes.NameContainerd && len(c.ID) < 64:
		return valid(c.ID)
	}
	return nil
}

// valid leaves out what can be no name: it was not asked for.
func valid(name string) []string {
	if checkNames([]string{name}) != nil {
		return nil
	}
	return []string{name}
}

// checkNames refuses what weavedns would pass over without a word.
func checkNames(names []string) error {
	if len(names) > maxNames {
		return ctl.Errorf(ctl.CodeInvalidConfig, "%d names, an endpoint has at most %d", len(names), maxNames)
	}
	for _, n := range names {
		if !isName(strings.TrimSuffix(n, ".")) {
			return ctl.Errorf(ctl.CodeInvalidConfig, "name %q: want labels of letters, digits, '-' and '_', with dots between", n)
		}
	}
	return nil
}

func isName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return true
}

// attached is the answer: from the result of an ADD (nil: none yet).
func (a *Attacher) attached(ctx context.Context, i Intent, r *types100.Result) ctl.Attached {
	out := ctl.Attached{EndpointID: i.ID, Network: i.Network(), NetworkID: i.Net.ID, IfName: i.Key.IfName, MAC: i.Wish.MAC, Names: i.Wish.Names, Labels: i.Wish.Labels}
	if i.Wish.IP.IsValid() {
		out.IP = i.Wish.IP.String()
	}
	if out.NetworkID == "" {
		out.NetworkID = a.networkID(ctx, i.Key.Network)
	}
	if r == nil {
		return out
	}
	for _, at := range r.Interfaces {
		if at.Name == i.Key.IfName && at.Sandbox != "" {
			out.MAC = at.Mac
		}
	}
	for _, ip := range r.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		bits, _ := ip.Address.Mask.Size()
		if !ok {
			continue
		}
		out.Addresses = append(out.Addresses, netip.PrefixFrom(addr.Unmap(), bits))
		if g, ok := netip.AddrFromSlice(ip.Gateway); ok {
			out.Gateways = append(out.Gateways, g.Unmap())
		}
	}
	if len(out.Addresses) > 0 {
		out.IP = out.Addresses[0].Addr().String()
	}
	return out
}

// networkID is "" when the router does not answer, or has no such network.
func (a *Attacher) networkID(ctx context.Context, name string) string {
	var n ctl.Network
	ctx, cancel := context.WithTimeout(ctx, runtimes.Patience)
	defer cancel()
	if a.Router.Call(ctx, ctl.PathNetwork, ctl.NetworkRequest{Name: name}, &n) != nil {
		return ""
	}
	return n.ID
}
