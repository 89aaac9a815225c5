package hostfw

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTrafficThatLeavesANetworkIsMasqueraded(t *testing.T) {
	l := newLab(t)
	want(t, "before", udp(t, l.c1, "", l.out, "192.0.2.9", "53", 10), "10.32.0.2")
	l.apply(t, labRules())
	want(t, "udp4", udp(t, l.c2, "", l.out, "192.0.2.9", "53", 10), "192.0.2.1")
	want(t, "tcp4", tcp(t, l.c1, l.out, "192.0.2.9:80"), "192.0.2.1")
	want(t, "udp6", udp(t, l.c1, "", l.out, "2001:db8::9", "53", 10), "2001:db8::1")
	want(t, "tcp6", tcp(t, l.c1, l.out, "[2001:db8::9]:80"), "2001:db8::1")
	want(t, "large udp4", udp(t, l.c1, "", l.out, "192.0.2.9", "54", 4000), "192.0.2.1")
	if out, err := l.c1.try("ping -c1 -W20 192.0.2.9"); err != nil {
		t.Errorf("ping: %v\n%s", err, out)
	}
}

func TestTrafficInsideANetworkIsNotTouched(t *testing.T) {
	l := newLab(t)
	l.apply(t, labRules())
	want(t, "tcp4", tcp(t, l.c1, l.c2, "10.32.0.3:80"), "10.32.0.2")
	want(t, "udp6", udp(t, l.c1, "", l.c2, "fd32::3", "53", 10), "fd32::2")
	want(t, "to the host", tcp(t, l.c1, l.host, "10.32.0.1:80"), "10.32.0.2")
	want(t, "from the host", tcp(t, l.host, l.c1, "10.32.0.2:80"), "10.32.0.1")
	want(t, "the overlay's ports between containers", tcp(t, l.c1, l.c2, "10.32.0.3:6783"), "10.32.0.2")

	// A part of the network that is reached by a route, as behind a tunnel.
	l.host.sh("ip route add 10.32.128.0/24 via 192.0.2.9 && sysctl -qw net.ipv4.conf.weave.proxy_arp=1 net.ipv4.neigh.weave.proxy_delay=0")
	l.out.sh("ip addr add 10.32.128.1/32 dev lo")
	want(t, "routed within the network", udp(t, l.c1, "", l.out, "10.32.128.1", "53", 10), "10.32.0.2")
}

func TestBridgedTrafficIsNotTouchedWhereTheKernelShowsItToTheFirewall(t *testing.T) {
	l := newLab(t)
	if out, err := l.host.try("sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1"); err != nil {
		t.Skipf("needs br_netfilter: %s", out)
	}
	l.apply(t, labRules())
	want(t, "tcp4", tcp(t, l.c1, l.c2, "10.32.0.3:6783"), "10.32.0.2")
	want(t, "udp6", udp(t, l.c1, "", l.c2, "fd32::3", "6784", 10), "fd32::2")
	l.host.sh("iptables -P FORWARD DROP")
	want(t, "dropped by the host", noTCP(t, l.c1, l.c2, "10.32.0.3:80"), "")
	l.apply(t, labRules())
	want(t, "accepted in iptables", tcp(t, l.c1, l.c2, "10.32.0.3:80"), "10.32.0.2")
}

func TestNetworksWithSeveralSubnetsStayUntouchedAcrossThem(t *testing.T) {
	l := newLab(t)
	r := labRules()
	r.Networks[0].Subnets = append(r.Networks[0].Subnets, netip.MustParsePrefix("10.77.0.0/24"))
	r.Networks = append(r.Networks, Network{Bridge: "wv-other", Subnets: []netip.Prefix{netip.MustParsePrefix("10.78.0.0/24")}})
	l.apply(t, r)
	for _, a := range []string{"10.77.0.9", "10.78.0.9"} {
		l.host.sh("ip route add " + a + " via 192.0.2.9")
		l.out.sh("ip addr add " + a + "/32 dev lo")
	}
	want(t, "own second subnet", udp(t, l.c1, "", l.out, "10.77.0.9", "53", 10), "10.32.0.2")
	want(t, "another network's subnet", udp(t, l.c1, "", l.out, "10.78.0.9", "53", 10), "192.0.2.1")
}

