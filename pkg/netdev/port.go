package netdev

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// brport is a flag of a bridge port and the value that it shall have.
type brport struct {
	kind int // IFLA_BRPORT_*
	on   bool
}

// lockedPort drops every frame whose source is not the port's own static entry.
// The kernel then has nothing to learn there and nobody unknown to look for.
var lockedPort = []brport{
	{nl.IFLA_BRPORT_LEARNING, false},
	{nl.IFLA_BRPORT_LOCKED, true},
	{nl.IFLA_BRPORT_UNICAST_FLOOD, false},
}

// tunnelPort leaves the forwarding table to SyncForwarding and has the bridge
// answer ARP and neighbour solicitations from the neighbours written there.
// Unknown unicast is flooded: an endpoint is reached before its record arrives.
var tunnelPort = []brport{
	{nl.IFLA_BRPORT_LEARNING, false},
	{nl.IFLA_BRPORT_NEIGH_SUPPRESS, true},
	{nl.IFLA_BRPORT_UNICAST_FLOOD, true},
}

// portAttr is the part of a link message that sets flags of a bridge port.
func portAttr(flags []brport) *nl.RtAttr {
	link := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	link.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	data := link.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil)
	for _, f := range flags {
		data.AddRtAttr(f.kind, boolAttr(f.on))
	}
	return link
}

// noLinkLocal is the part of a link message that keeps the kernel from giving a
// port an IPv6 address when its carrier comes. The sysctl disable_ipv6 does the
// same at ten times the cost.
func noLinkLocal() *nl.RtAttr {
	const genMode, none = 8, 1 // IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE
	families := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	families.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(genMode, []byte{none})
	return families
}

// staticEntry ties a MAC to a bridge port, for good: sticky, so that not even a
// port which learns can take it over. flags says whether it may replace another.
func staticEntry(port int, mac []byte, flags int) *nl.NetlinkRequest {
	return request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|flags,
		&netlink.Ndmsg{
			Family: unix.AF_BRIDGE,
			Index:  uint32(port),
			State:  netlink.NUD_NOARP,
			Flags:  netlink.NTF_MASTER | netlink.NTF_STICKY,
		},
		nl.NewRtAttr(netlink.NDA_LLADDR, mac),
	)
}

// tie gives a MAC to a port of the bridge. What was only learned, or is said to
// be on another host, gives way to the news; another attachment's MAC, or the
// host's own, does not: ErrExists.
func (c *conn) tie(bridge, port int, hw net.HardwareAddr) error {
	err := c.batch(staticEntry(port, hw, unix.NLM_F_EXCL))[0]
	if errors.Is(err, unix.EEXIST) {
		err = c.retie(bridge, port, hw)
	}
	return wrap(fmt.Sprintf("tie MAC %s to port", hw), err)
}

func (c *conn) retie(bridge, port int, hw net.HardwareAddr) error {
	b, err := c.get(getEntry(bridge, mac(hw)))
	if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: forgotten meanwhile
		return err
	}
	e, ok := parseEntry(b)
	switch {
	case ok && e.index == port && e.static() && e.flags&netlink.NTF_STICKY != 0:
		return nil
	case ok && e.index != port && e.static():
		if err := c.isTunnel(e); err != nil {
			return err
		}
	}
	return c.batch(staticEntry(port, hw, unix.NLM_F_REPLACE))[0]
}

// isTunnel checks that a static entry speaks of another host.
func (c *conn) isTunnel(e entry) error {
	l, err := c.linkAt(e.index)
	if err == nil && (l.kind != "vxlan" || e.state&netlink.NUD_PERMANENT != 0) {
		err = fmt.Errorf("%q has it: %w", l.name, ErrExists)
	}
	return err
}

// EnsurePort puts the host's end of an attachment back to where Attach had put
// it: up, in the bridge, and with lock guarded and tied to its MAC. For a bridge
// that was deleted under it, or a port that somebody took out. What fits already
// is not touched. ErrNotFound for port or bridge.
func EnsurePort(host, bridge string, hw net.HardwareAddr, lock bool) error {
	return wrap(fmt.Sprintf("ensure port %q of bridge %q", host, bridge), ensurePort(host, bridge, hw, lock))
}

func ensurePort(host, bridge string, hw net.HardwareAddr, lock bool) error {
	if err := checkMAC(hw); err != nil {
		return err
	}
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	l, err := c.link(host)
	if err != nil {
		return err
	}
	master, err := c.index(bridge)
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if l.master != master || !l.up {
		if err := c.batch(request(unix.RTM_NEWLINK, 0, infoUp(l.index), u32Attr(unix.IFLA_MASTER, uint32(master))))[0]; err != nil {
			return fmt.Errorf("set bridge: %w", err)
		}
		l.port = nil // its flags are of the bridge that it left
	}
	if !lock {
		return nil
	}
	if !l.has(lockedPort) {
		if err := c.batch(request(unix.RTM_NEWLINK, 0, info(l.index), portAttr(lockedPort)))[0]; err != nil {
			return fmt.Errorf("set port flags: %w", err)
		}
	}
	return c.tie(master, l.index, hw)
}
