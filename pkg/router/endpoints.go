package router

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/reaper"
)

// publishAll announces this host and everything that it holds. Until this is
// done the exchange says nothing of us to anybody.
//
// A claim whose veth the kernel does not show is not announced, although its file
// says that it stands: it was deleted while no router ran.
func (r *Router) publishAll(ports []port) error {
	shown := map[string]bool{}
	for _, p := range ports {
		shown[p.Alias.Hash] = true
	}
	h, err := r.codec.Encode(overlay.Host{MemberID: r.id.MemberID(), VTEP: r.vtep, Gossip: []netip.AddrPort{netip.AddrPortFrom(r.vtep, r.config.Port)}})
	if err != nil {
		return err
	}
	errs := []error{r.exchange.Put(overlay.HostKey, h)}
	var unheard []error
	for _, c := range r.ipam.Claims() {
		if c.Decider == ctl.DecidedByClaim || shown[c.Hash] {
			if err := r.publish(c); err != nil {
				unheard = append(unheard, err)
			}
		}
		if c.Host() && !r.withholds(c) {
			errs = append(errs, r.publishBridge(c.Network, c.Addrs))
		}
	}
	r.byHand.mu.Lock()
	errs = append(errs, r.tellByHand())
	r.byHand.mu.Unlock()
	if len(unheard) > 0 { // too many, say: no reason to serve none at all
		r.log.Error("the other hosts do not hear of some attachments", "attachments", len(unheard), "error", unheard[0])
	}
	r.exchange.Announce()
	return errors.Join(errs...)
}

// publish announces a claim as it is now: nothing until it is committed, unless
// another main plugin made it, which never says so. One that is neither on the
// bridge nor has a name is nothing to the other hosts, but for their number: a host
// may have more of those than records.
func (r *Router) publish(c ipam.Claim) error {
	if !c.Live() {
		return nil
	}
	if r.withholds(c) {
		r.withdraw(c.Hash) // they may have heard of it; rehear looks for what changes from here on
		return nil
	}
	if c.Network == "" {
		return nil
	}
	e := overlay.Endpoint{Network: c.Network, MAC: c.MAC, Names: c.Names, Addrs: hosts(c.Addrs), Texts: c.Texts}
	for _, s := range c.Services {
		e.Services = append(e.Services, overlay.Service(s))
	}
	if !c.OnBridge {
		e.MAC = nil
	}
	if len(e.MAC) == 0 && len(e.Names) == 0 {
		r.withdraw(c.Hash)
		return nil
	}
	r.clients.Set(c.Hash, e.Addrs, serversOf(c))
	return r.announce(c.Hash, e)
}

func (r *Router) announce(hash string, e overlay.Endpoint) error {
	b, err := r.codec.Encode(e)
	if err != nil {
		return err
	}
	r.table.PutSet(hash, nameSet(r.id.Name(), e))
	return r.exchange.Put(overlay.EndpointPrefix+hash, b)
}

// withdraw takes an endpoint back: its names are gone at this host's next query,
// at the others' when they hear of it.
func (r *Router) withdraw(hash string) {
	r.table.Drop(hash)
	r.clients.Drop(hash)
	r.exchange.Delete(overlay.EndpointPrefix + hash)
	r.uses.ended()
}

// withdrawBridge takes back what this host has told of its address on a network, unless
// that is already on another network of this name.
func (r *Router) withdrawBridge(n ledger.Network) {
	key := ipam.HostKey(n.Name).Hash()
	if c, ok := r.ipam.Claim(key); !ok || strings.HasPrefix(n.ID, c.NetID) {
		r.withdraw(key)
	}
}

// former gives back what the other hosts remember of attachments that were read
// from the kernel alone: their names, which the kernel does not keep.
func (r *Router) former(records map[string][]byte) {
	for key, value := range records {
		hash, ok := strings.CutPrefix(key, overlay.EndpointPrefix)
		var e overlay.Endpoint
		if !ok || r.codec.Decode(value, &e) != nil || !e.Valid() {
			continue
		}
		r.noteRecalled(hash)
		if c, ok := r.ipam.Restore(hash, namingOf(e)); ok {
			if err := r.publish(c); err != nil {
				r.log.Error("publish restored names", "attachment", hash, "error", err)
			}
		}
	}
}

// namingOf is what an endpoint's record says for DNS.
func namingOf(e overlay.Endpoint) ipam.Naming {
	n := ipam.Naming{Names: e.Names, Texts: e.Texts}
	for _, s := range e.Services {
		n.Services = append(n.Services, ctl.Service(s))
	}
	return n
}

// noteRecalled notes that another host has told what an attachment had, be it no name.
func (r *Router) noteRecalled(hash string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recalled == nil {
		r.recalled = map[string]bool{}
	}
	r.recalled[hash] = true
}

// publishBridge announces the host's own address on a network, so that
// containers elsewhere reach the host and the host reaches them.
func (r *Router) publishBridge(network string, addrs []netip.Prefix) error {
	key := ipam.HostKey(network)
	e := overlay.Endpoint{Network: network, MAC: key.MAC(addrs), Addrs: hosts(addrs), Bridge: true}
	if name, err := names.ValidName(string(r.id.Name())); err == nil {
		e.Names = []string{name}
	}
	return r.announce(key.Hash(), e)
}

