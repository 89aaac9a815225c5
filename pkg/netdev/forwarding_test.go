package netdev

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// overlay is two hosts on one underlay, each with bridge, VXLAN device and a container.
type overlay struct {
	t          testing.TB
	hosts      [2]space
	containers [2]space
	veths      [2]Veth
	vteps      [2]netip.Addr
}

func newOverlay(t testing.TB, vteps [2]netip.Addr) *overlay {
	o := &overlay{t: t, vteps: vteps}
	for i := range o.hosts {
		o.hosts[i] = newBridge(t, fmt.Sprintf("10.32.%d.1/12", i), fmt.Sprintf("fd00::%d:1/64", i))
		o.containers[i] = newSpace(t)
	}
	o.hosts[0].in(func() error { return joinByVeth("u0", "u1", o.hosts[1].NS) })
	for i, h := range o.hosts {
		h.must(fmt.Sprintf("ip addr add %s/%d dev u%d nodad", vteps[i], vteps[i].BitLen()-8, i))
		h.must(fmt.Sprintf("ip link set u%d addrgenmode none mtu 1500 up", i))
		h.in(func() error { return EnsureVXLAN(testVXLAN(vteps[i])) })
		o.veths[i] = vethFor(i<<8|5, o.containers[i].NS, fmt.Sprintf("10.32.%d.5/12", i), fmt.Sprintf("fd00::%d:5/64", i))
		h.in(func() error { return Attach(o.veths[i]) })
		h.settled()
	}
	return o
}

// remote describes container i and the bridge address of host i, as the other host shall know them.
func (o *overlay) remote(i int) []Remote {
	r := Remote{MAC: o.veths[i].MAC, VTEP: o.vteps[i]}
	for _, p := range o.veths[i].Addrs {
		r.Addrs = append(r.Addrs, p.Addr())
	}
	return []Remote{r}
}

func (o *overlay) sync(i int, want Forwarding) int {
	o.t.Helper()
	changed := 0
	o.hosts[i].in(func() (err error) {
		changed, err = SyncForwarding("weave", "weave-vx", want)
		return err
	})
	return changed
}

var underlays = map[string][2]netip.Addr{
	"IPv4": {hostA, hostB},
	"IPv6": {netip.MustParseAddr("fd09::1"), netip.MustParseAddr("fd09::2")},
}

func TestContainersReachEachOtherWithNoFloodEntryAtAll(t *testing.T) {
	for name, vteps := range underlays {
		t.Run(name, func(t *testing.T) {
			o := newOverlay(t, vteps)
			for i := range 2 {
				// One MAC in the device, one in the bridge, two neighbours.
				if n := o.sync(i, Forwarding{Remotes: o.remote(1 - i)}); n != 4 {
					t.Errorf("%d changes, want 4", n)
				}
			}
			for _, to := range []string{"10.32.1.5", "fd00::1:5"} {
				if !o.containers[0].reaches(to) {
					t.Errorf("cannot reach %s", to)
				}
			}
			if out := o.hosts[0].must("bridge fdb show dev weave-vx"); strings.Contains(out, "00:00:00:00:00:00") {
				t.Errorf("there is a flood entry:\n%s", out)
			}
			if t.Failed() {
				t.Log(o.hosts[0].world(), o.hosts[0].must("ip neigh"))
			}
			// And it was the neighbours that did it: without them nobody answers.
			o.containers[0].must("ip neigh flush dev eth0")
			none := o.remote(1)
			none[0].Addrs = nil
			o.sync(0, Forwarding{Remotes: none})
			if out, err := o.containers[0].run("ping", "-c", "1", "-W", "0.5", "10.32.1.5"); err == nil {
				t.Errorf("answered without a neighbour: %s", out)
			}
		})
	}
}

func TestUnknownStationsAreReachedByFlooding(t *testing.T) {
	for name, vteps := range underlays {
		t.Run(name, func(t *testing.T) {
			o := newOverlay(t, vteps)
			for i := range 2 {
				if n := o.sync(i, Forwarding{Flood: []netip.Addr{vteps[1-i]}}); n != 1 {
					t.Errorf("%d changes, want 1", n)
				}
			}
			for _, to := range []string{"10.32.1.5", "fd00::1:5"} {
				if !o.containers[0].reaches(to) {
					t.Errorf("cannot reach %s", to)
				}
			}
		})
	}
}

