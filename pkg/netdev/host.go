package netdev

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HostRoute is a destination that the host reaches by one of its devices.
type HostRoute struct {
	Dst    netip.Prefix
	Device string
}

// HostRoutes lists the host's unicast routes of every table, connected networks
// included, but no default routes, no link-local ones and no single addresses of
// the host's own: what a network's range must not overlap.
func HostRoutes() ([]HostRoute, error) {
	list, err := routeList(&netlink.Route{Table: unix.RT_TABLE_UNSPEC, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	names := map[int]string{}
	var routes []HostRoute
	for _, r := range list {
		dst := destination(r)
		if dst.Bits() == 0 || dst.Addr().IsLinkLocalUnicast() || dst.Addr().IsMulticast() {
			continue
		}
		for _, index := range routeDevices(r) {
			name, known := names[index]
			if !known {
				name = c.name(index)
				names[index] = name
			}
			routes = append(routes, HostRoute{dst, name})
		}
	}
	return routes, nil
}

func routeDevices(r netlink.Route) []int {
	if len(r.MultiPath) == 0 {
		return []int{r.LinkIndex}
	}
	var devices []int
	for _, hop := range r.MultiPath {
		devices = append(devices, hop.LinkIndex)
	}
	return devices
}

// UnderlayMTU is the MTU of the device that has this address of the host. ErrNotFound.
func UnderlayMTU(local netip.Addr) (int, error) {
	addrs, err := addrList(nil)
	if err != nil {
		return 0, fmt.Errorf("MTU under %s: %w", local, err)
	}
	for _, a := range addrs {
		if a.prefix.Addr() != local {
			continue
		}
		l, err := clean(func() (netlink.Link, error) { return netlink.LinkByIndex(a.index) })
		if err != nil {
			return 0, fmt.Errorf("MTU under %s: %w", local, err)
		}
		return l.Attrs().MTU, nil
	}
	return 0, fmt.Errorf("MTU under %s: address: %w", local, ErrNotFound)
}

// LocalAddrFor is the address that this host would send from to dst.
// ErrNotFound when it has no route there.
func LocalAddrFor(dst netip.Addr) (netip.Addr, error) {
	routes, err := netlink.RouteGet(dst.AsSlice())
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		err = fmt.Errorf("route: %w", ErrNotFound)
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("local address for %s: %w", dst, err)
	}
	for _, r := range routes {
		if a := toAddr(r.Src); a.IsValid() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("local address for %s: %w", dst, ErrNotFound)
}

// DefaultSource is the host's address towards the world: the source of the
// default route of the lowest metric, IPv4 if there is one, else IPv6.
// ErrNotFound without a default route.
func DefaultSource() (netip.Addr, error) {
	list, err := routeList(&netlink.Route{Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("default source: %w", err)
	}
	for _, v4 := range []bool{true, false} {
		best := -1
		for i, r := range list {
			if d := destination(r); d.Bits() == 0 && d.Addr().Is4() == v4 && (best < 0 || r.Priority < list[best].Priority) {
				best = i
			}
		}
		if best < 0 {
			continue
		}
		if a, err := sourceOf(list[best]); err == nil {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("default source: default route with an address: %w", ErrNotFound)
}

// sourceOf is the source that the route names, else the first global address of its device.
func sourceOf(r netlink.Route) (netip.Addr, error) {
	if a := toAddr(r.Src); a.IsValid() {
		return a, nil
	}
	l, err := clean(func() (netlink.Link, error) { return netlink.LinkByIndex(routeDevices(r)[0]) })
	if err != nil {
		return netip.Addr{}, err
	}
	addrs, err := globalAddrs(l)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, p := range addrs {
		if p.Addr().Is4() == destination(r).Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, ErrNotFound
}
