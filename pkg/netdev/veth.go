package netdev

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// Veth describes an attachment's pair of interfaces: one in the bridge, one in the container.
type Veth struct {
	Host   string // name of the host's end
	Bridge string // bridge that it becomes a port of
	MTU    int    // of both ends; 0: the kernel's choice
	Alias  string // of the host's end; see package attachment

	HostMAC net.HardwareAddr // of the host's end; nil: random

	NS     *NS              // the container's namespace, kept open by the caller
	IfName string           // name of the container's end
	MAC    net.HardwareAddr // of the container's end
	Addrs  []netip.Prefix   // of the container's end, with the length of their subnet
	Routes []Route          // by way of the container's end

	Hairpin bool // a frame may leave by the port it came from
	Lock    bool // only MAC may speak at the port
}

// Attach makes the pair and sets it up. Name, MAC and bridge are there from the
// first moment and the alias follows in the same system call, so a process that
// is killed leaves no interface that nobody can account for. The container's
// end comes up last, when the port is guarded.
//
// IPv6 in the container: no router advertisements, no autoconfiguration, no
// duplicate detection (addresses are unique by allocation); without an IPv6
// address it is off on this interface. The host's end has no IPv6 address, not
// even a link-local one: the bridge takes every frame there.
//
// A route that the container has already is left as it is: the first network wins.
//
// On an error everything that was made is gone again. ErrExists: one of the two
// names is taken, or (with Lock) the MAC, and what has it was not touched;
// ErrNotFound: no such bridge; ErrBridgeFull. Two calls for one Host at a time are the caller's to prevent: by Hold.
func Attach(v Veth) error {
	if err := v.attach(); err != nil {
		return fmt.Errorf("attach %q to bridge %q as %q: %w", v.IfName, v.Bridge, v.Host, err)
	}
	return nil
}

func (v Veth) attach() error {
	if err := v.check(); err != nil {
		return err
	}
	inside, err := v.NS.conn()
	if err != nil {
		return err
	}
	host, err := dial()
	if err != nil {
		return err
	}
	defer host.close()

	bridge, err := host.index(v.Bridge)
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := v.namesFree(host, inside); err != nil {
		return err
	}
	if err := v.create(host, bridge); err != nil {
		return err
	}
	port, err := host.index(v.Host)
	if err != nil {
		return fmt.Errorf("made, and gone: %w", err)
	}
	if err := v.setUp(host, inside, bridge, port); err != nil {
		return errors.Join(err, wrap("undo", deleteIndex(host, port)))
	}
	return nil
}

