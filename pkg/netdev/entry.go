package netdev

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// protocol marks the neighbours that are ours; the kernel keeps the number and gives it no meaning.
const protocol = 'w' + 128

// entry is a neighbour or a forwarding entry as the kernel tells it.
type entry struct {
	index    int // device, or bridge port
	state    uint16
	flags    uint8
	mac      mac
	addr     netip.Addr // of the neighbour; in a VXLAN device: the host
	master   int        // bridge of the port, where the kernel says it
	protocol uint8      // who wrote a neighbour; 0: nobody said
}

// static reports whether the bridge does not forget the entry by itself: written, or its own.
func (e entry) static() bool { return e.state&(netlink.NUD_NOARP|netlink.NUD_PERMANENT) != 0 }

func parseEntry(b []byte) (e entry, ok bool) {
	const header = 12
	if len(b) < header {
		return entry{}, false
	}
	e.index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	e.state = binary.NativeEndian.Uint16(b[8:])
	e.flags = b[10]
	for a := range attrs(b[header:]) {
		switch a.kind {
		case netlink.NDA_LLADDR:
			if len(a.data) == len(e.mac) {
				e.mac = mac(a.data)
			}
		case netlink.NDA_DST:
			e.addr, _ = netip.AddrFromSlice(a.data)
		case netlink.NDA_PROTOCOL:
			if len(a.data) == 1 {
				e.protocol = a.data[0]
			}
		case netlink.NDA_MASTER:
			e.master = int(a.u32())
		}
	}
	return e, true
}

// readTables reads what the kernel has, each table from one undisturbed dump.
func (c *conn) readTables(d devices) (tables, error) {
	var t tables
	forward := request(unix.RTM_GETNEIGH, 0, &netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(d.vxlan)})
	err := c.dump(forward, func() { t = newTables() }, func(b []byte) {
		if e, ok := parseEntry(b); ok && e.index == d.vxlan {
			t.addForward(e)
		}
	})
	if err != nil {
		return t, wrap("list forwarding entries", err)
	}
	neighbours := request(unix.RTM_GETNEIGH, 0, &netlink.Ndmsg{Family: unix.AF_UNSPEC}, u32Attr(netlink.NDA_IFINDEX, uint32(d.bridge)))
	err = c.dump(neighbours, func() { clear(t.neigh) }, func(b []byte) {
		if e, ok := parseEntry(b); ok && e.index == d.bridge {
			t.addNeighbour(e)
		}
	})
	return t, wrap("list neighbours", err)
}

func (t tables) addForward(e entry) {
	switch {
	case e.flags&netlink.NTF_SELF != 0 && e.mac == mac{}:
		t.flood[e.addr] = true
	case e.flags&netlink.NTF_SELF != 0:
		t.tunnel[e.mac] = e.addr
	case e.state&netlink.NUD_PERMANENT == 0: // that one is the device's own MAC
		t.port[e.mac] = e.state&netlink.NUD_NOARP != 0
	}
}

func (t tables) addNeighbour(e entry) {
	if e.protocol == protocol && e.state&netlink.NUD_PERMANENT != 0 {
		t.neigh[e.addr] = e.mac
	}
}

// message builds the request for one change. A MAC has one host, so that entry
// is replaced; the zero MAC has many, so each is appended. A bridge entry never
// replaces: that it exists elsewhere must be looked at first.
func (d devices) message(c change) *nl.NetlinkRequest {
	typ, create := unix.RTM_NEWNEIGH, unix.NLM_F_CREATE
	if c.remove {
		typ, create = unix.RTM_DELNEIGH, 0
	}
	lladdr := nl.NewRtAttr(netlink.NDA_LLADDR, c.mac[:])
	switch c.where {
	case tunnel, flood:
		if c.where == flood && !c.remove {
			create |= unix.NLM_F_APPEND
		} else if !c.remove {
			create |= unix.NLM_F_REPLACE
		}
		return request(typ, create, d.header(c), lladdr, nl.NewRtAttr(netlink.NDA_DST, c.addr.AsSlice()))
	case port:
		if c.remove {
			return request(typ, 0, d.header(c), lladdr)
		}
		return staticEntry(d.vxlan, c.mac[:], unix.NLM_F_EXCL)
	}
	if !c.remove {
		create |= unix.NLM_F_REPLACE
	}
	return request(typ, create, d.header(c), lladdr,
		nl.NewRtAttr(netlink.NDA_DST, c.addr.AsSlice()),
		nl.NewRtAttr(netlink.NDA_PROTOCOL, []byte{protocol}))
}

func (d devices) header(c change) *netlink.Ndmsg {
	h := &netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(d.vxlan)}
	switch c.where {
	case tunnel, flood:
		h.State, h.Flags = netlink.NUD_NOARP|netlink.NUD_PERMANENT, netlink.NTF_SELF
	case port:
		h.State, h.Flags = netlink.NUD_NOARP, netlink.NTF_MASTER
	case neigh:
		h.Family, h.Index, h.State = unix.AF_INET6, uint32(d.bridge), netlink.NUD_PERMANENT
		if c.addr.Is4() {
			h.Family = unix.AF_INET
		}
	}
	return h
}

// getEntry asks the bridge where it has a MAC.
func getEntry(bridge int, m mac) *nl.NetlinkRequest {
	return request(unix.RTM_GETNEIGH, 0,
		&netlink.Ndmsg{Family: unix.AF_BRIDGE},
		nl.NewRtAttr(netlink.NDA_LLADDR, m[:]),
		u32Attr(netlink.NDA_MASTER, uint32(bridge)))
}
