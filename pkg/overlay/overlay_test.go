package overlay

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/gossip"
)

var (
	vtepA = netip.MustParseAddr("192.0.2.1")
	vtepB = netip.MustParseAddr("192.0.2.2")
)

func ip(s string) netip.Addr        { return netip.MustParseAddr(s) }
func mac(s string) net.HardwareAddr { return attachment.MACFor(ip(s)) }
func endpoint(addr string) *Endpoint {
	return &Endpoint{Network: "weave", MAC: mac(addr), Addrs: []netip.Addr{ip(addr)}}
}
func remote(h, addr string, v netip.Addr) Remote {
	return Remote{gossip.Peer(h), mac(addr), v, []netip.Addr{ip(addr)}}
}

func check(t *testing.T, what string, got, want Plan) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func TestPlanFollowsTheRecords(t *testing.T) {
	v := NewView()
	v.SetHost("a", &Host{VTEP: vtepA})
	v.SetEndpoint("a", "ep/1", endpoint("10.32.0.2"))
	v.SetEndpoint("b", "ep/2", endpoint("10.32.1.2")) // its host has not spoken
	check(t, "a alone", v.Plan("weave"), Plan{[]Remote{remote("a", "10.32.0.2", vtepA)}, []netip.Addr{vtepA}})

	v.SetHost("b", &Host{VTEP: vtepB})
	check(t, "both", v.Plan("weave"), Plan{
		[]Remote{remote("a", "10.32.0.2", vtepA), remote("b", "10.32.1.2", vtepB)}, []netip.Addr{vtepA, vtepB}})
	check(t, "another network", v.Plan("other"), Plan{Flood: []netip.Addr{}})

	v.SetEndpoint("a", "ep/1", nil)
	check(t, "a's is gone", v.Plan("weave"), Plan{[]Remote{remote("b", "10.32.1.2", vtepB)}, []netip.Addr{vtepB}})
}

func TestABridgesOwnAddressWantsNoBroadcasts(t *testing.T) {
	v := NewView()
	v.SetHost("a", &Host{VTEP: vtepA})
	e := endpoint("10.32.0.1")
	e.Bridge = true
	v.SetEndpoint("a", "ep/1", e)
	check(t, "bridge only", v.Plan("weave"), Plan{[]Remote{remote("a", "10.32.0.1", vtepA)}, []netip.Addr{}})
}

func TestWhatTheKernelHeldStaysUntilItsHostSpeaks(t *testing.T) {
	v := NewView()
	old := Plan{[]Remote{remote("", "10.32.0.2", vtepA), remote("", "10.32.1.2", vtepB)}, []netip.Addr{vtepA, vtepB}}
	v.Inherit("weave", old)
	check(t, "nobody has spoken", v.Plan("weave"), old)

	v.SetHost("a", &Host{VTEP: vtepA})
	check(t, "a has spoken, without endpoints", v.Plan("weave"), Plan{[]Remote{remote("", "10.32.1.2", vtepB)}, []netip.Addr{vtepB}})

	v.SetEndpoint("a", "ep/1", endpoint("10.32.1.2")) // b's container has moved to a
	check(t, "moved", v.Plan("weave"), Plan{[]Remote{remote("a", "10.32.1.2", vtepA)}, []netip.Addr{vtepA, vtepB}})
	v.Disinherit()
	check(t, "everybody has spoken", v.Plan("weave"), Plan{[]Remote{remote("a", "10.32.1.2", vtepA)}, []netip.Addr{vtepA}})
}

func TestOneMACHasOnePlace(t *testing.T) {
	v := NewView()
	v.SetHost("b", &Host{VTEP: vtepB})
	v.SetHost("a", &Host{VTEP: vtepA})
	v.SetEndpoint("b", "ep/1", endpoint("10.32.0.2"))
	v.SetEndpoint("a", "ep/1", endpoint("10.32.0.2"))
	check(t, "two claim it", v.Plan("weave"), Plan{[]Remote{remote("a", "10.32.0.2", vtepA)}, []netip.Addr{vtepA, vtepB}})
}

func TestHostileRecordsAreLeftOut(t *testing.T) {
	bad := map[string]Endpoint{
		"multicast mac":   {Network: "weave", MAC: net.HardwareAddr{1, 0, 0, 0, 0, 1}},
		"short mac":       {Network: "weave", MAC: net.HardwareAddr{2, 0}},
		"no network":      {MAC: mac("10.32.0.2")},
		"invalid address": {Network: "weave", Addrs: []netip.Addr{{}}},
		"multicast":       {Network: "weave", Addrs: []netip.Addr{ip("224.0.0.1")}},
		"loopback":        {Network: "weave", Addrs: []netip.Addr{ip("127.0.0.1")}},
		"mapped":          {Network: "weave", Addrs: []netip.Addr{ip("::ffff:10.0.0.1")}},
		"too many":        {Network: "weave", Addrs: make([]netip.Addr, 100)},
	}
	v := NewView()
	v.SetHost("a", &Host{VTEP: vtepA})
	for name, e := range bad {
		v.SetEndpoint("a", "ep/"+name, &e)
	}
	check(t, "endpoints", v.Plan("weave"), Plan{Flood: []netip.Addr{}})
	for _, a := range []string{"224.0.0.1", "127.0.0.1", "0.0.0.0", "::", "fe80::1%eth0"} {
		v.SetHost("b", &Host{VTEP: ip(a)})
	}
	if h := v.Hosts(); len(h) != 1 {
		t.Errorf("hosts: %v", h)
	}
}

func TestEndpointsOnANetworkAreThoseOfTheHostsThatHaveSpoken(t *testing.T) {
	v := NewView()
	h := Host{VTEP: netip.MustParseAddr("192.0.2.1")}
	v.SetHost("a", &h)
	for _, e := range []struct{ host, key, network string }{{"a", "1", "n"}, {"a", "2", "n"}, {"a", "3", "m"}, {"b", "1", "n"}} {
		v.SetEndpoint(gossip.Peer(e.host), e.key, &Endpoint{Network: e.network, Names: []string{e.key}})
	}
	if got := v.EndpointsOn("n"); len(got) != 1 || len(got["a"]) != 2 {
		t.Errorf("got %+v", got)
	}
	v.SetHost("b", &h)
	v.SetEndpoint("a", "1", nil)
	if got := v.EndpointsOn("n"); len(got["a"]) != 1 || got["a"][0].Names[0] != "2" || len(got["b"]) != 1 {
		t.Errorf("got %+v", got)
	}
}
