package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestATraceShowsWhenAQueryThatIsRefusedCame(t *testing.T) {
	s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet()})
	client := netip.MustParseAddrPort("10.49.0.2:1000")
	trace := func() []Traced {
		got, _, _, err := s.Trace("c", []netip.Addr{client.Addr()}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	trace()
	defer func() { s.traces.stop("c", s.traces.traces["c"]) }()
	p := &socketPair{}
	p.fence.Store(&fence{served: &served{subnets: testZones}})
	p.scope.Store(&scope{"net1", "net1"})
	wire, _ := question("web.weave.local.", dns.TypeA).Pack()
	begun := time.Now()
	var q query
	_, o := s.serveAt(p, client.Addr(), nil, wire, &q, false)
	s.traces.of(client).note(client, &q, o)
	got := trace()
	if len(got) != 1 || got[0].At.Before(begun) || o != refused {
		t.Errorf("%v: %+v, not before %v", o, got, begun)
	}
}

func TestADenialFromTheCacheIsNotToBeKeptForLongerThanItsZoneSays(t *testing.T) {
	asked := question("nobody.example.com.", dns.TypeA)
	wire, _ := asked.Pack()
	var q query
	q.parse(wire, false)
	answer := reply(t, asked, dns.RcodeNameError, "example.com. 3600 IN SOA ns. admin. 1 2 3 4 300")
	c, begun := newCache(), time.Now()
	c.put([]byte("key"), &q, answer, begun)
	for _, age := range []int{0, 1, 299} {
		got := unpacked(t, c.answer(nil, []byte("key"), &q, begun.Add(time.Duration(age)*time.Second)))
		if ttl := got.Ns[0].Header().Ttl; ttl != uint32(300-age) {
			t.Errorf("%d s old: SOA for %d s more", age, ttl)
		}
	}
}

func TestReverseNamesOfNoAddress(t *testing.T) {
	for name, want := range map[string]string{
		"2.0.48.10.in-addr.arpa.":             "PTR web.weave.local.",
		"0.48.10.in-addr.arpa.":               "NOERROR, SOA of 48.10.in-addr.arpa.",
		"foo.0.48.10.in-addr.arpa.":           "NXDOMAIN, SOA of 48.10.in-addr.arpa.",
		"_dns-sd._udp.0.48.10.in-addr.arpa.":  "NXDOMAIN, SOA of 48.10.in-addr.arpa.",
		"02.0.48.10.in-addr.arpa.":            "NXDOMAIN, SOA of 48.10.in-addr.arpa.",
		"2.0.048.10.in-addr.arpa.":            "forward", // below 10, which is not ours
		"x.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.": "forward",
	} {
		answer, _ := ask(t, testResolver(), "net1", question(name, dns.TypePTR))
		if got := text(answer); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// many are the listeners of n networks of two families.
func many(n int) (out []Listener) {
	for i := range n {
		a4, a6 := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), netip.AddrFrom16([16]byte{0xfd, 0, byte(i >> 8), byte(i), 15: 1})
		subnets := []netip.Prefix{netip.PrefixFrom(a4, 24), netip.PrefixFrom(a6, 64)}
		out = append(out, Listener{fmt.Sprint("n", i), a4, subnets, false}, Listener{fmt.Sprint("n", i), a6, subnets, false})
	}
	return out
}

func TestAThousandNetworksCostNothingWhileNothingChanges(t *testing.T) {
	s := New(Config{Domain: "weave.local", Table: NewTable(), Log: quiet()})
	if err := s.Sync(t.Context(), many(1000)); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = context.Background()
	for a := range s.want {
		s.sockets[a] = &socketPair{udp: new(net.UDPConn), tcp: new(net.TCPListener)} // open
	}
	pass := func() { // of the ticker
		if err := s.match(s.ctx); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	first := 20 * allocated(pass) // all of 20, of which the first alone has something to do
	took := time.Since(begin)
	t.Logf("after a change: %d KB, %v", first>>10, took)
	if n := allocated(pass); n > 64<<10 || first > 4<<20 {
		t.Errorf("%d KB a second, %d after a change", n>>10, first>>10)
	}
	if n := len(s.all.subnets); n != 2000 || len(*s.zones.Load()) != 2000 {
		t.Errorf("%d subnets, %d zones", n, len(*s.zones.Load()))
	}
}
