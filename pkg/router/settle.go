package router

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/hostfw"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/overlay"
)

// network is a network whose bridge stands on this host.
type network struct {
	ledger.Network
	addrs []netip.Prefix // the bridge's own
}

func bridgeName(n ledger.Network) string {
	if n.Name == DefaultNetwork {
		return DefaultBridge
	}
	if n.Driver == ctl.DriverSimpleBridge {
		return ctl.DeviceName(ctl.LocalPrefix, n.ID)
	}
	return ctl.DeviceName(ctl.BridgePrefix, n.ID)
}

func deviceName(n ledger.Network) string {
	if n.Name == DefaultNetwork {
		return DefaultDevice
	}
	return ctl.DeviceName(ctl.TunnelPrefix, n.ID)
}

func (n *network) bridge() netdev.Bridge {
	return netdev.Bridge{Name: bridgeName(n.Network), MAC: ipam.HostKey(n.Name).MAC(n.addrs), MTU: n.MTU, Addrs: n.addrs}
}

func (r *Router) tunnel(n ledger.Network) netdev.VXLAN {
	return netdev.VXLAN{Name: deviceName(n), Bridge: bridgeName(n), VNI: n.VNI, Port: r.config.VXLANPort, Local: r.vtep, MTU: n.MTU}
}

func (n *network) gateways() []netip.Addr { return hosts(n.addrs) }

// settle makes the kernel what the ledger says, whenever that changes, and every
// settleEvery where the kernel says that somebody changed it; and reconciles the claims
// with the kernel. At a change it looks at what does not stand yet: of hundreds of
// networks that are made or removed each is one.
func (r *Router) settle(ctx context.Context) error {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	cluster := ""
	for {
		changed := r.replica.Changed()
		if id := r.replica.State().Cluster(); id != cluster {
			cluster = id
			r.sayWhatDoesNotCount()
			r.link.Recheck()               // peers of another one are told so
			r.look(netdev.Touched{}, true) // what stands says of which cluster it is
		}
		r.forgetRetired()
		start := time.Now()
		err := r.converge(ctx)
		r.metrics.converged(time.Since(start), err)
		r.noteBroken(err)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-r.kick:
		case <-r.recheck:
			r.look(netdev.Touched{}, true)
		case <-tick.C:
			touched := r.watch.Take()
			whole := r.lookout.due(time.Now()) || touched.All
			r.lookAtAttachments(whole)
			r.look(touched, whole)
			poke(r.forward) // what failed is written again too
		}
	}
}

// watchFirewall has the rules written again when somebody flushed or changed them.
func (r *Router) watchFirewall(ctx context.Context) error {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := r.repairFirewall(); err != nil {
			r.log.Error("repair the firewall", "error", err)
		}
	}
}

func (r *Router) repairFirewall() error {
	r.firewallMu.Lock()
	defer r.firewallMu.Unlock()
	if !r.firewalled {
		return nil
	}
	if intact, err := r.fw.Intact(); err == nil && intact {
		return nil
	}
	return r.fw.Apply(r.rules())
}