// check refuses what the kernel would refuse only halfway.
func (v Veth) check() error {
	if err := errors.Join(attachment.ValidIfName(v.Host), attachment.ValidIfName(v.IfName), attachment.ValidIfName(v.Bridge)); err != nil {
		return err
	}
	if err := checkMAC(v.MAC); err != nil {
		return err
	}
	if len(v.Alias) == 0 || len(v.Alias) > attachment.MaxAlias {
		return fmt.Errorf("alias of %d bytes: want 1 to %d", len(v.Alias), attachment.MaxAlias)
	}
	for _, a := range v.Addrs {
		if !a.IsValid() {
			return errors.New("an address is not valid")
		}
	}
	for _, r := range v.Routes {
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

func checkMAC(mac net.HardwareAddr) error {
	if len(mac) != 6 || mac[0]&1 != 0 || [6]byte(mac) == [6]byte{} {
		return fmt.Errorf("MAC %q: want six bytes of a single station", mac)
	}
	return nil
}

// namesFree matters for more than a good message: were the host's name taken, the
// alias, which is set by name, would go to that other link. Hold keeps whoever
// makes such links from taking it after this look.
func (v Veth) namesFree(host, inside *conn) error {
	for _, n := range []struct {
		c    *conn
		name string
	}{{host, v.Host}, {inside, v.IfName}} {
		switch _, err := n.c.index(n.name); {
		case err == nil:
			return fmt.Errorf("%q: %w", n.name, ErrExists)
		case !errors.Is(err, ErrNotFound):
			return err
		}
	}
	return nil
}

// create makes the pair, in the bridge, named and with its alias, in one sendmsg.
func (v Veth) create(host *conn, bridge int) error {
	errs := host.batch(v.newLink(bridge), v.markPort())
	switch made, marked := errs[0], errs[1]; {
	case errors.Is(made, unix.EXFULL):
		return ErrBridgeFull
	case errors.Is(made, unix.EEXIST):
		return fmt.Errorf("%w (%w)", ErrExists, made)
	case made != nil:
		return fmt.Errorf("create: %w", made)
	case marked != nil:
		port, err := host.index(v.Host)
		if err == nil {
			err = deleteIndex(host, port)
		}
		return errors.Join(fmt.Errorf("set alias: %w", marked), wrap("undo", err))
	}
	return nil
}

func (v Veth) newLink(bridge int) *nl.NetlinkRequest {
	peer := nl.NewRtAttr(nl.VETH_INFO_PEER, info(0).Serialize()) // up is refused here: the pair is not joined yet
	peer.AddChild(nameAttr(unix.IFLA_IFNAME, v.IfName))
	peer.AddRtAttr(unix.IFLA_ADDRESS, v.MAC)
	peer.AddChild(u32Attr(unix.IFLA_NET_NS_FD, uint32(v.NS.fd)))
	parts := []nl.NetlinkRequestData{infoUp(0),
		nameAttr(unix.IFLA_IFNAME, v.Host),
		nl.NewRtAttr(unix.IFLA_ADDRESS, v.hostMAC()),
		u32Attr(unix.IFLA_MASTER, uint32(bridge)),
	}
	if v.MTU != 0 {
		parts = append(parts, u32Attr(unix.IFLA_MTU, uint32(v.MTU)))
		peer.AddChild(u32Attr(unix.IFLA_MTU, uint32(v.MTU)))
	}
	link := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	link.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	link.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddChild(peer)
	return request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append(parts, link)...)
}

// markPort sets alias and port flags by name. It is a change, never a creation:
// with no such link it fails. The kernel takes an alias only this way.
func (v Veth) markPort() *nl.NetlinkRequest {
	flags := []brport{{nl.IFLA_BRPORT_MODE, v.Hairpin}}
	if v.Lock {
		flags = append(flags, lockedPort...)
	}
	parts := []nl.NetlinkRequestData{info(0),
		nameAttr(unix.IFLA_IFNAME, v.Host),
		nl.NewRtAttr(unix.IFLA_IFALIAS, nl.NonZeroTerminated(v.Alias)),
		portAttr(flags),
	}
	if v.NS.conf6 != noIPv6 {
		parts = append(parts, noLinkLocal())
	}
	return request(unix.RTM_NEWLINK, 0, parts...)
}

func (v Veth) hostMAC() []byte {
	if v.HostMAC != nil {
		return v.HostMAC
	}
	return portMAC()
}

// portMAC is random and set explicitly: the kernel's own random choice invites
// udev to replace it, each time with a burst of events.
func portMAC() []byte {
	r := rand.Uint64()
	return []byte{0xfe, byte(r >> 8), byte(r >> 16), byte(r >> 24), byte(r >> 32), byte(r >> 40)}
}

// setUp does the rest, on an existing pair.
func (v Veth) setUp(host, inside *conn, bridge, port int) error {
	if v.Lock {
		if err := host.tie(bridge, port, v.MAC); err != nil {
			return err
		}
	}
	if err := v.setIPv6(); err != nil {
		return err
	}
	index, err := inside.index(v.IfName)
	if err != nil {
		return fmt.Errorf("container's end: %w", err)
	}
	return v.configure(inside, index)
}

// setIPv6 decides how the container's end speaks IPv6, before it comes up.
func (v Veth) setIPv6() error {
	wanted := v.wantsIPv6()
	if v.NS.conf6 == noIPv6 {
		if wanted {
			return errors.New("IPv6 address asked for, and the kernel has no IPv6")
		}
		return nil
	}
	values := [][2]string{{"disable_ipv6", "1"}}
	if wanted {
		values = [][2]string{{"accept_ra", "0"}, {"autoconf", "0"}, {"accept_dad", "0"}, {"disable_ipv6", "0"}}
	}
	for _, s := range values {
		if err := writeSysctl(v.NS.conf6, v.IfName+"/"+s[0], s[1]); err != nil {
			return fmt.Errorf("container's sysctl net/ipv6/conf/%s/%s: %w", v.IfName, s[0], err)
		}
	}
	return nil
}

func (v Veth) wantsIPv6() bool {
	for _, a := range v.Addrs {
		if a.Addr().Is6() {
			return true
		}
	}
	return false
}

const loopback = 1 // the kernel makes it first, in every namespace

// configure brings the container's end up with its addresses and routes.
func (v Veth) configure(inside *conn, index int) error {
	ms := []*nl.NetlinkRequest{
		request(unix.RTM_NEWLINK, 0, infoUp(loopback)),
		request(unix.RTM_NEWLINK, 0, infoUp(index)),
	}
	what := []string{"set loopback up", "set container's end up"}
	for _, a := range v.Addrs {
		ms = append(ms, newAddr(index, a))
		what = append(what, "add address "+a.String())
	}
	routes := len(ms)
	for _, r := range v.Routes {
		ms = append(ms, newRoute(index, r))
		what = append(what, "add route "+r.String())
	}
	for i, err := range inside.batch(ms...) {
		if err != nil && (i < routes || !errors.Is(err, unix.EEXIST)) {
			return fmt.Errorf("%s: %w", what[i], err)
		}
	}
	return nil
}

func newAddr(index int, p netip.Prefix) *nl.NetlinkRequest {
	family, ip := unix.AF_INET6, p.Addr().AsSlice()
	m := nl.NewIfAddrmsg(family)
	m.Flags = unix.IFA_F_NODAD
	if p.Addr().Is4() {
		m = nl.NewIfAddrmsg(unix.AF_INET)
	}
	m.Prefixlen, m.Index = uint8(p.Bits()), uint32(index)
	parts := []nl.NetlinkRequestData{m, nl.NewRtAttr(unix.IFA_LOCAL, ip), nl.NewRtAttr(unix.IFA_ADDRESS, ip)}
	if p.Addr().Is4() && p.Bits() < 31 {
		parts = append(parts, nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(p)))
	}
	return request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...)
}

func broadcast(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return b
}

func deleteIndex(c *conn, index int) error {
	err := c.batch(request(unix.RTM_DELLINK, 0, info(index)))[0]
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
