package netdev

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// address is one of a device's, as the kernel tells it.
type address struct {
	index  int // of the device
	scope  uint8
	prefix netip.Prefix
}

func parseAddress(b []byte) (a address, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return address{}, false
	}
	a.scope, a.index = b[3], int(binary.NativeEndian.Uint32(b[4:]))
	var own, local netip.Addr
	for x := range attrs(b[unix.SizeofIfAddrmsg:]) {
		switch x.kind {
		case unix.IFA_ADDRESS:
			own, _ = netip.AddrFromSlice(x.data)
		case unix.IFA_LOCAL: // where there is one, the other is the peer's, or the same
			local, _ = netip.AddrFromSlice(x.data)
		}
	}
	if local.IsValid() {
		own = local
	}
	a.prefix = netip.PrefixFrom(own, int(b[1]))
	return a, a.prefix.IsValid()
}

// addrList lists the addresses of one device, nil for all, in the kernel's order: IPv4
// first. The kernel is asked for that device's alone: a host may have hundreds.
func addrList(l netlink.Link) ([]address, error) {
	c, err := dial()
	if err != nil {
		return nil, wrap("list addresses", err)
	}
	defer c.close()
	var all []address
	err = c.dump(addressesOf(l), func() { all = all[:0] }, func(b []byte) {
		if a, ok := parseAddress(b); ok && (l == nil || a.index == l.Attrs().Index) {
			all = append(all, a)
		}
	})
	return all, wrap("list addresses", err)
}

// addressesOf asks for the addresses of one device, nil for all.
func addressesOf(l netlink.Link) *nl.NetlinkRequest {
	m := nl.NewIfAddrmsg(unix.AF_UNSPEC)
	if l != nil {
		m.Index = uint32(l.Attrs().Index)
	}
	return request(unix.RTM_GETADDR, 0, m)
}
