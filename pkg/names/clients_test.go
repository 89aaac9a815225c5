package names

import (
	"net/netip"
	"slices"
	"testing"
)

func TestAClientHasItsOwnServersForAsLongAsItHasItsAddress(t *testing.T) {
	a4, a6, b := netip.MustParseAddr("10.32.0.5"), netip.MustParseAddr("fd00::5"), netip.MustParseAddr("10.32.0.6")
	var c Clients
	is := func(what string, want map[netip.Addr][]string) {
		t.Helper()
		for addr, servers := range want {
			if got := c.Of(addr); !slices.Equal(got, servers) {
				t.Errorf("%s: %v has %v, want %v", what, addr, got, servers)
			}
		}
	}
	c.Drop("a") // there is none
	is("empty", map[netip.Addr][]string{a4: nil})
	c.Set("a", []netip.Addr{a4, a6}, []string{"9.9.9.9:53", "1.1.1.1:53"})
	own := []string{"9.9.9.9:53", "1.1.1.1:53"}
	is("set", map[netip.Addr][]string{a4: own, netip.AddrFrom16(a4.As16()): own, a6: own, b: nil})
	c.Set("a", []netip.Addr{a4, b}, []string{"8.8.8.8:53"})
	is("another", map[netip.Addr][]string{a4: {"8.8.8.8:53"}, a6: nil, b: {"8.8.8.8:53"}})
	c.Set("b", []netip.Addr{a4}, []string{"7.7.7.7:53"}) // the address is another container's now
	c.Drop("a")
	is("late end", map[netip.Addr][]string{a4: {"7.7.7.7:53"}, b: nil})
	c.Set("b", []netip.Addr{a4}, nil)
	is("none", map[netip.Addr][]string{a4: nil})
	if len(c.owners)+len(c.addrs) != 0 {
		t.Errorf("left: %v, %v", c.owners, c.addrs)
	}
}
