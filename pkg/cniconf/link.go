package cniconf

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// What the two main plugins do alike: addresses from the IPAM plugin, the veth, its check.

// Alone makes this call the only ADD of its attachment until release, and makes
// sure that neither the container nor the host has an interface of its names yet.
// So what is under the attachment's key from then on is this call's, and may be
// taken back; but a child of a plugin that was killed may outlive it and take the
// address back for it. Then Commit refuses this call: it fails, and shares nothing.
// It comes before the IPAM plugin is asked.
func (c *Call) Alone() (release func(), err error) {
	held, err := netdev.Hold(c.Key.Veth())
	if err != nil {
		return nil, Errorf(types.ErrTryAgainLater, "container %s, interface %s: %v", c.Key.ContainerID, c.Key.IfName, err)
	}
	if err := c.namesFree(); err != nil {
		held.Release()
		return nil, err
	}
	return held.Release, nil
}

func (c *Call) namesFree() error {
	inside, host, err := c.namesTaken()
	switch {
	case err != nil:
		return err
	case host:
		return Errorf(CodeExists, "container %s is attached to network %q as %q already (by %q on the host): DEL it first", c.Key.ContainerID, c.Key.Network, c.Key.IfName, c.Key.Veth())
	case inside:
		return Errorf(CodeExists, "CNI_IFNAME: container %s has an interface %q already", c.Key.ContainerID, c.Key.IfName)
	}
	return nil
}

// namesTaken looks for the attachment's interface in the container, and for its end on the host.
func (c *Call) namesTaken() (inside, host bool, err error) {
	if inside, err = netdev.HasLink(c.NS, c.Key.IfName); err != nil {
		return false, false, err
	}
	host, err = netdev.HasLink(nil, c.Key.Veth())
	return inside, host, err
}

// whyTaken says what netdev.ErrExists is about. When somebody else's ADD of this
// very attachment has won meanwhile, the addresses are that one's too, under the
// same key, and not to be given back.
func (c *Call) whyTaken(cause error, undo *Undo) error {
	inside, host, err := c.namesTaken()
	if host || err != nil {
		undo.Keep()
	}
	if inside || host || err != nil {
		return cause
	}
	return types.NewError(ctl.CodeAddressTaken, "another container on this bridge has that MAC already",
		"ask for another MAC, or for none; `weave ps` shows whose it is. Where none was asked for, it has the address too: ask for another one ("+cause.Error()+")")
}

// AddAddresses asks the IPAM plugin for the attachment's addresses, and pushes
// what gives them back. Without an IPAM plugin (layer 2 only) the result is empty.
func (c *Call) AddAddresses(ctx context.Context, ipam string, undo *Undo) (*current.Result, error) {
	if ipam == "" {
		return &current.Result{CNIVersion: current.ImplementedSpecVersion}, nil
	}
	// Pushed before: a plugin that failed may have got half of the way, and CNI
	// wants its DEL then too.
	undo.Push(func() {
		ctx, cancel := UndoContext()
		defer cancel()
		if _, err := c.Delegate(ctx, ipam, "DEL"); err != nil {
			fmt.Fprintf(os.Stderr, "take back the addresses of %s: %v\n", c.Key.ContainerID, err)
		}
	})
	r, err := c.DelegateAdd(ctx, ipam)
	if err != nil {
		return nil, err
	}
	if len(r.IPs) == 0 {
		return nil, Errorf(types.ErrInvalidNetworkConfig, "IPAM plugin %q gave no address", ipam)
	}
	return r, nil
}

// Link is what a main plugin attaches a container with.
type Link struct {
	Bridge    string
	BridgeMAC string // as the result shows it
	MTU       int
	Hairpin   bool
	Local     bool             // the bridge is no network's of the router
	MAC       net.HardwareAddr // asked for; nil: attachment.Key.MAC
}

// CheckMain notes what is wrong with the keys that main plugins have in common,
// and with what is asked for, and gives the MAC that is; nil when none is.
func (c *Conf) CheckMain(call *Call, mtu int, p *Problems) net.HardwareAddr {
	c.Check(p)
	p.Check(CheckMTU(mtu))
	asked, err := c.RequestedIPs(call.Args)
	p.Check(err)
	p.Check(call.checkAlias(asked))
	if len(asked) > 0 && c.IPAM.Type == "" {
		p.Add("an address is asked for and there is no ipam to give it")
	}
	mac, err := c.RequestedMAC(call.Args)
	p.Check(err)
	return mac
}

// checkAlias refuses more addresses than the attachment's record in the kernel
// has room for. asked are addresses with or without a prefix length.
func (c *Call) checkAlias(asked []string) error {
	var addrs []netip.Prefix
	for _, s := range asked {
		if _, text, err := parseIP(s); err == nil {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				a := netip.MustParseAddr(text) // parseIP took it
				p = netip.PrefixFrom(a, a.BitLen())
			}
			addrs = append(addrs, p)
		}
	}
	_, err := c.alias(c.Key.MAC(addrs), addrs, true) // the longer of the two kinds
	return err
}

func (c *Call) alias(mac net.HardwareAddr, addrs []netip.Prefix, local bool) (string, error) {
	text, err := attachment.Alias{Hash: c.Key.Hash(), Network: c.Key.Network, MAC: mac, Addrs: addrs, Local: local}.Encode()
	if err != nil {
		return "", Errorf(types.ErrInvalidNetworkConfig, "%v", err)
	}
	return text, nil
}

