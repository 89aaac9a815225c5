// Command simplebridge is the CNI plugin that attaches a container to a bridge
// of this host. It needs no router and no other daemon, unless its addresses
// are weave-ipam's.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

func main() {
	cniconf.Main(cniconf.Plugin{Name: "simplebridge", Add: add, Check: check, Del: del, GC: gc, Status: status})
}

func add(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	release, err := c.Alone()
	if err != nil {
		return err
	}
	defer release()

	var undo cniconf.Undo
	defer undo.Run()
	r, err := c.AddAddresses(ctx, conf.IPAM.Type, &undo)
	if err != nil {
		return err
	}
	link, err := conf.ensureBridge(r)
	if err != nil {
		return err
	}
	mac, addrs, err := c.Attach(link, r, &undo)
	if err != nil {
		return err
	}
	if conf.IPAM.Type == cniconf.WeaveIPAM {
		commit := ctl.CommitRequest{Key: c.Key, MAC: mac.String(), Addresses: addrs, NetNS: c.NS.ID()}
		if err := cniconf.NewRouter(conf.IPAMSocket()).Call(ctx, ctl.PathCommit, commit, nil); err != nil {
			return err
		}
	}
	if err := c.Print(r); err != nil {
		return err
	}
	undo.Keep()
	return nil
}

// ensureBridge makes the bridge, or takes the one that is there with its MAC and
// its MTU, and gives it the gateways' addresses.
func (conf *config) ensureBridge(r *current.Result) (cniconf.Link, error) {
	link := cniconf.Link{Bridge: conf.Bridge, MTU: conf.MTU, Hairpin: *conf.HairpinMode, MAC: conf.mac}
	own, err := netdev.OpenNS("/proc/thread-self/ns/net")
	if err != nil {
		return link, err
	}
	defer own.Close()
	want := netdev.Bridge{Name: conf.Bridge}
	have, err := netdev.Inspect(own, conf.Bridge)
	switch {
	case errors.Is(err, netdev.ErrNotFound):
		want.MAC, want.MTU = conf.bridgeMAC(own.ID()), cmp.Or(conf.MTU, defaultMTU)
		have = netdev.Iface{MAC: want.MAC, MTU: want.MTU}
	case err != nil:
		return link, err
	}
	if *conf.IsGateway {
		if want.Addrs, err = gateways(r, have.Addrs); err != nil {
			return link, err
		}
	}
	link.BridgeMAC, link.MTU = have.MAC.String(), cmp.Or(conf.MTU, have.MTU)
	return link, netdev.EnsureBridge(want)
}

// bridgeMAC is the same for every plugin that makes the bridge at this moment,
// and another on every other host.
func (conf *config) bridgeMAC(host attachment.NSID) net.HardwareAddr {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it hosts are told apart less well
	maker := fmt.Sprintf("%s %d:%d", boot, host.Dev, host.Ino)
	return attachment.Key{Network: "simplebridge", ContainerID: maker, IfName: conf.Bridge}.MAC(nil)
}

// gateways gives the addresses that the bridge is to have. One that the host has
// elsewhere is left where it is: two interfaces with one address work on neither.
func gateways(r *current.Result, own []netip.Prefix) ([]netip.Prefix, error) {
	want := cniconf.Gateways(r)
	if !slices.ContainsFunc(want, func(g netip.Prefix) bool { return !slices.Contains(own, g) }) {
		return nil, nil // it has them all
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	host := map[netip.Addr]bool{}
	for _, n := range all {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			host[p.Addr().Unmap()] = true
		}
	}
	return slices.DeleteFunc(want, func(g netip.Prefix) bool { return host[g.Addr()] }), nil
}

// del takes the link away first and then the address, so that no address in use is ever free.
func del(ctx context.Context, c *cniconf.Call) error {
	var conf config
	if err := cniconf.Decode(c.Stdin, &conf); err != nil {
		return err
	}
	if err := c.Detach(); err != nil {
		return err
	}
	return c.DelegateDel(ctx, conf.IPAM.Type)
}

func check(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	prev, err := conf.Prev()
	if err != nil {
		return err
	}
	if err := c.CheckLink(prev, conf.Bridge, cmp.Or(conf.MTU, cniconf.ResultMTU(prev, c.Key.IfName))); err != nil {
		return err
	}
	return conf.delegate(ctx, c, "CHECK")
}

// gc leaves links alone: a veth dies with its namespace, so none is left over.
// Addresses are, and those are the IPAM plugin's.
func gc(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	return conf.delegate(ctx, c, "GC")
}

func status(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	return conf.delegate(ctx, c, "STATUS")
}

func (conf *config) delegate(ctx context.Context, c *cniconf.Call, verb string) error {
	if conf.IPAM.Type == "" {
		return nil
	}
	_, err := c.Delegate(ctx, conf.IPAM.Type, verb)
	return err
}
