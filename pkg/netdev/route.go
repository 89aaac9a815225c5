package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Route is a route of a container. Zero values: GW none (the destination is on
// the link), Table main, the rest the kernel's default; Scope nil: link without
// a gateway, universe with one.
type Route struct {
	Dst      netip.Prefix
	GW       netip.Addr
	MTU      int
	AdvMSS   int
	Priority int
	Table    int
	Scope    *int
}

// String says it the way ip-route(8) does.
func (r Route) String() string {
	var b strings.Builder
	b.WriteString(r.Dst.String())
	if r.GW.IsValid() {
		fmt.Fprintf(&b, " via %s", r.GW)
	}
	if r.Table != 0 {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	return b.String()
}

func (r Route) check() error {
	switch {
	case !r.Dst.IsValid():
		return errors.New("a route has no valid destination")
	case r.GW.IsValid() && r.GW.Is4() != r.Dst.Addr().Is4():
		return fmt.Errorf("route %s: gateway is of the other family", r)
	case r.MTU < 0 || r.AdvMSS < 0 || r.Priority < 0 || r.Table < 0 || r.Scope != nil && (*r.Scope < 0 || *r.Scope > 255):
		return fmt.Errorf("route %s: a number is out of range", r)
	}
	return nil
}

func (r Route) scope() uint8 {
	switch {
	case r.Scope != nil:
		return uint8(*r.Scope)
	case r.GW.IsValid() || r.Dst.Addr().Is6():
		return unix.RT_SCOPE_UNIVERSE
	}
	return unix.RT_SCOPE_LINK
}

func newRoute(index int, r Route) *nl.NetlinkRequest {
	m := nl.NewRtMsg()
	m.Family = unix.AF_INET
	if r.Dst.Addr().Is6() {
		m.Family = unix.AF_INET6
	}
	m.Scope, m.Dst_len = r.scope(), uint8(r.Dst.Bits())
	parts := []nl.NetlinkRequestData{m, u32Attr(unix.RTA_OIF, uint32(index))}
	if r.Dst.Bits() > 0 {
		parts = append(parts, nl.NewRtAttr(unix.RTA_DST, r.Dst.Masked().Addr().AsSlice()))
	}
	if r.GW.IsValid() {
		parts = append(parts, nl.NewRtAttr(unix.RTA_GATEWAY, r.GW.AsSlice()))
	}
	if r.Priority != 0 {
		parts = append(parts, u32Attr(unix.RTA_PRIORITY, uint32(r.Priority)))
	}
	if r.Table != 0 {
		m.Table = unix.RT_TABLE_UNSPEC // the attribute, which is wider, decides
		parts = append(parts, u32Attr(unix.RTA_TABLE, uint32(r.Table)))
	}
	if r.MTU != 0 || r.AdvMSS != 0 {
		parts = append(parts, r.metrics())
	}
	return request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...)
}

func (r Route) metrics() *nl.RtAttr {
	a := nl.NewRtAttr(unix.RTA_METRICS, nil)
	if r.MTU != 0 {
		a.AddChild(u32Attr(unix.RTAX_MTU, uint32(r.MTU)))
	}
	if r.AdvMSS != 0 {
		a.AddChild(u32Attr(unix.RTAX_ADVMSS, uint32(r.AdvMSS)))
	}
	return a
}