// Attach makes the veth with the addresses and routes of the IPAM plugin's
// result, completes the result, and pushes what deletes the veth again. It
// gives the MAC and the addresses of the container's end.
func (c *Call) Attach(l Link, r *current.Result, undo *Undo) (net.HardwareAddr, []netip.Prefix, error) {
	addrs := allAddresses(r)
	mac := l.MAC
	if mac == nil {
		mac = c.Key.MAC(addrs)
	}
	alias, err := c.alias(mac, addrs, l.Local)
	if err != nil {
		return nil, nil, err
	}
	routes, err := Routes(r)
	if err != nil {
		return nil, nil, err
	}
	host, hash := c.Key.Veth(), c.Key.Hash()
	err = netdev.Attach(netdev.Veth{
		Host: host, HostMAC: hostMAC(hash), Bridge: l.Bridge, MTU: l.MTU, Alias: alias,
		NS: c.NS, IfName: c.Key.IfName, MAC: mac, Addrs: addrs, Routes: routes,
		Hairpin: l.Hairpin, Lock: true,
	})
	if errors.Is(err, netdev.ErrExists) {
		err = c.whyTaken(err, undo)
	}
	if err != nil {
		return nil, nil, err
	}
	undo.Push(func() {
		if err := netdev.Detach(host, hash); err != nil {
			fmt.Fprintf(os.Stderr, "take back %s: %v\n", host, err)
		}
	})
	c.complete(r, l, mac)
	return mac, addrs, nil
}

// Detach deletes the attachment's veth without the router. A link of that name
// which is another attachment's stays: then ours is gone.
func (c *Call) Detach() error {
	err := netdev.Detach(c.Key.Veth(), c.Key.Hash())
	if errors.Is(err, netdev.ErrNotOurs) {
		return nil
	}
	return err
}

// complete lists the interfaces in the result: bridge, the host's end, the
// container's end, to which every address belongs.
func (c *Call) complete(r *current.Result, l Link, mac net.HardwareAddr) {
	r.Interfaces = []*current.Interface{
		{Name: l.Bridge, Mac: l.BridgeMAC, Mtu: l.MTU},
		{Name: c.Key.Veth(), Mac: hostMAC(c.Key.Hash()).String(), Mtu: l.MTU},
		{Name: c.Key.IfName, Mac: mac.String(), Mtu: l.MTU, Sandbox: c.NetNS},
	}
	for _, ip := range r.IPs {
		ip.Interface = current.Int(2)
	}
}

func allAddresses(r *current.Result) []netip.Prefix {
	var out []netip.Prefix
	for _, ip := range r.IPs {
		if p, err := prefixOf(ip.Address); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// CheckLink compares the kernel with what ADD left: the container's interface
// is there, up, with its MAC, MTU and addresses; its other end is a port of the
// bridge and carries the attachment's alias. It looks at no bridge's MAC and at
// no routes. mtu 0 is not compared.
func (c *Call) CheckLink(prev *current.Result, bridge string, mtu int) error {
	inside, err := netdev.Inspect(c.NS, c.Key.IfName)
	if errors.Is(err, netdev.ErrNotFound) {
		return Errorf(CodeNotAsAdded, "container %s has no interface %q any more", c.Key.ContainerID, c.Key.IfName)
	}
	if err != nil {
		return err
	}
	port, alias, err := c.port()
	if err != nil {
		return err
	}
	var p Problems
	if !inside.Up {
		p.Add("%s is down", c.Key.IfName)
	}
	if mtu != 0 && inside.MTU != mtu {
		p.Add("%s has MTU %d, want %d", c.Key.IfName, inside.MTU, mtu)
	}
	if inside.MAC.String() != alias.MAC.String() {
		p.Add("%s has MAC %s, want %s", c.Key.IfName, inside.MAC, alias.MAC)
	}
	for _, a := range Addresses(prev, c.Key.IfName) {
		if !slices.Contains(inside.Addrs, a) {
			p.Add("%s does not have address %s", c.Key.IfName, a)
		}
	}
	if port.Master != bridge {
		p.Add("%s is no port of bridge %q", port.Name, bridge)
	}
	if err := p.Err(); err != nil {
		return types.NewError(CodeNotAsAdded, fmt.Sprintf("the attachment of container %s is not as it was made", c.Key.ContainerID), Coded(err).Details)
	}
	return nil
}

// port finds the host's end of the attachment.
func (c *Call) port() (netdev.Port, attachment.Alias, error) {
	ports, err := netdev.Ports()
	if err != nil {
		return netdev.Port{}, attachment.Alias{}, err
	}
	for _, p := range ports {
		if alias, err := attachment.ParseAlias(p.Alias); p.Name == c.Key.Veth() && err == nil && alias.Hash == c.Key.Hash() {
			return p, alias, nil
		}
	}
	return netdev.Port{}, attachment.Alias{}, Errorf(CodeNotAsAdded, "the host has no interface %q of this attachment", c.Key.Veth())
}

// ResultMTU is the MTU that a result gives the container's interface, 0 when it says none.
func ResultMTU(r *current.Result, ifname string) int {
	for _, i := range r.Interfaces {
		if i.Name == ifname && i.Sandbox != "" {
			return i.Mtu
		}
	}
	return 0
}

// hostMAC is the MAC of the veth's end on the host, where nobody speaks by it:
// given explicitly, so that no udev changes it, and known to the result without asking.
func hostMAC(hash string) net.HardwareAddr {
	d := sha256.Sum256([]byte(hash))
	return append(net.HardwareAddr{0xfe}, d[:5]...)
}
