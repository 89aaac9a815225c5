package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

func TestAttachedContainersReachTheHostAndEachOther(t *testing.T) {
	h := newBridge(t, "10.32.0.1/12", "fd00::1/64")
	a, b := newSpace(t), newSpace(t)
	va := vethFor(5, a.NS, "10.32.0.5/12", "fd00::5/64")
	va.Routes = []Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), GW: netip.MustParseAddr("10.32.0.1")}}
	h.in(func() error { return Attach(va) })
	h.in(func() error { return Attach(vethFor(6, b.NS, "10.32.0.6/12", "fd00::6/64")) })
	for _, to := range []string{"10.32.0.1", "10.32.0.6", "fd00::1", "fd00::6"} {
		if !a.reaches(to) {
			t.Errorf("container cannot reach %s", to)
		}
	}
	if !h.reaches("10.32.0.5") {
		t.Error("host cannot reach the container")
	}
}

func TestWhatAttachMadeIsWhatInspectAndPortsTell(t *testing.T) {
	h, c := newBridge(t, "10.32.0.1/12"), newSpace(t)
	c.must("ip link add other type bridge") // takes index 2
	v := vethFor(5, c.NS, "10.32.0.5/12", "fd00::5/64")
	link := int(unix.RT_SCOPE_LINK)
	universe := int(unix.RT_SCOPE_UNIVERSE)
	v.Routes = []Route{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), GW: netip.MustParseAddr("10.32.0.1"), MTU: 1300, AdvMSS: 1200, Priority: 7, Scope: &universe},
		{Dst: netip.MustParsePrefix("192.0.2.0/24"), Table: 1000, Scope: &link},
		{Dst: netip.MustParsePrefix("2001:db8::/32"), GW: netip.MustParseAddr("fd00::1"), Priority: 9, Scope: &universe},
	}
	h.in(func() error { return Attach(v) })

	got, err := Inspect(c.NS, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	want := Iface{MAC: v.MAC, MTU: 1450, Up: true, Addrs: v.Addrs, Routes: v.Routes}
	if !sameIface(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	h.in(func() error {
		ports, err := Ports()
		if err != nil {
			return err
		}
		if len(ports) != 1 || ports[0].Name != v.Host || ports[0].Alias != v.Alias || ports[0].Master != "weave" || !ports[0].Up || ports[0].Group != 0 {
			return fmt.Errorf("ports: %+v", ports)
		}
		return nil
	})
	if out := c.must("ip link show lo"); !strings.Contains(out, ",UP") {
		t.Errorf("loopback is not up: %s", out)
	}
	if out := h.must("bridge -d link show dev " + v.Host); !strings.Contains(out, "locked on") || !strings.Contains(out, "learning off") || !strings.Contains(out, " flood off") {
		t.Errorf("port flags: %s", out)
	}
}

// sameIface compares; the order of routes is the kernel's.
func sameIface(a, b Iface) bool {
	if len(a.Routes) != len(b.Routes) {
		return false
	}
	for _, r := range a.Routes {
		found := false
		for _, s := range b.Routes {
			found = found || reflect.DeepEqual(r, s)
		}
		if !found {
			return false
		}
	}
	a.Routes, b.Routes = nil, nil
	return reflect.DeepEqual(a, b)
}

func TestInspectOfNothingIsNotFound(t *testing.T) {
	c := newSpace(t)
	if _, err := Inspect(c.NS, "eth0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if has, err := HasLink(c.NS, "eth0"); has || err != nil {
		t.Errorf("HasLink: %v, %v", has, err)
	}
	if has, err := HasLink(c.NS, "lo"); !has || err != nil {
		t.Errorf("HasLink lo: %v, %v", has, err)
	}
}

func TestContainerWithoutIPv6AddressSpeaksNone(t *testing.T) {
	h, c := newBridge(t), newSpace(t)
	v := vethFor(5, c.NS, "10.32.0.5/12")
	h.in(func() error { return Attach(v) })
	if out := c.must("sysctl -n net.ipv6.conf.eth0.disable_ipv6"); strings.TrimSpace(out) != "1" {
		t.Errorf("disable_ipv6 is %s", out)
	}
	h.settled()
	if out := h.must("ip -6 addr show dev " + v.Host); out != "" {
		t.Errorf("the host is a station at the port: %s", out)
	}
}

func TestContainerWithIPv6AddressHearsNoAdvertisement(t *testing.T) {
	h, c := newBridge(t), newSpace(t)
	// As container runtimes have it: off by default, for all that comes.
	c.must("sysctl -w net.ipv6.conf.default.disable_ipv6=1")
	h.in(func() error { return Attach(vethFor(5, c.NS, "fd00::5/64")) })
	for key, want := range map[string]string{"accept_ra": "0", "autoconf": "0", "accept_dad": "0", "disable_ipv6": "0"} {
		if out := c.must("sysctl -n net.ipv6.conf.eth0." + key); strings.TrimSpace(out) != want {
			t.Errorf("%s is %s, want %s", key, out, want)
		}
	}
	if out := c.must("ip -6 addr show dev eth0 scope global"); strings.Contains(out, "tentative") || !strings.Contains(out, "fd00::5/64") {
		t.Errorf("addresses: %s", out)
	}
}

func TestFirstNetworksRouteWins(t *testing.T) {
	h, c := newBridge(t), newSpace(t)
	any := netip.MustParsePrefix("0.0.0.0/0")
	v := vethFor(5, c.NS, "10.32.0.5/12")
	v.Routes = []Route{{Dst: any, GW: netip.MustParseAddr("10.32.0.1")}}
	w := vethFor(6, c.NS, "10.48.0.6/20")
	w.IfName = "eth1"
	w.Routes = []Route{{Dst: any, GW: netip.MustParseAddr("10.48.0.1")}}
	h.in(func() error { return Attach(v) })
	h.in(func() error { return Attach(w) })
	if out := c.must("ip route show default"); strings.Count(out, "default") != 1 || !strings.Contains(out, "10.32.0.1 dev eth0") {
		t.Errorf("default routes: %s", out)
	}
}

func TestAFailedAttachLeavesNothing(t *testing.T) {
	h, c := newBridge(t, "10.32.0.1/12"), newSpace(t)
	first := newSpace(t)
	h.in(func() error { return Attach(vethFor(4, first.NS, "10.32.0.4/12")) })
	h.settled()
	good := func() Veth { return vethFor(5, c.NS, "10.32.0.5/12") }
	gw := netip.MustParseAddr("172.16.0.1")
	for name, tc := range map[string]struct {
		break_ func(*Veth)
		want   error
	}{
		"no such bridge":         {func(v *Veth) { v.Bridge = "nobridge" }, ErrNotFound},
		"bridge is no bridge":    {func(v *Veth) { v.Bridge = "lo" }, nil},
		"ifname is taken":        {func(v *Veth) { v.IfName = "lo" }, ErrExists},
		"host name is taken":     {func(v *Veth) { v.Host = "weave" }, ErrExists},
		"MTU is too small":       {func(v *Veth) { v.MTU = 10 }, nil},
		"unreachable gateway":    {func(v *Veth) { v.Routes = []Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), GW: gw}} }, unix.ENETUNREACH},
		"address twice":          {func(v *Veth) { v.Addrs = append(v.Addrs, v.Addrs[0]) }, unix.EEXIST},
		"group MAC":              {func(v *Veth) { v.MAC = net.HardwareAddr{1, 2, 3, 4, 5, 6} }, nil},
		"alias too long":         {func(v *Veth) { v.Alias = strings.Repeat("x", 256) }, nil},
		"gateway of other kind":  {func(v *Veth) { v.Routes = []Route{{Dst: netip.MustParsePrefix("::/0"), GW: gw}} }, nil},
		"name with a slash":      {func(v *Veth) { v.IfName = "../x" }, nil},
		"route that is no route": {func(v *Veth) { v.Routes = []Route{{}} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			v := good()
			tc.break_(&v)
			hostBefore, inBefore := h.world(), c.world()
			err := h.do(func() error { return Attach(v) })
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
			if after := h.world(); after != hostBefore {
				t.Errorf("host before:\n%s\nafter:\n%s", hostBefore, after)
			}
			// The interface in the container leaves only loopback behind, which may have come up.
			if after := c.must("ip -o link"); strings.Count(after, "\n") != 1 {
				t.Errorf("container before:\n%s\nafter:\n%s", inBefore, after)
			}
		})
	}
	if err := h.do(func() error { return Attach(good()) }); err != nil {
		t.Errorf("the unbroken one fails too: %v", err)
	}
}

