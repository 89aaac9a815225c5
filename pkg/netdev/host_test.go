package netdev

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func newHost(t *testing.T) space {
	h := newSpace(t)
	h.must("ip link add up0 type veth peer name up1")
	h.must("ip link set up0 mtu 1400 up")
	h.must("ip link set up1 up")
	h.must("ip addr add 192.0.2.10/24 dev up0")
	h.must("ip addr add 2001:db8::10/64 dev up0 nodad")
	return h
}

func TestHostRoutesAreWhatARangeMustNotOverlap(t *testing.T) {
	h := newHost(t)
	h.must("ip route add default via 192.0.2.1")
	h.must("ip route add 10.40.0.0/16 via 192.0.2.2")
	h.must("ip route add 10.41.0.0/16 via 192.0.2.2 table 77")
	h.must("ip route add 10.42.0.0/16 nexthop via 192.0.2.2 nexthop dev up1")
	h.must("ip route add unreachable 10.0.0.0/8")
	h.must("ip route add 169.254.0.0/16 dev up0")
	var got []HostRoute
	h.in(func() (err error) { got, err = HostRoutes(); return err })
	want := map[string]string{"192.0.2.0/24": "up0", "10.40.0.0/16": "up0", "10.41.0.0/16": "up0", "10.42.0.0/16": "up0,up1", "2001:db8::/64": "up0"}
	have := map[string]string{}
	for _, r := range got {
		have[r.Dst.String()] = strings.TrimPrefix(have[r.Dst.String()]+","+r.Device, ",")
	}
	for dst, dev := range want {
		if have[dst] != dev {
			t.Errorf("%s: got device %q, want %q", dst, have[dst], dev)
		}
		delete(have, dst)
	}
	if len(have) != 0 {
		t.Errorf("and besides: %v", have)
	}
}

func TestWhereTheHostSendsFrom(t *testing.T) {
	h := newHost(t)
	v4, v6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")
	source := func() (a netip.Addr, err error) {
		err = h.do(func() error { a, err = DefaultSource(); return err })
		return a, err
	}
	if _, err := source(); !errors.Is(err, ErrNotFound) {
		t.Errorf("without default route: %v", err)
	}
	h.must("ip route add default via 2001:db8::1")
	if a, err := source(); a != v6 {
		t.Errorf("IPv6 only: got %v, %v", a, err)
	}
	h.must("ip route add default via 192.0.2.1 metric 100")
	if a, err := source(); a != v4 {
		t.Errorf("both: got %v, %v", a, err)
	}
	h.must("ip addr add 192.0.2.99/24 dev up0")
	h.must("ip route add default via 192.0.2.2 metric 50 src 192.0.2.99")
	if a, err := source(); a != netip.MustParseAddr("192.0.2.99") {
		t.Errorf("better metric: got %v, %v", a, err)
	}
	for dst, want := range map[string]netip.Addr{"192.0.2.7": v4, "2001:db8::7": v6, "198.51.100.1": netip.MustParseAddr("192.0.2.99")} {
		h.in(func() error {
			a, err := LocalAddrFor(netip.MustParseAddr(dst))
			if a != want {
				t.Errorf("to %s: got %v, want %v", dst, a, want)
			}
			return err
		})
	}
	h.must("ip route flush default")
	if err := h.do(func() error { _, err := LocalAddrFor(netip.MustParseAddr("198.51.100.1")); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("no route: got %v", err)
	}
}

func TestMTUUnderALocalAddress(t *testing.T) {
	h := newHost(t)
	for _, a := range []string{"192.0.2.10", "2001:db8::10"} {
		h.in(func() error {
			mtu, err := UnderlayMTU(netip.MustParseAddr(a))
			if mtu != 1400 {
				t.Errorf("%s: got %d", a, mtu)
			}
			return err
		})
	}
	if err := h.do(func() error { _, err := UnderlayMTU(netip.MustParseAddr("192.0.2.11")); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestSysctlGoesNowhereElse(t *testing.T) {
	for _, path := range []string{
		"", "kernel/hostname", "net/ipv4/../../kernel/hostname", "net/ipv4/conf/../ip_forward", "net/ipv4/conf/a/b/forwarding",
		"net/ipv6/conf/../accept_ra", "net/ipv6/conf//accept_ra", "net/ipv6/conf/./accept_ra", "/net/ipv4/ip_forward", "net/ipv4/ip_forward/",
		"net/ipv6/conf/a name with/accept_ra", "net/ipv6/conf/sixteenletters!!/accept_ra", "net/ipv6/conf/weave/mtu", "net.ipv4.ip_forward",
	} {
		if err := Sysctl(path, "1"); err == nil {
			t.Errorf("%q was written", path)
		}
	}
	h := newSpace(t)
	h.must("ip link add eth0.5 type bridge")
	h.in(func() error {
		return errors.Join(Sysctl("net/ipv4/ip_forward", "1"), Sysctl("net/ipv6/conf/all/forwarding", "1"),
			Sysctl("net/ipv6/conf/eth0.5/accept_ra", "0"), Sysctl("net/ipv6/conf/eth0.5/accept_ra", "0"))
	})
	if out := h.must("sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding net/ipv6/conf/eth0.5/accept_ra"); out != "1\n1\n0\n" {
		t.Errorf("got %q", out)
	}
	if err := h.do(func() error { return Sysctl("net/ipv6/conf/nodevice/accept_ra", "0") }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if slices.Contains(settable, "") {
		t.Error("an empty path is settable")
	}
}
