package netdev

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// Bridge is a network's bridge on this host. The zero MAC and MTU leave the kernel's choice.
type Bridge struct {
	Name  string
	MAC   net.HardwareAddr
	MTU   int
	Addrs []netip.Prefix // the host's own addresses in the network

	// Cluster is whose it is; its alias says so, unless somebody gave it another. ""
	// leaves the alias as it is.
	Cluster string
}

// ofCluster begins the alias of a bridge that a cluster's router made or took over.
const ofCluster = "weave cluster "

// EnsureBridge makes the bridge or repairs it: up, this MAC (explicitly, so that
// it does not follow the ports), this MTU, these addresses. Addresses that it has
// besides stay. It listens to no router advertisement and checks its IPv6
// addresses for no duplicates: allocation makes them unique. What fits already is
// not touched. ErrWrongKind when the name is taken by something else.
func EnsureBridge(b Bridge) error {
	if err := b.ensure(); err != nil {
		return fmt.Errorf("ensure bridge %q: %w", b.Name, err)
	}
	return nil
}

func (b Bridge) ensure() error {
	if err := attachment.ValidIfName(b.Name); err != nil {
		return err
	}
	l, err := b.findOrMake()
	if err != nil {
		return err
	}
	if err := quietIPv6(b.Name); err != nil {
		return err
	}
	if err := b.fit(l.Attrs()); err != nil {
		return err
	}
	return b.addMissing(l)
}

// fit sets what the bridge has otherwise, all of it by one message: each waits for the
// kernel's link lock anew. Its alias says whose it is.
func (b Bridge) fit(has *netlink.LinkAttrs) error {
	parts, what := []nl.NetlinkRequestData{info(has.Index)}, []string{}
	if has.Flags&net.FlagUp == 0 {
		parts[0], what = infoUp(has.Index), append(what, "set up")
	}
	if b.MAC != nil && !bytes.Equal(has.HardwareAddr, b.MAC) {
		parts, what = append(parts, nl.NewRtAttr(unix.IFLA_ADDRESS, b.MAC)), append(what, "set MAC "+b.MAC.String())
	}
	if b.MTU != 0 && has.MTU != b.MTU {
		parts, what = append(parts, u32Attr(unix.IFLA_MTU, uint32(b.MTU))), append(what, fmt.Sprintf("set MTU %d", b.MTU))
	}
	if b.unsigned(has.Alias) {
		alias := ofCluster + b.Cluster
		parts, what = append(parts, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(alias))), append(what, fmt.Sprintf("set alias %q", alias))
	}
	if len(what) == 0 {
		return nil
	}
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	return wrap(strings.Join(what, ", "), c.batch(request(unix.RTM_NEWLINK, 0, parts...))[0])
}

// unsigned reports whether a bridge of that alias is to say whose it is.
func (b Bridge) unsigned(has string) bool {
	return b.Cluster != "" && has != ofCluster+b.Cluster && (has == "" || strings.HasPrefix(has, ofCluster))
}

func (b Bridge) findOrMake() (netlink.Link, error) {
	l, err := linkByName(b.Name)
	if errors.Is(err, ErrNotFound) {
		// Nobody queries for multicast groups here, so snooping would only cost.
		snoop := false
		made := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snoop}
		made.Name, made.HardwareAddr = b.Name, b.MAC
		if err := netlink.LinkAdd(made); err != nil && !errors.Is(err, unix.EEXIST) { // EEXIST: another plugin was faster
			return nil, fmt.Errorf("create: %w", err)
		}
		l, err = linkByName(b.Name)
	}
	if err != nil {
		return nil, err
	}
	if l.Type() != "bridge" {
		return nil, fmt.Errorf("it is a %q: %w", l.Type(), ErrWrongKind)
	}
	return l, nil
}

func (b Bridge) addMissing(l netlink.Link) error {
	have, err := addrsOf(l)
	if err != nil {
		return err
	}
	for _, p := range b.Addrs {
		if have[p] {
			continue
		}
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	return nil
}

// quietIPv6 keeps a device of the host's from taking part in autoconfiguration,
// and spares its addresses the second that duplicate detection takes.
func quietIPv6(name string) error {
	for _, s := range [][2]string{{"accept_ra", "0"}, {"autoconf", "0"}, {"accept_dad", "0"}} {
		err := Sysctl("net/ipv6/conf/"+name+"/"+s[0], s[1])
		if err != nil && !errors.Is(err, unix.ENOENT) { // a kernel without IPv6 has nothing to quieten
			return err
		}
	}
	return nil
}

// BridgeAddrs lists the addresses of global scope on a device, IPv4 and IPv6. ErrNotFound.
func BridgeAddrs(name string) ([]netip.Prefix, error) {
	l, err := linkByName(name)
	if err != nil {
		return nil, fmt.Errorf("addresses of %q: %w", name, err)
	}
	addrs, err := globalAddrs(l)
	return addrs, wrap(fmt.Sprintf("addresses of %q", name), err)
}

// RemoveAddr takes an address off a device; nil when neither is there.
func RemoveAddr(name string, p netip.Prefix) error {
	l, err := linkByName(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = netlink.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)})
	}
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return wrap(fmt.Sprintf("remove address %s of %q", p, name), err)
}