func TestWhatLeavesByABridgeOfOursIsNotMasqueraded(t *testing.T) {
	l := newLab(t)
	l.apply(t, labRules())
	l.host.sh("ip route add 198.51.100.5/32 via 10.32.0.3 && ip -6 route add 2001:db8:5::5/128 via fd32::3")
	l.c2.sh("ip addr add 198.51.100.5/32 dev lo && ip addr add 2001:db8:5::5/128 dev lo nodad")
	want(t, "v4", udp(t, l.c1, "", l.c2, "198.51.100.5", "53", 10), "10.32.0.2")
	want(t, "v6", udp(t, l.c1, "", l.c2, "2001:db8:5::5", "53", 10), "fd32::2")
}

func TestMulticastIsNotMasqueraded(t *testing.T) {
	l := newLab(t)
	l.apply(t, labRules())
	l.host.sh("ip addr add 10.32.9.9/32 dev eth0 && ip route add 224.0.0.0/4 dev eth0")
	h, control := l.out.hear("224.0.0.99:5353"), l.out.hear("192.0.2.9:53")
	l.host.send("10.32.9.9", "192.0.2.9:53", 10)
	want(t, "unicast", control.source(patience), "192.0.2.1")
	l.host.send("10.32.9.9", "224.0.0.99:5353", 10)
	want(t, "multicast", h.source(patience), "10.32.9.9")
}

func TestVXLANIsAcceptedFromPeersOnly(t *testing.T) {
	l := newLab(t)
	l.apply(t, labRules())
	want(t, "peer v4", udp(t, l.out, "192.0.2.2", l.host, "192.0.2.1", "6784", 10), "192.0.2.2")
	want(t, "stranger v4", udp(t, l.out, "192.0.2.9", l.host, "192.0.2.1", "6784", 10), "")
	want(t, "peer v6", udp(t, l.out, "2001:db8::2", l.host, "2001:db8::1", "6784", 10), "2001:db8::2")
	want(t, "stranger v6", udp(t, l.out, "2001:db8::9", l.host, "2001:db8::1", "6784", 10), "")
	want(t, "stranger v4, fragments", udp(t, l.out, "192.0.2.9", l.host, "192.0.2.1", "6784", 4000), "")
	want(t, "stranger, WireGuard", udp(t, l.out, "192.0.2.9", l.host, "192.0.2.1", "6785", 10), "192.0.2.9")
	want(t, "unrelated bridge's container", udp(t, l.d, "", l.host, "172.17.0.1", "6784", 10), "")
}

func TestContainersReachTheOverlaysPortsOfNoHost(t *testing.T) {
	l := newLab(t)
	l.apply(t, labRules())
	for _, host := range []struct {
		where *space
		addrs []string
	}{
		{l.host, []string{"10.32.0.1", "192.0.2.1", "fd32::1", "2001:db8::1"}},
		{l.out, []string{"192.0.2.2", "2001:db8::2", "192.0.2.9"}},
	} {
		for _, a := range host.addrs {
			for _, port := range []string{"6784", "6785"} {
				for _, size := range []int{10, 4000} {
					want(t, fmt.Sprintf("udp %s %s, %d bytes", a, port, size), udp(t, l.c1, "", host.where, a, port, size), "")
				}
			}
			target := netip.AddrPortFrom(netip.MustParseAddr(a), 6783).String()
			want(t, "tcp "+target, noTCP(t, l.c1, host.where, target), "")
		}
	}
	want(t, "gossip between hosts", tcp(t, l.out, l.host, "192.0.2.1:6783"), "192.0.2.9")
	want(t, "gossip to another host", tcp(t, l.host, l.out, "192.0.2.2:6783"), "192.0.2.1")
}

func TestAPeersAddressForgedByAContainerDoesNotHelpIt(t *testing.T) {
	l := newLab(t)
	l.apply(t, labRules())
	l.host.sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.weave.rp_filter=0")
	l.c1.sh("ip addr add 192.0.2.2/32 dev lo")
	tested, control := l.host.hear("10.32.0.1:6784"), l.host.hear("10.32.0.1:9999")
	l.c1.send("192.0.2.2", "10.32.0.1:6784", 10)
	l.c1.send("192.0.2.2", "10.32.0.1:9999", 10)
	want(t, "control", control.source(patience), "192.0.2.2")
	want(t, "forged", tested.source(30*time.Millisecond), "")
}

func TestUnrelatedBridgesSeeNoEffect(t *testing.T) {
	l := newLab(t)
	r := labRules()
	l.apply(t, r)
	want(t, "not masqueraded", udp(t, l.d, "", l.out, "192.0.2.9", "53", 10), "172.17.0.2")
	want(t, "gossip's port", tcp(t, l.d, l.out, "192.0.2.2:6783"), "172.17.0.2")
	for _, p := range []string{"6784", "6785"} {
		want(t, "udp "+p, udp(t, l.d, "", l.out, "192.0.2.2", p, 10), "172.17.0.2")
	}
	want(t, "gossip's port of the host", tcp(t, l.d, l.host, "172.17.0.1:6783"), "172.17.0.2")
	want(t, "back", tcp(t, l.out, l.d, "172.17.0.2:80"), "192.0.2.9")
}