func TestAttachNeverTouchesTheLinkThatHasItsName(t *testing.T) {
	h, a, b := newBridge(t), newSpace(t), newSpace(t)
	v := vethFor(5, a.NS, "10.32.0.5/12")
	h.in(func() error { return Attach(v) })
	h.settled()
	w := vethFor(6, b.NS, "10.32.0.6/12")
	w.Host = v.Host
	before := h.world()
	if err := h.do(func() error { return Attach(w) }); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	if after := h.world(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestLockedPortDropsAForgedSourceAndPassesItsOwn(t *testing.T) {
	for _, locked := range []bool{true, false} { // the second shows that the test can see a forged frame
		h := newBridge(t, "10.32.0.1/12")
		a, b := newSpace(t), newSpace(t)
		va := vethFor(5, a.NS, "10.32.0.5/12")
		va.Lock = locked
		h.in(func() error { return Attach(va) })
		h.in(func() error { return Attach(vethFor(6, b.NS, "10.32.0.6/12")) })
		if !a.reaches("10.32.0.6") {
			t.Fatal("own traffic does not pass")
		}
		forged := net.HardwareAddr{2, 0x42, 0x0a, 0x20, 0, 0x77}
		seen := b.sniff(forged)
		a.must("ip link set eth0 address " + forged.String())
		a.must("ip neigh replace 10.32.0.6 lladdr 02:42:0a:20:00:06 dev eth0 nud permanent") // unicast, no ARP first
		for range 3 {
			_, _ = a.run("ping", "-c", "1", "-W", "0.2", "10.32.0.6")
		}
		if n := seen.count(); (n == 0) != locked {
			t.Errorf("locked %v: %d forged frames were delivered", locked, n)
		}
		if out := h.must("bridge fdb show br weave"); strings.Contains(out, "00:77") == locked {
			t.Errorf("locked %v: forwarding table:\n%s", locked, out)
		}
		a.must("ip link set eth0 address " + va.MAC.String())
		if !a.reaches("10.32.0.6") {
			t.Error("own traffic does not pass afterwards")
		}
	}
}

func TestUnlockedPortLearns(t *testing.T) {
	h, a := newBridge(t, "10.32.0.1/12"), newSpace(t)
	v := vethFor(5, a.NS, "10.32.0.5/12")
	v.Lock, v.Hairpin = false, true
	h.in(func() error { return Attach(v) })
	a.must("ip link set eth0 address 02:42:0a:20:00:77")
	if !a.reaches("10.32.0.1") {
		t.Error("a port without lock drops a changed MAC")
	}
	if out := h.must("bridge -d link show dev " + v.Host); !strings.Contains(out, "hairpin on") {
		t.Errorf("port flags: %s", out)
	}
}

func TestFullBridgeIsSaidSoAndNothingIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 1023 ports")
	}
	h, c := newBridge(t), newSpace(t)
	inside := newSpace(t)
	for i := range 1023 {
		v := vethFor(i, inside.NS)
		v.IfName = fmt.Sprintf("e%d", i)
		if err := h.do(func() error { return Attach(v) }); err != nil {
			t.Fatalf("port %d: %v", i, err)
		}
	}
	h.settled()
	before := h.world()
	v := vethFor(2000, c.NS, "10.32.0.5/12")
	if err := h.do(func() error { return Attach(v) }); !errors.Is(err, ErrBridgeFull) {
		t.Errorf("got %v", err)
	}
	if h.world() != before {
		t.Error("something is left on the host")
	}
	if has, _ := HasLink(c.NS, "eth0"); has {
		t.Error("something is left in the container")
	}
}