// beat dates the control socket every second. By it a plugin knows how long a
// router that does not answer has been away, however it ended.
func (r *Router) beat(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		if err := os.Chtimes(r.config.socket(), now, now); err != nil {
			r.log.Debug("date the control socket", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Router) noteBroken(err error) {
	r.mu.Lock()
	was := r.broken
	r.broken, r.settled = err, len(r.networks) > 0
	r.mu.Unlock()
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		r.log.Error("the data plane is not as it should be", "error", err)
	case err == nil && was != nil:
		r.log.Info("the data plane is as it should be again")
	}
}

// here are the networks that this host has a bridge for: all of the cluster, and its own.
func (r *Router) here() []ledger.Network {
	return slices.DeleteFunc(r.replica.State().Networks(), func(n ledger.Network) bool { return !r.serves(n) })
}

// overlaid reports whether a network spans hosts.
func overlaid(n ledger.Network) bool { return n.Driver == ctl.DriverWeave }

// converge brings everything once to where it should be, all but the networks that stand
// as the ledger has them and are not suspected. It does as much as it can.
// The bridges of a host that leaves are left as they are.
func (r *Router) converge(ctx context.Context) error {
	state := r.replica.State()
	r.bridges.Lock()
	r.rehear()
	r.bridges.Unlock()
	if state.Cluster() == "" {
		return nil // nothing is known yet: what the kernel holds is better than nothing
	}
	var errs []error
	all := r.here()
	r.seeks.keep(all)
	ids := make(map[string]bool, len(all))
	for _, n := range all {
		ids[n.ID] = true
	}
	maps.DeleteFunc(r.inherited, func(id string, _ bool) bool { return !ids[id] })
	maps.DeleteFunc(r.lookout.suspect, func(id string, _ bool) bool { return !ids[id] })
	for _, n := range all {
		if r.lookout.suspect[n.ID] || !r.standsSo(n) {
			errs = append(errs, r.settleNetwork(ctx, n))
		}
	}
	r.lists.Want(listed(all, r.stands))
	errs = append(errs, r.applyFirewall())
	if r.config.DNS {
		// Without names containers still reach each other: this is no reason to
		// call the host unfit. The server says it once, tries again and has it in its status.
		_ = r.dns.Sync(ctx, r.listeners())
	}
	return errors.Join(errs...)
}

// settleNetwork brings one network to where it should be, as far as it can be now. The
// lock is held for this one alone: who takes networks down does not wait for a whole pass.
// It waits for nobody else. What is wrong with the default network is wrong with the host.
func (r *Router) settleNetwork(ctx context.Context, n ledger.Network) error {
	r.bridges.Lock()
	defer r.bridges.Unlock()
	n, wanted := r.wanted(n)
	if !wanted {
		return nil
	}
	delete(r.lookout.suspect, n.ID)
	err := r.inherit(n)
	addrs, found := r.found(n)
	if found {
		err = errors.Join(err, r.ensureNetwork(n, addrs))
	} else {
		r.seek(ctx, n)
	}
	if n.Name != DefaultNetwork {
		if found || err != nil {
			r.noteAilment(n, err)
		}
		return nil
	}
	if found {
		r.seeks.note(n.ID, nil)
	} else if why := r.ailment(n); why != "" {
		err = errors.Join(err, fmt.Errorf("address for bridge %s: %s", bridgeName(n), why))
	}
	r.lookout.unfit = err != nil
	return err
}

// wanted gives a network as the ledger has it now, and reports whether it is to stand on
// this host. The caller has the lock bridges.
func (r *Router) wanted(n ledger.Network) (ledger.Network, bool) {
	now, there := r.replica.State().Network(n.Name)
	if !there || now.ID != n.ID || r.resetting.Load() || r.torn[n.ID] {
		return now, false
	}
	return now, !now.Closing || len(r.ipam.Dwellers(n.Name)) > 0
}

// ensureNetwork makes the network's bridge and device, with this host's own addresses.
func (r *Router) ensureNetwork(def ledger.Network, addrs []netip.Prefix) error {
	n := &network{def, addrs}
	has, err := netdev.BridgeAddrs(bridgeName(def))
	switch {
	case errors.Is(err, netdev.ErrNotFound):
		err = r.checkHere(def)
	case err == nil && !r.stands(def):
		err = r.dropStale(def, has, addrs)
	}
	if err != nil {
		return err
	}
	b := n.bridge()
	b.Cluster = r.replica.State().Cluster()
	if err := netdev.EnsureBridge(b); err != nil {
		return err
	}
	if err := r.routeFor(n); err != nil {
		return err
	}
	if overlaid(def) {
		if err := netdev.EnsureVXLAN(r.tunnel(def)); err != nil {
			return err
		}
	}
	if r.enter(n) {
		return nil
	}
	r.log.Info("network is up", "network", def.Name, "bridge", bridgeName(def), "addresses", addrs, "vni", def.VNI, "mtu", def.MTU)
	poke(r.forward)
	return r.publishBridge(def.Name, addrs)
}

// enter notes that a network stands, and reports whether it did before.
func (r *Router) enter(n *network) (known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known = r.networks[n.ID] != nil
	r.networks[n.ID] = n
	if !known {
		close(r.stood)
		r.stood = make(chan struct{})
	}
	return known
}

// untilStood asks, at once and whenever another network stands, until the answer is yes or
// ctx ends.
func (r *Router) untilStood(ctx context.Context, enough func() bool) {
	for {
		stood := r.stoodNow()
		if enough() {
			return
		}
		select {
		case <-stood:
		case <-ctx.Done():
			return
		}
	}
}

// stoodNow is closed when another network stands than do now.
func (r *Router) stoodNow() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stood
}

