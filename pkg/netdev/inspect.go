package netdev

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Iface is the container's end of an attachment as the kernel has it.
type Iface struct {
	MAC    net.HardwareAddr
	MTU    int
	Up     bool
	Addrs  []netip.Prefix // of global scope, IPv4 first
	Routes []Route        // by way of it, of every table, without those the kernel made itself
}

// Inspect reads an interface in a container's namespace. ErrNotFound when there is none of that name.
func Inspect(ns *NS, ifname string) (Iface, error) {
	var i Iface
	err := ns.do(func() error {
		l, err := linkByName(ifname)
		if err != nil {
			return err
		}
		i = Iface{MAC: l.Attrs().HardwareAddr, MTU: l.Attrs().MTU, Up: l.Attrs().Flags&net.FlagUp != 0}
		if i.Addrs, err = globalAddrs(l); err != nil {
			return err
		}
		i.Routes, err = routesBy(l)
		return err
	})
	return i, wrap(fmt.Sprintf("inspect %q in %q", ifname, ns.path), err)
}

func routesBy(l netlink.Link) ([]Route, error) {
	list, err := routeList(&netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	var routes []Route
	for _, r := range list {
		if r.Protocol != unix.RTPROT_KERNEL {
			routes = append(routes, toRoute(r))
		}
	}
	return routes, err
}

func toRoute(r netlink.Route) Route {
	scope := int(r.Scope)
	out := Route{Dst: destination(r), GW: toAddr(r.Gw), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Scope: &scope}
	if r.Table != unix.RT_TABLE_MAIN {
		out.Table = r.Table
	}
	return out
}

// destination spells out the default route, for which the library may say nil.
func destination(r netlink.Route) netip.Prefix {
	if r.Dst != nil {
		return toPrefix(r.Dst)
	}
	if r.Family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func routeList(filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	list, err := clean(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, mask)
	})
	return list, wrap("list routes", err)
}
