package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The library speaks net.IP and its own errors; from here on it is netip and ours.

// clean runs a dump until it was not disturbed.
func clean[T any](dump func() (T, error)) (T, error) {
	var (
		v   T
		err error
	)
	for range dumpAttempts {
		if v, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
	}
	return v, fmt.Errorf("%d times: %w", dumpAttempts, err)
}

func linkByName(name string) (netlink.Link, error) {
	l, err := clean(func() (netlink.Link, error) { return netlink.LinkByName(name) })
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return nil, ErrNotFound
	}
	return l, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// toPrefix gives the zero Prefix, which is not valid, for nil.
func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(toAddr(n.IP), bits)
}

// addrsOf is the set of all addresses of a link.
func addrsOf(l netlink.Link) (map[netip.Prefix]bool, error) {
	list, err := addrList(l)
	have := make(map[netip.Prefix]bool, len(list))
	for _, a := range list {
		have[a.prefix] = true
	}
	return have, err
}

// globalAddrs are those that another host may use to reach us, in the kernel's order, IPv4 first.
func globalAddrs(l netlink.Link) ([]netip.Prefix, error) {
	list, err := addrList(l)
	var addrs []netip.Prefix
	for _, a := range list {
		if a.scope == unix.RT_SCOPE_UNIVERSE {
			addrs = append(addrs, a.prefix)
		}
	}
	return addrs, err
}