func TestSyncTwiceChangesNothing(t *testing.T) {
	for name, vteps := range underlays {
		t.Run(name, func(t *testing.T) {
			o := newOverlay(t, vteps)
			want := Forwarding{Remotes: o.remote(1), Flood: vteps[1:]}
			o.sync(0, want)
			before := o.hosts[0].must("bridge fdb") + o.hosts[0].must("ip neigh show nud permanent")
			quiet(t, o.hosts[0], func() error {
				n, err := SyncForwarding("weave", "weave-vx", want)
				if n != 0 {
					t.Errorf("%d changes", n)
				}
				return err
			})
			if after := o.hosts[0].must("bridge fdb") + o.hosts[0].must("ip neigh show nud permanent"); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func TestSyncRemovesOursAndNothingElse(t *testing.T) {
	o := newOverlay(t, underlays["IPv4"])
	h := o.hosts[0]
	h.must("ip neigh add 10.32.3.3 lladdr 02:00:00:00:03:03 dev weave nud permanent") // an admin's
	before := h.must("bridge fdb") + h.must("ip neigh show dev weave nud permanent")
	o.sync(0, Forwarding{Remotes: o.remote(1), Flood: []netip.Addr{hostB, netip.MustParseAddr("192.168.9.3")}})
	if n := o.sync(0, Forwarding{Remotes: o.remote(1), Flood: []netip.Addr{hostB}}); n != 1 {
		t.Errorf("one flood host less: %d changes", n)
	}
	if n := o.sync(0, Forwarding{}); n != 5 {
		t.Errorf("everything removed: %d changes, want 5", n)
	}
	if after := h.must("bridge fdb") + h.must("ip neigh show dev weave nud permanent"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestAMovedEndpointIsReplacedInPlace(t *testing.T) {
	o := newOverlay(t, underlays["IPv4"])
	r := o.remote(1)
	o.sync(0, Forwarding{Remotes: r})
	r[0].VTEP = netip.MustParseAddr("192.168.9.3")
	if n := o.sync(0, Forwarding{Remotes: r}); n != 1 {
		t.Errorf("host changed: %d changes, want 1", n)
	}
	if out := o.hosts[0].must("bridge fdb show dev weave-vx"); strings.Count(out, r[0].MAC.String()+" dst") != 1 || !strings.Contains(out, "dst 192.168.9.3") {
		t.Error(out)
	}
	r[0].MAC = net.HardwareAddr{2, 0, 0, 0, 7, 7}
	if n := o.sync(0, Forwarding{Remotes: r}); n != 6 { // two written and two removed in the tables of MACs, two neighbours replaced
		t.Errorf("MAC changed: %d changes, want 6", n)
	}
	if out := o.hosts[0].must("ip neigh show dev weave nud permanent"); strings.Count(out, "02:00:00:00:07:07") != 2 {
		t.Error(out)
	}
}

func TestALocalPortKeepsItsMAC(t *testing.T) {
	o := newOverlay(t, underlays["IPv4"])
	h := o.hosts[0]
	entry := "02:42:0a:20:00:05 dev " + o.veths[0].Host
	stale := Remote{MAC: o.veths[0].MAC, VTEP: hostB} // as if the endpoint were still over there
	for range 2 {
		o.sync(0, Forwarding{Remotes: []Remote{stale}})
		if out := h.must("bridge fdb show br weave"); !strings.Contains(out, entry) {
			t.Errorf("the local entry is gone:\n%s", out)
		}
	}
	h.in(func() error { return Detach(o.veths[0].Host, hashOf(o.veths[0])) })
	o.sync(0, Forwarding{Remotes: []Remote{stale}})
	if out := h.must("bridge fdb show dev weave-vx"); !strings.Contains(out, "02:42:0a:20:00:05 sticky master weave static") {
		t.Errorf("with the local port gone the remote one does not take over:\n%s", out)
	}
	// It comes back: Attach takes the MAC from the VXLAN device at once.
	c := newSpace(t)
	v := o.veths[0]
	v.NS = c.NS
	h.in(func() error { return Attach(v) })
	if out := h.must("bridge fdb show br weave"); !strings.Contains(out, entry) {
		t.Errorf("the new local port does not have its MAC:\n%s", out)
	}
}

func TestAMACThatWasOnlyLearnedGoesToItsRemoteHost(t *testing.T) {
	o := newOverlay(t, underlays["IPv4"])
	h, c := o.hosts[0], newSpace(t)
	v := vethFor(9, c.NS, "10.32.0.9/12")
	v.Lock = false
	h.in(func() error { return Attach(v) })
	if !c.reaches("10.32.0.1") {
		t.Fatal("container does not reach its host")
	}
	r := Remote{MAC: v.MAC, VTEP: hostB}
	if n := o.sync(0, Forwarding{Remotes: []Remote{r}}); n != 2 {
		t.Errorf("%d changes, want 2", n)
	}
	_, _ = c.run("ping", "-c", "1", "-W", "0.2", "10.32.0.1") // sticky: it cannot be learned back
	if out := h.must("bridge fdb show dev weave-vx"); !strings.Contains(out, v.MAC.String()+" sticky master weave static") {
		t.Error(out)
	}
}

func TestWhatIsWrongIsLeftOutAndTold(t *testing.T) {
	o := newOverlay(t, underlays["IPv4"])
	r := o.remote(1)
	bad := []Remote{
		{MAC: net.HardwareAddr{1, 2, 3, 4, 5, 6}, VTEP: hostB},
		{MAC: net.HardwareAddr{2, 2}, VTEP: hostB},
		{MAC: net.HardwareAddr{2, 2, 3, 4, 5, 6}},
		{MAC: net.HardwareAddr{2, 2, 3, 4, 5, 7}, VTEP: netip.MustParseAddr("fd09::2")},
	}
	o.hosts[0].in(func() error {
		n, err := SyncForwarding("weave", "weave-vx", Forwarding{Remotes: append(bad, r...)})
		if err == nil || n < 4 {
			t.Errorf("%d changes, error %v", n, err)
		}
		t.Log(err)
		_, err = SyncForwarding("weave", "novx", Forwarding{})
		if err == nil {
			t.Error("no error without a VXLAN device")
		}
		return nil
	})
	o.sync(1, Forwarding{Remotes: o.remote(0)})
	if !o.containers[0].reaches("10.32.1.5") {
		t.Error("the right entry among the wrong ones was not written")
	}
}

func TestThousandsOfRemotesAreWrittenAndReadBack(t *testing.T) {
	o := newOverlay(t, underlays["IPv4"])
	var f Forwarding
	for i := range 3000 {
		f.Remotes = append(f.Remotes, Remote{
			MAC: net.HardwareAddr{2, 0x42, 10, 40, byte(i >> 8), byte(i)}, VTEP: hostB,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 40, byte(i >> 8), byte(i)})},
		})
	}
	if n := o.sync(0, f); n != 9000 {
		t.Errorf("%d changes, want 9000", n)
	}
	if n := o.sync(0, f); n != 0 {
		t.Errorf("again: %d changes", n)
	}
	if n := o.sync(0, Forwarding{}); n != 9000 {
		t.Errorf("removed: %d changes, want 9000", n)
	}
}

func TestTheDifferenceIsInAnOrderThatLosesNothing(t *testing.T) {
	m1, m2 := mac{2, 1}, mac{2, 2}
	ip1, ip2 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	have := tables{map[mac]netip.Addr{m1: hostA}, map[netip.Addr]bool{hostA: true}, map[mac]bool{m1: true}, map[netip.Addr]mac{ip1: m1}}
	want := tables{map[mac]netip.Addr{m2: hostB}, map[netip.Addr]bool{hostB: true}, map[mac]bool{m2: true}, map[netip.Addr]mac{ip2: m2}}
	got := have.changesTo(want)
	order := []change{
		{where: tunnel, mac: m2, addr: hostB}, {where: flood, addr: hostB}, {where: port, mac: m2}, {where: neigh, mac: m2, addr: ip2},
		{where: neigh, remove: true, mac: m1, addr: ip1}, {where: port, remove: true, mac: m1}, {where: flood, remove: true, addr: hostA}, {where: tunnel, remove: true, mac: m1, addr: hostA},
	}
	if !slices.Equal(got, order) {
		t.Errorf("got  %v\nwant %v", got, order)
	}
	if cs := want.changesTo(want); len(cs) != 0 {
		t.Errorf("no difference, yet %v", cs)
	}
}

func TestOfTwoRemotesTheFirstCounts(t *testing.T) {
	ip := netip.MustParseAddr("10.0.0.1")
	a, b := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	got, err := tablesOf(Forwarding{Remotes: []Remote{{a, hostA, []netip.Addr{ip}}, {a, hostB, nil}, {b, hostB, []netip.Addr{ip}}}})
	if err != nil || got.tunnel[mac(a)] != hostA || got.neigh[ip] != mac(a) || len(got.tunnel) != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzKernelMessages(f *testing.F) {
	f.Add(request(1, 0, info(3), nameAttr(3, "eth0")).Serialize()[16:])
	f.Add(devices{1, 2}.message(change{where: neigh, addr: hostA}).Serialize()[16:])
	f.Fuzz(func(_ *testing.T, b []byte) {
		parseLink(b)
		parseEntry(b)
		parseAddress(b)
	})
}