func TestTheGossipLibrarysPortIsTheRoutersOwn(t *testing.T) {
	l := newLab(t)
	r := labRules()
	l.apply(t, r)
	want(t, "own uid v4", tcp(t, l.host, l.host, "127.0.0.1:6786"), "127.0.0.1")
	want(t, "own uid v6", tcp(t, l.host, l.host, "[::1]:6786"), "::1")
	r.UID = 4711
	l.apply(t, r)
	want(t, "another uid v4", noTCP(t, l.host, l.host, "127.0.0.1:6786"), "")
	want(t, "another uid v6", noTCP(t, l.host, l.host, "[::1]:6786"), "")
	want(t, "another port", tcp(t, l.host, l.host, "127.0.0.1:6787"), "127.0.0.1")

	// kube-proxy turns route_localnet on, which opens loopback to the neighbours.
	l.host.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1")
	l.c1.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1 && ip link set lo down && ip route add 127.9.9.9/32 via 10.32.0.1")
	want(t, "loopback from a container, another port", tcp(t, l.c1, l.host, "127.9.9.9:6787"), "10.32.0.2")
	want(t, "loopback from a container", noTCP(t, l.c1, l.host, "127.9.9.9:6786"), "")
}

func TestAFlushIsNoticedAndRepaired(t *testing.T) {
	need(t, "nft")
	l := newLab(t)
	if l.intact(t) {
		t.Error("intact before anything was applied")
	}
	l.apply(t, labRules())
	repairs := uint64(0)
	for _, damage := range []string{
		"flush ruleset",
		"delete table inet weave",
		"flush table inet weave",
		"flush chain inet weave forward",
		"delete element inet weave peers4 { 192.0.2.2 }",
		"add element inet weave peers6 { 2001:db8::66 }",
		"delete element inet weave bridges { weave }",
		"insert rule inet weave input accept",
		"add chain inet weave extra",
		"add table inet weave { flags dormant; }",
		"chain inet weave forward { policy drop; }",
		"add set inet weave more { type ipv4_addr; }",
	} {
		if !l.intact(t) {
			t.Fatalf("not intact before %q", damage)
		}
		l.host.sh("nft '" + damage + "'")
		if l.intact(t) {
			t.Errorf("%q was not noticed", damage)
		}
		l.apply(t, labRules())
		want(t, "after repair of "+damage, udp(t, l.out, "192.0.2.9", l.host, "192.0.2.1", "6784", 10), "")
		repairs++
	}
	got := l.fw.Stats()
	if got.Repairs != repairs {
		t.Errorf("counted %d repairs, want %d", got.Repairs, repairs)
	}
	for set, n := range map[string]int{"bridges": 1, "peers4": 1, "peers6": 1, "subnets4": 1, "same6": 1} {
		if got.Elements[set] != n {
			t.Errorf("set %s has %d elements, want %d", set, got.Elements[set], n)
		}
	}
	l.host.sh("nft add table inet somebody")
	if !l.intact(t) {
		t.Error("another's table counts as damage to ours")
	}
}

func TestAChangeNeverLeavesAMomentWithoutRules(t *testing.T) {
	l := newLab(t)
	r := labRules()
	l.apply(t, r)
	tested, control := l.host.hear("192.0.2.1:6784"), l.host.hear("192.0.2.1:9999")
	const enough = 1000 // packets, for the test to prove something
	stop, done := make(chan struct{}), make(chan struct{})
	var sent atomic.Int64
	go l.out.do(func() { defer close(done); blast(t, stop, &sent, "192.0.2.9", "192.0.2.1:6784") })
	changes := 0
	for i := 0; i < 40 || sent.Load() < enough && i < 400; i++ { // a busy machine may send them slowly
		r.Networks[0].Subnets = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 32, byte(i), 0}), 24)}
		l.apply(t, r)
		r.Peers = append(r.Peers, netip.AddrFrom4([4]byte{10, 9, byte(9 + i>>8), byte(i)}))
		l.apply(t, r)
		changes += 2
	}
	close(stop)
	<-done
	n := sent.Load()
	l.out.send("192.0.2.9", "192.0.2.1:9999", 10)
	control.source(patience)
	want(t, fmt.Sprintf("one of %d packets during %d changes", n, changes), tested.source(30*time.Millisecond), "")
	if n < enough {
		t.Errorf("only %d packets were sent: the test proves little", n)
	}
}

