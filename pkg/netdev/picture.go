package netdev

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Picture is what the kernel has of bridges and tunnels, all of them: one dump of links,
// one of addresses, one of forwarding entries and one of neighbours, however many they are.
type Picture struct {
	devices map[string]depicted
	addrs   map[int]map[netip.Prefix]bool // by device
	tables  map[int]tables                // by device: a bridge has neighbours, a tunnel the rest
}

// depicted is a bridge or tunnel.
type depicted struct {
	netlink.Link
	link         // what the library does not read; port is a copy
	inet6 []byte // its settings of IPv6, 32 bits each, by number; none without IPv6
}

// Look reads it.
func Look() (*Picture, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	p := &Picture{tables: map[int]tables{}}
	if err := p.readDevices(c); err != nil {
		return nil, wrap("list links", err)
	}
	for _, d := range p.devices {
		p.tables[d.index] = newTables()
	}
	all := request(unix.RTM_GETADDR, 0, nl.NewIfAddrmsg(unix.AF_UNSPEC))
	err = c.dump(all, func() { p.addrs = map[int]map[netip.Prefix]bool{} }, func(b []byte) {
		a, ok := parseAddress(b)
		if _, device := p.tables[a.index]; !ok || !device {
			return
		}
		if p.addrs[a.index] == nil {
			p.addrs[a.index] = map[netip.Prefix]bool{}
		}
		p.addrs[a.index][a.prefix] = true
	})
	if err != nil {
		return nil, wrap("list addresses", err)
	}
	err = p.readEntries(c, unix.AF_BRIDGE, func(t tables) { clear(t.tunnel); clear(t.flood); clear(t.port) }, tables.addForward)
	if err != nil {
		return nil, wrap("list forwarding entries", err)
	}
	err = p.readEntries(c, unix.AF_UNSPEC, func(t tables) { clear(t.neigh) }, tables.addNeighbour)
	return p, wrap("list neighbours", err)
}

func (p *Picture) readDevices(c *conn) error {
	m := request(unix.RTM_GETLINK, 0, info(0), u32Attr(unix.IFLA_EXT_MASK, skipStats))
	return c.dump(m, func() { p.devices = map[string]depicted{} }, func(b []byte) {
		l, ok := parseLink(b)
		if !ok || l.kind != "bridge" && l.kind != "vxlan" {
			return
		}
		l.port = bytes.Clone(l.port) // the message does not last
		b = bytes.Clone(b)
		if whole, err := netlink.LinkDeserialize(nil, b); err == nil {
			p.devices[l.name] = depicted{whole, l, inet6Of(b)}
		}
	})
}

func (p *Picture) readEntries(c *conn, family uint8, reset func(tables), add func(tables, entry)) error {
	again := func() {
		for _, t := range p.tables {
			reset(t)
		}
	}
	return c.dump(request(unix.RTM_GETNEIGH, 0, &netlink.Ndmsg{Family: family}), again, func(b []byte) {
		if e, ok := parseEntry(b); ok {
			if t, device := p.tables[e.index]; device {
				add(t, e)
			}
		}
	})
}

// Bridge reports whether EnsureBridge would find nothing to do.
func (p *Picture) Bridge(b Bridge) bool {
	d, ok := p.devices[b.Name]
	if !ok || d.kind != "bridge" || !d.up || b.unsigned(d.alias) {
		return false
	}
	if b.MAC != nil && !bytes.Equal(d.Attrs().HardwareAddr, b.MAC) || b.MTU != 0 && d.Attrs().MTU != b.MTU {
		return false
	}
	for _, a := range b.Addrs {
		if !p.addrs[d.index][a] {
			return false
		}
	}
	return d.settingIs(acceptRA, 0) && d.settingIs(autoconf, 0) && d.settingIs(acceptDAD, 0)
}

// VXLAN reports whether EnsureVXLAN would find nothing to do.
func (p *Picture) VXLAN(v VXLAN) bool {
	bridge, ok := p.devices[v.Bridge]
	d := p.devices[v.Name]
	have, is := d.Link.(*netlink.Vxlan)
	return ok && is && v.fits(have) && d.up && d.master == bridge.index && d.has(tunnelPort) &&
		(v.MTU == 0 || have.MTU == v.MTU) && d.settingIs(disableIPv6, 1)
}

// Forwarding reports whether SyncForwarding would find nothing to do. Where it leaves
// something as it is, because that is local, the answer is no all the same.
func (p *Picture) Forwarding(bridge, vxlan string, want Forwarding) bool {
	b, v := p.devices[bridge], p.devices[vxlan]
	if b.Link == nil || v.Link == nil {
		return false
	}
	at := p.tables[v.index]
	wanted, err := tablesOf(want)
	return err == nil && len(tables{at.tunnel, at.flood, at.port, p.tables[b.index].neigh}.changesTo(wanted)) == 0
}

// setting is the number of one of IPv6's for a device, see ipv6.h (DEVCONF_).
type setting int

const (
	acceptRA    setting = 3
	autoconf    setting = 5
	disableIPv6 setting = 26
	acceptDAD   setting = 27
)

// settingIs reports whether a setting has a value, or the device is without IPv6.
func (d depicted) settingIs(s setting, value int32) bool {
	at := int(s) * 4
	return len(d.inet6) < at+4 || int32(binary.NativeEndian.Uint32(d.inet6[at:])) == value
}

// inet6Of finds the settings of IPv6 in a link message.
func inet6Of(b []byte) []byte {
	path := []uint16{unix.IFLA_AF_SPEC, unix.AF_INET6, unix.IFLA_INET6_CONF}
	for b = b[unix.SizeofIfInfomsg:]; len(path) > 0; path = path[1:] {
		b = part(b, path[0])
	}
	return b
}

// part is what an attribute of that kind has, nil without one.
func part(b []byte, kind uint16) []byte {
	for a := range attrs(b) {
		if a.kind == kind {
			return a.data
		}
	}
	return nil
}
