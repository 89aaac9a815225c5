package router

import (
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/reaper"
)

// publishAll announces this host and everything that it holds. Until this is
// done the exchange says nothing of us to anybody.
func (r *Router) publishAll() error {
	h, err := r.codec.Encode(overlay.Host{MemberID: r.id.MemberID(), VTEP: r.vtep, Gossip: []netip.AddrPort{netip.AddrPortFrom(r.vtep, r.config.Port)}})
	if err != nil {
		return err
	}
	errs := []error{r.exchange.Put(overlay.HostKey, h)}
	for _, c := range r.ipam.Claims() {
		errs = append(errs, r.publish(c))
	}
	r.exchange.Announce()
	return errors.Join(errs...)
}

// publish announces a claim as it is now: nothing until it is committed, unless
// another main plugin made it, which never says so.
func (r *Router) publish(c ipam.Claim) error {
	if !c.Live() || c.Network == "" {
		return nil
	}
	e := overlay.Endpoint{Network: c.Network, MAC: c.MAC, Names: c.Names}
	for _, p := range c.Addrs {
		e.Addrs = append(e.Addrs, p.Addr())
	}
	if !c.OnBridge {
		e.MAC = nil
	}
	return r.announce(c.Hash, e)
}

func (r *Router) announce(hash string, e overlay.Endpoint) error {
	b, err := r.codec.Encode(e)
	if err != nil {
		return err
	}
	r.table.Put(hash, nameRecords(r.id.Name(), e))
	return r.exchange.Put(overlay.EndpointPrefix+hash, b)
}

// withdraw takes an endpoint back: its names are gone at this host's next query,
// at the others' when they hear of it.
func (r *Router) withdraw(hash string) {
	r.table.Drop(hash)
	r.exchange.Delete(overlay.EndpointPrefix + hash)
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
		if c, ok := r.ipam.Restore(hash, e.Names); ok {
			if err := r.publish(c); err != nil {
				r.log.Error("publish restored names", "attachment", hash, "error", err)
			}
		}
	}
}

// publishBridge announces the host's own address on a network, so that
// containers elsewhere reach the host and the host reaches them.
func (r *Router) publishBridge(n *network) {
	e := overlay.Endpoint{Network: n.Name, MAC: n.bridge().MAC, Addrs: n.gateways(), Bridge: true}
	if name, err := names.ValidName(string(r.id.Name())); err == nil {
		e.Names = []string{name}
	}
	if err := r.announce(ipam.HostKey(n.Name).Hash(), e); err != nil {
		r.log.Error("announce the bridge's address", "network", n.Name, "error", err)
	}
}

// kernel lists this host's attachments as the kernel has them.
func (r *Router) kernel() ([]ipam.Kernel, error) {
	ports, err := netdev.Ports()
	if err != nil {
		return nil, err
	}
	var out []ipam.Kernel
	for _, p := range ports {
		a, err := attachment.ParseAlias(p.Alias)
		if err != nil || reaper.Marked(p.Group) {
			continue
		}
		out = append(out, ipam.Kernel{Alias: a, Veth: p.Name, Network: r.networkOfBridge(p.Master)})
	}
	return out, nil
}

// networkOfBridge is the ledger's name of the network behind a bridge, "" for a bridge of no network.
func (r *Router) networkOfBridge(bridge string) string {
	if bridge == DefaultBridge {
		return DefaultNetwork // known although the ledger may not be
	}
	for _, n := range r.replica.State().Networks() {
		if bridgeName(n) == bridge {
			return n.Name
		}
	}
	return ""
}

// reconcile frees the addresses of attachments that the kernel has no more.
func (r *Router) reconcile() {
	kernel, err := r.kernel()
	if err != nil {
		r.log.Warn("list the attachments", "error", err)
		return
	}
	for _, c := range r.ipam.Reconcile(kernel) {
		r.log.Info("attachment is gone; its address is free", "attachment", c.Hash, "container", c.Key.ContainerID, "addresses", c.Addrs)
		r.withdraw(c.Hash)
	}
}

func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err == nil && (len(mac) != 6 || mac[0]&1 != 0) {
		err = errors.New("want a unicast Ethernet address")
	}
	return mac, err
}