func TestTheNumberOfRulesIsConstant(t *testing.T) {
	one, many := planFor(mustNormalise(t, labRules())), planFor(mustNormalise(t, manyRules(200, 1000)))
	for i := range one.chains {
		if a, b := len(one.chains[i].rules), len(many.chains[i].rules); a != b {
			t.Errorf("chain %s: %d rules for one network, %d for many", one.chains[i].name, a, b)
		}
	}
	l := newLab(t)
	l.apply(t, manyRules(200, 1000))
	start := time.Now()
	l.apply(t, manyRules(200, 1001))
	t.Logf("1001st peer beside 200 networks: %v", time.Since(start))
	if !l.intact(t) {
		t.Error("not intact")
	}
	out := l.host.sh("nft list table inet weave")
	if n := strings.Count(out, "comment"); n != 10 {
		t.Errorf("%d rules in the kernel, want 10:\n%s", n, out)
	}
}

func manyRules(networks, peers int) Rules {
	r := labRules()
	for i := range networks {
		r.Networks = append(r.Networks, Network{Bridge: fmt.Sprintf("wv-%012x", i), Subnets: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(48 + i/16), byte(i % 16 << 4), 0}), 20),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 1, byte(i >> 8), byte(i)}), 64),
		}})
	}
	for i := range peers {
		r.Peers = append(r.Peers, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 8), 15: byte(i)}))
	}
	return r
}

func TestWhenOnlyPeersChangeOnlyElementsDo(t *testing.T) {
	l := newLab(t)
	r := labRules()
	l.apply(t, r)
	before := handles(l)
	r.Peers = append(slices.Clone(r.Peers[1:]), netip.MustParseAddr("192.0.2.9"))
	l.apply(t, r)
	if after := handles(l); after != before {
		t.Errorf("the table was replaced:\n%s\n%s", before, after)
	}
	want(t, "new peer", udp(t, l.out, "192.0.2.9", l.host, "192.0.2.1", "6784", 10), "192.0.2.9")
	want(t, "former peer", udp(t, l.out, "192.0.2.2", l.host, "192.0.2.1", "6784", 10), "")

	// Elements that are not as they were left: the table is replaced.
	l.host.sh("nft flush set inet weave peers6")
	r.Peers = r.Peers[1:]
	l.apply(t, r)
	if !l.intact(t) {
		t.Error("not intact after an update over damage")
	}
}

func handles(l *lab) string {
	var lines []string
	for line := range strings.Lines(l.host.sh("nft -a list chains inet")) {
		lines = append(lines, line)
	}
	return strings.Join(lines, "") + l.host.sh("nft -a list chain inet weave input | sed 's/counter packets [0-9]* bytes [0-9]*//'")
}