func TestDetachDeletesOnlyItsOwn(t *testing.T) {
	h, c := newBridge(t), newSpace(t)
	v := vethFor(5, c.NS, "10.32.0.5/12")
	h.in(func() error { return Attach(v) })
	other := attachment.Key{Network: "weave", ContainerID: "other", IfName: "eth0"}.Hash()
	h.must("ip link add stranger type veth peer name stranger1")
	for _, n := range []Named{{v.Host, other}, {"stranger", hashOf(v)}, {"weave", hashOf(v)}} {
		if err := h.do(func() error { return Detach(n.Name, n.Hash) }); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%v: got %v", n, err)
		}
	}
	for range 2 { // the second finds nothing, and that is success
		if err := h.do(func() error { return Detach(v.Host, hashOf(v)) }); err != nil {
			t.Error(err)
		}
	}
	if has, _ := HasLink(c.NS, "eth0"); has {
		t.Error("container's end is still there")
	}
	h.must("ip link show stranger")
}

func TestAttachedIsWhatDetachWouldDelete(t *testing.T) {
	h, c := newBridge(t), newSpace(t)
	v, bare := vethFor(5, c.NS, "10.32.0.5/12"), vethFor(6, nil)
	h.in(func() error { return Attach(v) })
	h.must("ip link add " + bare.Host + " type veth peer name x")
	other := attachment.Key{Network: "weave", ContainerID: "other", IfName: "eth0"}.Hash()
	for n, want := range map[Named]bool{{v.Host, hashOf(v)}: true, {bare.Host, hashOf(bare)}: true, {v.Host, other}: false, {"weave", hashOf(v)}: false, {"none", other}: false} {
		h.in(func() error {
			got, err := Attached(n.Name, n.Hash)
			if got != want || err != nil {
				t.Errorf("%v: got %v, %v", n, got, err)
			}
			return nil
		})
	}
}

func TestDetachTakesALinkWhoseAliasWasNeverSet(t *testing.T) {
	h := newBridge(t)
	v := vethFor(5, nil)
	h.must("ip link add " + v.Host + " type veth peer name x")
	if err := h.do(func() error { return Detach(v.Host, hashOf(v)) }); err != nil {
		t.Error(err)
	}
	if out := h.must("ip -o link"); strings.Contains(out, v.Host) {
		t.Errorf("still there: %s", out)
	}
}