// dropStale takes addresses of the network off its bridge that it is not to keep: they
// are another host's, and this one was in another cluster when it got them; or it leaves.
func (r *Router) dropStale(def ledger.Network, has, keep []netip.Prefix) error {
	var errs []error
	for _, p := range has {
		ours := slices.ContainsFunc(def.Subnets, func(s netip.Prefix) bool { return s.Contains(p.Addr()) })
		if ours && !slices.Contains(keep, p) {
			errs = append(errs, netdev.RemoveAddr(bridgeName(def), p))
		}
	}
	return errors.Join(errs...)
}

// applyFirewall writes the rules. Its first call comes when what the kernel leads
// to has been inherited: before that, the peers in the rules would be none.
func (r *Router) applyFirewall() error {
	r.firewallMu.Lock()
	defer r.firewallMu.Unlock()
	r.firewalled = true
	return r.fw.Apply(r.rules())
}

func (r *Router) rules() hostfw.Rules {
	rules := hostfw.Rules{
		Peers:      append(r.view.VTEPs(), r.vtep),
		GossipPort: r.config.Port, VXLANPort: r.config.VXLANPort, TunnelPort: TunnelPort,
		MeshPort: r.config.MeshPort, UID: uint32(os.Geteuid()),
	}
	// Of every network, also of one that does not stand yet in this life of the
	// router: its containers may run all the same.
	for _, n := range r.here() {
		rules.Networks = append(rules.Networks, hostfw.Network{Bridge: bridgeName(n), Subnets: n.Subnets, Internal: n.Internal})
	}
	return rules
}

func (r *Router) listeners() []names.Listener {
	var out []names.Listener
	for _, n := range r.standing() {
		for _, a := range n.addrs {
			out = append(out, names.Listener{Network: n.Name, Addr: a.Addr(), Subnets: n.Subnets, Internal: n.Internal})
		}
	}
	return out
}

// standing are the networks whose bridge stands.
func (r *Router) standing() []*network {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*network, 0, len(r.networks))
	for _, n := range r.networks {
		out = append(out, n)
	}
	return out
}

func (r *Router) network(name string) (*network, error) {
	state := r.replica.State()
	def, known := state.Network(name)
	r.mu.Lock()
	n := r.networks[def.ID]
	r.mu.Unlock()
	switch {
	case known && !r.serves(def):
		return nil, &ctl.Error{Code: ctl.CodeWrongHost, Msg: fmt.Sprintf("network %q is of host %s alone (driver %s)", name, def.Host, def.Driver),
			Details: "run the container there, or use a network of driver " + ctl.DriverWeave}
	case n != nil:
		return n, nil
	case known && def.Closing:
		return nil, &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("network %q is being removed", name), Details: r.removalWaits(def)}
	case known && r.ailment(def) != "":
		return nil, &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("network %q is not ready on this host", name), Details: r.ailment(def)}
	case known, state.Cluster() == "":
		return nil, &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("network %q is not ready on this host yet", name), Details: r.waiting()}
	}
	return nil, &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("no network is called %q", name), Details: "the conflist's name, or its key \"network\" (of weave-ipam without weave-net: \"ipam.network\"), must be that of a network of the cluster"}
}

// openKernel reads what the kernel and the claim files hold, before anything is
// changed or said to anybody.
func (r *Router) openKernel(context.Context) error {
	var err error
	if r.fw, err = hostfw.New(r.log.With("part", "firewall")); err != nil {
		return err
	}
	if err := r.watchKernel(); err != nil {
		return err
	}
	r.openDNS()
	r.openReaper()
	ports, err := r.ports()
	if err != nil {
		return err
	}
	if err := r.checkDevice(ports); err != nil {
		return err
	}
	ports = slices.DeleteFunc(ports, func(p port) bool { return !concerns(r.replica.State(), p) })
	if err := r.ipam.Adopt(kernelOf(ports)); err != nil {
		return err
	}
	return r.publishAll(ports)
}

// inherit notes, once, what the kernel forwards already, so that it stays until its hosts have spoken.
func (r *Router) inherit(def ledger.Network) error {
	if r.inherited[def.ID] || !overlaid(def) {
		return nil
	}
	r.inherited[def.ID] = true
	f, err := netdev.ReadForwarding(bridgeName(def), deviceName(def))
	if errors.Is(err, netdev.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p := overlay.Plan{Flood: f.Flood}
	for _, e := range f.Remotes {
		p.Remotes = append(p.Remotes, overlay.Remote{MAC: e.MAC, VTEP: e.VTEP, Addrs: e.Addrs})
	}
	r.view.Inherit(def.Name, p)
	return nil
}