func TestRulesReadBackAsText(t *testing.T) {
	need(t, "nft")
	l := newLab(t)
	r := labRules()
	r.Networks[0].Subnets = append(r.Networks[0].Subnets, netip.MustParsePrefix("10.33.0.0/16"), netip.MustParsePrefix("255.255.255.0/24"))
	l.apply(t, r)
	out := l.host.sh("nft list table inet weave")
	t.Log(out)
	if !containsAll(out,
		`elements = { "weave" }`, "tcp . 6783", "udp . 6784", "udp . 6785", "192.0.2.2", "2001:db8::2",
		"10.32.0.0/15", "fd32::/64", "10.32.0.0/15 . 10.32.0.0/15", "fd32::/64 . fd32::/64",
		"iifname @bridges", "meta skuid != 0", "udp dport 6784", "ip saddr != @peers4", "ip6 saddr != @peers6", "masquerade") {
		t.Error("something is missing")
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	l := newLab(t)
	l.apply(t, labRules())
	l.host.do(func() {
		for range 2 {
			if err := l.fw.Remove(); err != nil {
				t.Error(err)
			}
		}
	})
	if out := l.host.sh("nft list ruleset"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
	if l.intact(t) {
		t.Error("intact after Remove")
	}
	l.apply(t, labRules())
	if !l.intact(t) {
		t.Error("not intact after it was applied again")
	}
}

func TestUnusableRulesAreRefusedBeforeAnythingIsTouched(t *testing.T) {
	p := netip.MustParsePrefix
	for name, r := range map[string]Rules{
		"overlap":      {Networks: []Network{{Bridge: "a", Subnets: []netip.Prefix{p("10.0.0.0/8")}}, {Bridge: "b", Subnets: []netip.Prefix{p("10.1.0.0/16")}}}},
		"same bridge":  {Networks: []Network{{Bridge: "a", Subnets: nil}, {Bridge: "a", Subnets: nil}}},
		"long bridge":  {Networks: []Network{{Bridge: "0123456789abcdef", Subnets: nil}}},
		"no bridge":    {Networks: []Network{{Bridge: "", Subnets: nil}}},
		"whole world":  {Networks: []Network{{Bridge: "a", Subnets: []netip.Prefix{p("0.0.0.0/0")}}}},
		"no prefix":    {Networks: []Network{{Bridge: "a", Subnets: []netip.Prefix{{}}}}},
		"no peer":      {Peers: []netip.Addr{{}}},
		"mapped range": {Networks: []Network{{Bridge: "a", Subnets: []netip.Prefix{p("::ffff:10.0.0.0/104")}}}},
	} {
		if _, err := normalise(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNoMaskIsConfused(t *testing.T) {
	r := mustNormalise(t, Rules{
		Peers:    []netip.Addr{netip.MustParseAddr("::ffff:1.2.3.4"), netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("fe80::1%eth0")},
		Networks: []Network{{Bridge: "a", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/16"), netip.MustParsePrefix("10.1.128.0/17")}}},
	})
	if len(r.Peers) != 2 || r.Networks[0].Subnets[0].String() != "10.1.0.0/16" {
		t.Errorf("got %+v", r)
	}
	if rs := ranges(r.Networks[0].Subnets, true); len(rs) != 1 || rs[0].String() != "10.1.0.0-10.1.255.255" {
		t.Errorf("ranges %v", rs)
	}
}

func mustNormalise(t testing.TB, r Rules) Rules {
	t.Helper()
	n, err := normalise(r)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestManyMayUseOneFirewall(t *testing.T) {
	l := newLab(t)
	l.apply(t, labRules())
	var users sync.WaitGroup
	for i := range 4 {
		users.Go(func() {
			for j := range 10 {
				r := labRules()
				r.Peers = append(r.Peers, netip.AddrFrom4([4]byte{10, byte(i), byte(j), 1}))
				if err := l.fw.Apply(r); err != nil {
					t.Error(err)
				}
				if _, err := l.fw.Intact(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
	if !l.intact(t) {
		t.Error("not intact after all have ended")
	}
}

func BenchmarkApplyReplace(b *testing.B) {
	l := newLab(b)
	r := labRules()
	for i := 0; b.Loop(); i++ {
		r.UID = uint32(i + 1)
		l.apply(b, r)
	}
}

func BenchmarkApplyPeers(b *testing.B) {
	l := newLab(b)
	r := labRules()
	l.apply(b, r)
	for i := 0; b.Loop(); i++ {
		r.Peers = []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
		l.apply(b, r)
	}
}

func BenchmarkIntact(b *testing.B) {
	l := newLab(b)
	l.apply(b, labRules())
	for b.Loop() {
		if !l.intact(b) {
			b.Fatal("not intact")
		}
	}
}

func TestNothingIsForwardedIntoOrOutOfAnInternalNetwork(t *testing.T) {
	l := newLab(t)
	r := labRules()
	r.Networks[0].Internal = true
	r.Networks = append(r.Networks, Network{Bridge: "docker0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}})
	for _, both := range []bool{false, true} { // the other network is internal too
		r.Networks[1].Internal = both
		l.apply(t, r)
		want(t, "out of it", noTCP(t, l.c1, l.out, "192.0.2.9:80"), "")
		want(t, "out of it, v6", noTCP(t, l.c1, l.out, "[2001:db8::9]:80"), "")
		want(t, "into it", noTCP(t, l.out, l.c1, "10.32.0.2:80"), "")
		want(t, "into another network", noTCP(t, l.c1, l.d, "172.17.0.2:80"), "")
		want(t, "from another network", noTCP(t, l.d, l.c1, "10.32.0.2:80"), "")
		want(t, "inside", tcp(t, l.c1, l.c2, "10.32.0.3:80"), "10.32.0.2")
		want(t, "to the host, which resolves names", tcp(t, l.c1, l.host, "10.32.0.1:80"), "10.32.0.2")
	}
	if out, err := l.host.try("sysctl -w net.bridge.bridge-nf-call-iptables=1"); err != nil {
		t.Logf("without br_netfilter: %s", out)
	}
	want(t, "inside, shown to the firewall", tcp(t, l.c1, l.c2, "10.32.0.3:80"), "10.32.0.2")
}