// hosts are the addresses without the lengths of their subnets.
func hosts(prefixes []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, p := range prefixes {
		out = append(out, p.Addr())
	}
	return out
}

// port is an attachment as the kernel has it.
type port struct {
	ipam.Kernel
	bridge string // "" when it is in none
}

// ports lists this host's attachments.
func (r *Router) ports() ([]port, error) {
	all, err := netdev.Ports()
	if err != nil {
		return nil, err
	}
	networks := map[string]string{DefaultBridge: DefaultNetwork} // known although the ledger may not be
	for _, n := range r.replica.State().Networks() {
		networks[bridgeName(n)] = n.Name
	}
	var out []port
	for _, p := range all {
		a, err := attachment.ParseAlias(p.Alias)
		if err != nil || reaper.Marked(p.Group) {
			continue
		}
		out = append(out, port{ipam.Kernel{Alias: a, Veth: p.Name, Network: networks[p.Master],
			NetID: ctl.DeviceID(p.Master, ctl.BridgePrefix, ctl.LocalPrefix)}, p.Master})
	}
	return out, nil
}

func kernelOf(ports []port) []ipam.Kernel {
	out := make([]ipam.Kernel, len(ports))
	for i, p := range ports {
		out[i] = p.Kernel
	}
	return out
}

// networkOf is the network of whose subnets one has one of the addresses, "" when none has.
func networkOf(networks []ledger.Network, addrs []netip.Prefix) string {
	for _, n := range networks {
		for _, a := range addrs {
			if slices.ContainsFunc(n.Subnets, func(s netip.Prefix) bool { return s.Contains(a.Addr()) }) {
				return n.Name
			}
		}
	}
	return ""
}

// homeOf is the network on whose bridge an attachment belongs, "" for none of ours:
// that of its addresses or, where they are of another IPAM plugin or it has none,
// the one that it is called by.
func homeOf(networks []ledger.Network, a attachment.Alias) string {
	if a.Local {
		return ""
	}
	if name := networkOf(networks, a.Addrs); name != "" {
		return name
	}
	for _, n := range networks {
		if overlaid(n) && n.Name == a.Network {
			return n.Name
		}
	}
	return ""
}

// concerns reports whether a port is on a network of the ledger, or has an address of
// one. Any other is simplebridge's and another IPAM plugin's alone. As long as no
// ledger is known every one may be.
func concerns(state *ledger.State, p port) bool {
	networks := state.Networks()
	return state.Cluster() == "" || p.Network != "" || networkOf(networks, p.Alias.Addrs) != "" || homeOf(networks, p.Alias) != ""
}

// reconcile frees the addresses of attachments that the kernel has no more, and
// puts ports back that somebody took out of their bridge. It reports whether that is done:
// what is odd has to be seen twice.
func (r *Router) reconcile() (done bool) {
	ports, err := r.ports()
	if err != nil {
		r.log.Warn("list the attachments", "error", err)
		return false
	}
	done = true
	r.lookout.shown = make(map[string]bool, len(ports))
	for _, p := range ports {
		r.lookout.shown[p.Alias.Hash] = true
		if p.bridge == "" {
			done = r.putBack(p) && done
		}
	}
	state := r.replica.State()
	ports = slices.DeleteFunc(ports, func(p port) bool {
		_, claimed := r.ipam.Claim(p.Alias.Hash)
		odd := !claimed && concerns(state, p)
		done = done && !odd
		return !claimed && !odd
	})
	released, adopted := r.ipam.Reconcile(kernelOf(ports))
	r.metrics.settledWith(len(released), len(adopted))
	for _, c := range released {
		r.log.Info("attachment is gone; its address is free", "attachment", c.Hash, "container", c.Key.ContainerID, "addresses", c.Addrs)
		r.over(calllog.Reconcile, c)
		r.withdraw(c.Hash)
		poke(r.ends)
	}
	for _, c := range adopted {
		if err := r.publish(c); err != nil {
			r.log.Error("publish an adopted attachment", "attachment", c.Hash, "error", err)
		}
	}
	return done
}

// putBack makes an attachment a port of its network's bridge again, if it was one. It is
// tried again when that fails.
func (r *Router) putBack(p port) (done bool) {
	c, ok := r.ipam.Claim(p.Alias.Hash)
	home := c.Network
	if !c.OnBridge && c.NetID == "" { // or that is not known: it was read from the kernel when it was out already
		home = homeOf(r.replica.State().Networks(), p.Alias)
	}
	if !ok || home == "" {
		return true
	}
	n, err := r.network(home)
	if err == nil {
		err = netdev.EnsurePort(p.Veth, bridgeName(n.Network), p.Alias.MAC, true)
	}
	if err != nil {
		r.log.Error("put a port back into its bridge", "port", p.Veth, "error", err)
		return false
	}
	r.log.Warn("a port was out of its bridge and is back", "port", p.Veth, "bridge", bridgeName(n.Network))
	if c, err = r.ipam.Joined(p.Alias.Hash, home); err == nil {
		err = r.publish(c)
	}
	if err != nil {
		r.log.Error("publish a port that is back", "port", p.Veth, "error", err)
	}
	return err == nil
}

func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err == nil && (len(mac) != 6 || mac[0]&1 != 0) {
		err = errors.New("want a unicast Ethernet address")
	}
	return mac, err
}
