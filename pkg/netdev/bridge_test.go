package netdev

import (
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var testBridge = Bridge{
	Name: "weave", MAC: net.HardwareAddr{2, 0x42, 10, 32, 0, 1}, MTU: 1450,
	Addrs: prefixes("10.32.0.1/12", "fd00::1/64"),
}

func TestEnsureBridgeTwiceChangesNothing(t *testing.T) {
	h := newSpace(t)
	h.in(func() error { return EnsureBridge(testBridge) })
	h.must("ip addr add 192.0.2.1/24 dev weave") // an admin's own
	h.silent()
	before := h.world()
	quiet(t, h, func() error { return EnsureBridge(testBridge) })
	if after := h.world(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	h.in(func() error {
		got, err := BridgeAddrs("weave")
		if want := prefixes("10.32.0.1/12", "192.0.2.1/24", "fd00::1/64"); !reflect.DeepEqual(got, want) {
			t.Errorf("addresses: got %v, want %v", got, want)
		}
		return err
	})
	for key, want := range map[string]string{"accept_ra": "0", "autoconf": "0", "accept_dad": "0"} {
		if out := h.must("sysctl -n net.ipv6.conf.weave." + key); strings.TrimSpace(out) != want {
			t.Errorf("%s is %s, want %s", key, out, want)
		}
	}
}

func TestOnlyTheAddressesOfTheDeviceThatIsAskedForAreListed(t *testing.T) {
	h := newSpace(t)
	for _, cmd := range []string{
		"ip link add one type bridge", "ip link add two type bridge",
		"ip addr add 10.1.0.1/24 dev one", "ip addr add 10.1.0.2 peer 10.1.0.3/32 dev one", "ip addr add fd01::1/64 dev one nodad",
		"ip addr add 10.2.0.1/24 dev two", "ip addr add fd02::1/64 dev two nodad",
	} {
		h.must(cmd)
	}
	h.in(func() error {
		got, err := BridgeAddrs("one")
		slices.SortFunc(got, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		if want := prefixes("10.1.0.1/24", "10.1.0.2/32", "fd01::1/64"); !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		return err
	})
	h.in(func() error {
		l, err := linkByName("two")
		if err != nil {
			return err
		}
		read := 0
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.dump(addressesOf(l), func() {}, func([]byte) { read++ }); err != nil {
			return err
		}
		if read != 2 {
			t.Errorf("the kernel was asked for %d addresses, want the device's 2", read)
		}
		return nil
	})
}

func TestEnsureBridgeRepairs(t *testing.T) {
	h := newSpace(t)
	h.in(func() error { return EnsureBridge(testBridge) })
	for _, damage := range []string{
		"ip link set weave down",
		"ip link set weave address 02:00:00:00:00:99",
		"ip link set weave mtu 1400",
		"ip addr del 10.32.0.1/12 dev weave",
		"ip addr flush dev weave",
		"sysctl -w net.ipv6.conf.weave.accept_ra=1",
		"ip link del weave",
	} {
		h.must(damage)
		h.in(func() error { return EnsureBridge(testBridge) })
		got, err := Inspect(h.NS, "weave")
		slices.SortFunc(got.Addrs, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		want := Iface{MAC: testBridge.MAC, MTU: testBridge.MTU, Up: true, Addrs: testBridge.Addrs}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", damage, got, err, want)
		}
		if out := h.must("sysctl -n net.ipv6.conf.weave.accept_ra"); out != "0\n" {
			t.Errorf("%s: accept_ra is %s", damage, out)
		}
	}
}

func TestEnsureBridgeRefusesWhatIsNoBridge(t *testing.T) {
	h := newSpace(t)
	err := h.do(func() error { return EnsureBridge(Bridge{Name: "lo"}) })
	if !errors.Is(err, ErrWrongKind) {
		t.Errorf("got %v", err)
	}
	err = h.do(func() error { _, err := BridgeAddrs("nobridge"); return err })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := h.do(func() error { return EnsureBridge(Bridge{Name: "../etc"}) }); err == nil {
		t.Error("took a path for a name")
	}
}

func TestPortsDoNotMoveTheBridgesMACOrMTU(t *testing.T) {
	h, c := newSpace(t), newSpace(t)
	h.in(func() error { return EnsureBridge(testBridge) })
	v := vethFor(5, c.NS, "10.32.0.5/12")
	v.MTU = 1300
	h.in(func() error { return Attach(v) })
	if out := h.must("ip link show weave"); !strings.Contains(out, "mtu 1450") || !strings.Contains(out, testBridge.MAC.String()) {
		t.Error(out)
	}
}

func TestDeleteLinkTwiceIsSuccess(t *testing.T) {
	h := newSpace(t)
	h.in(func() error { return EnsureBridge(testBridge) })
	for range 2 {
		h.in(func() error { return errors.Join(DeleteLinks("weave")...) })
	}
	if out := h.must("ip -o link"); strings.Contains(out, "weave") {
		t.Error(out)
	}
}

var (
	hostA = netip.MustParseAddr("192.168.9.1")
	hostB = netip.MustParseAddr("192.168.9.2")
)

func testVXLAN(local netip.Addr) VXLAN {
	return VXLAN{Name: "weave-vx", Bridge: "weave", VNI: 77, Port: 6784, Local: local, MTU: 1450}
}

func TestEnsureVXLANTwiceChangesNothing(t *testing.T) {
	for _, local := range []netip.Addr{hostA, netip.MustParseAddr("fd09::1")} {
		h := newBridge(t)
		v := testVXLAN(local)
		h.in(func() error { return EnsureVXLAN(v) })
		h.in(func() error {
			_, err := SyncForwarding("weave", "weave-vx", Forwarding{Flood: []netip.Addr{local.Next()}})
			return err
		})
		h.settled()
		before := h.world()
		quiet(t, h, func() error { return EnsureVXLAN(v) })
		if after := h.world(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		out := h.must("ip -d link show weave-vx")
		for _, want := range []string{"nolearning", "vxlan id 77", "dstport 6784", "local " + local.String(), "master weave", "mtu 1450", "learning off", " flood on", "neigh_suppress on", ",UP"} {
			if !strings.Contains(out, want) {
				t.Errorf("not %q: %s", want, out)
			}
		}
		if local.Is4() && !strings.Contains(out, " udpcsum") {
			t.Errorf("outer checksums are off: %s", out)
		}
	}
}

func TestEnsureVXLANReplacesOrRepairs(t *testing.T) {
	h := newBridge(t)
	h.in(func() error { return EnsureVXLAN(testVXLAN(hostA)) })
	index := func() string { return strings.Fields(h.must("ip -o link show weave-vx"))[0] }
	was := index()
	for _, damage := range []string{
		"ip link set weave-vx nomaster",
		"ip link set weave-vx down",
		"ip link set weave-vx mtu 1400",
		"bridge link set dev weave-vx neigh_suppress off learning on",
	} {
		h.must(damage)
		h.in(func() error { return EnsureVXLAN(testVXLAN(hostA)) })
		out := h.must("ip -d link show weave-vx")
		for _, want := range []string{"master weave", "mtu 1450", "learning off", "neigh_suppress on", ",UP"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: not %q: %s", damage, want, out)
			}
		}
		if index() != was {
			t.Errorf("%s: replaced, and needed only repair", damage)
		}
	}
	for _, v := range []func(*VXLAN){
		func(v *VXLAN) { v.VNI = 78 }, func(v *VXLAN) { v.Port = 6790 }, func(v *VXLAN) { v.Local = hostB },
	} {
		x := testVXLAN(hostA)
		v(&x)
		was := index()
		h.in(func() error { return EnsureVXLAN(x) })
		if index() == was {
			t.Errorf("%+v: not replaced", x)
		}
	}
}

func TestEnsureVXLANRefusals(t *testing.T) {
	h := newBridge(t)
	for _, c := range []struct {
		break_ func(*VXLAN)
		want   error
	}{
		{func(v *VXLAN) { v.Bridge = "nobridge" }, ErrNotFound},
		{func(v *VXLAN) { v.Name = "lo" }, ErrWrongKind},
		{func(v *VXLAN) { v.VNI = 1 << 24 }, nil},
		{func(v *VXLAN) { v.Local = netip.Addr{} }, nil},
	} {
		v := testVXLAN(hostA)
		c.break_(&v)
		err := h.do(func() error { return EnsureVXLAN(v) })
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, want %v", v, err, c.want)
		}
	}
}

func TestABridgeSaysWhichClusterItIsOfUnlessSomebodyGaveItAnotherAlias(t *testing.T) {
	h := newSpace(t)
	cluster := func() string {
		var all []Device
		h.in(func() (err error) { all, err = Devices(); return err })
		if len(all) != 1 || all[0].Name != "weave" {
			t.Fatalf("devices: %+v", all)
		}
		return all[0].Cluster
	}
	older, one, two := testBridge, testBridge, testBridge
	one.Cluster, two.Cluster = "one", "two"
	for _, c := range []struct {
		damage string
		as     Bridge
		want   string
	}{
		{"true", older, ""},
		{"true", one, "one"}, // made by an older version
		{"true", older, "one"},
		{"true", two, "two"}, // taken over
		{"ip link set weave alias mine", two, ""},
		{"ip link del weave", two, "two"},
	} {
		h.must(c.damage)
		h.in(func() error { return EnsureBridge(c.as) })
		if got := cluster(); got != c.want {
			t.Errorf("after %q, ensured for %q: it says %q, want %q", c.damage, c.as.Cluster, got, c.want)
		}
	}
	h.silent()
	quiet(t, h, func() error { return EnsureBridge(two) })
}
