package names

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// rebinding is a server that stops it, and whose upstream says what it is told.
func rebinding(t *testing.T, records map[string][]string) (*Server, *upstream) {
	t.Helper()
	u := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		wire := reply(t, m, 0, records[strings.ToLower(m.Question[0].Name)]...)
		wire[3] |= flagBlocked // which is nothing that others may say
		_, _ = w.Write(wire)
	})
	s := New(Config{Domain: "weave.local.", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{u.addr} },
		UpstreamsOf: func(netip.Addr) []string { return []string{u.addr} },
		StopRebind:  true, RebindOK: []string{"corp.example"}})
	s.zones.Store(&[]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:1::/64")})
	return s, u
}

// askFor puts a question with EDNS to a server, as a container.
func askFor(t *testing.T, s *Server, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := question(name, qtype)
	m.SetEdns0(1232, false)
	return unpacked(t, forwarded(t, s, netip.MustParseAddr("10.48.0.2"), parsed(t, m)))
}

func blockedOf(m *dns.Msg) bool {
	o := m.IsEdns0()
	return o != nil && slices.ContainsFunc(o.Option, func(x dns.EDNS0) bool {
		e, ok := x.(*dns.EDNS0_EDE)
		return ok && e.InfoCode == dns.ExtendedErrorCodeBlocked
	})
}

func TestAddressesThatAreInsideAreTakenOutOfOthersAnswers(t *testing.T) {
	for addr, in := range map[string]bool{
		"10.1.2.3": true, "172.16.0.1": true, "192.168.1.1": true, "100.64.0.1": true, "127.0.0.1": true, "169.254.169.254": true,
		"0.0.0.0": true, "198.51.100.9": true, "fd00::1": true, "fe80::1": true, "::1": true, "::": true, "2001:db8:1::9": true,
		"::ffff:10.1.2.3": true, "::ffff:198.51.100.9": true,
		"192.0.2.1": false, "100.128.0.1": false, "172.32.0.1": false, "2001:db8:2::9": false, "::ffff:192.0.2.1": false,
	} {
		qtype, record := dns.TypeA, "A"
		if strings.Contains(addr, ":") {
			qtype, record = dns.TypeAAAA, "AAAA"
		}
		s, u := rebinding(t, map[string][]string{"www.example.": {"www.example. 60 IN " + record + " " + addr}})
		for range 2 { // the second is from the cache
			got := askFor(t, s, "www.example.", qtype)
			if got.Rcode != dns.RcodeSuccess || blockedOf(got) != in || len(got.Answer) != map[bool]int{true: 0, false: 1}[in] || got.Zero {
				t.Errorf("%s: got %v", addr, got)
			}
		}
		if want := map[bool]uint64{true: 1, false: 0}[in]; s.Stats().Rebinds != want || u.asked.Load() != 1 {
			t.Errorf("%s: counted %d, asked %d times", addr, s.Stats().Rebinds, u.asked.Load())
		}
	}
}

func TestWhatIsNotInsideOfAnAnswerStays(t *testing.T) {
	s, _ := rebinding(t, map[string][]string{
		"mixed.example.": {"mixed.example. 60 IN CNAME a.mixed.example.", "a.mixed.example. 50 IN A 10.0.0.1", "a.mixed.example. 50 IN A 192.0.2.1",
			"a.mixed.example. 50 IN RRSIG A 8 2 60 20300101000000 20200101000000 1 mixed.example. AAAA"},
		"svc.example.":          {"svc.example. 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1,10.0.0.1", "svc.example. 60 IN HTTPS 2 other.example. ipv6hint=2001:db8:2::1"},
		"a.corp.example.":       {"a.corp.example. 60 IN A 10.0.0.1"},
		"corp.example.":         {"corp.example. 60 IN A 10.0.0.1"},
		"xcorp.example.":        {"xcorp.example. 60 IN A 10.0.0.1"},
		"alias.example.":        {"alias.example. 60 IN CNAME a.corp.example.", "a.corp.example. 60 IN A 10.0.0.1"},
		"text.example.":         {`text.example. 60 IN TXT "10.0.0.1"`},
		"10.0.0.9.in-addr.arpa": nil,
	})
	for _, x := range []struct {
		name    string
		qtype   uint16
		want    string
		blocked bool
	}{
		{"mixed.example.", dns.TypeA, "CNAME a.mixed.example., A 192.0.2.1", true},
		{"svc.example.", dns.TypeHTTPS, `HTTPS 2 other.example. ipv6hint="2001:db8:2::1"`, true},
		{"a.corp.example.", dns.TypeA, "A 10.0.0.1", false},
		{"CORP.example.", dns.TypeA, "A 10.0.0.1", false},
		{"xcorp.example.", dns.TypeA, "", true},
		{"alias.example.", dns.TypeA, "CNAME a.corp.example.", true},
		{"text.example.", dns.TypeTXT, `TXT "10.0.0.1"`, false},
	} {
		got := askFor(t, s, x.name, x.qtype)
		var have []string
		for _, r := range got.Answer {
			have = append(have, dns.Type(r.Header().Rrtype).String()+" "+strings.TrimPrefix(r.String(), r.Header().String()))
		}
		if strings.Join(have, ", ") != x.want || blockedOf(got) != x.blocked || got.AuthenticatedData {
			t.Errorf("%s: got %v", x.name, got)
		}
	}
}

func TestAddressesThatAreInsideAreHandedOnWhereNobodyMinds(t *testing.T) {
	s, _ := rebinding(t, map[string][]string{"www.example.": {"www.example. 60 IN A 10.0.0.1"}})
	s.rebind.on = false
	if got := askFor(t, s, "www.example.", dns.TypeA); len(got.Answer) != 1 || blockedOf(got) || got.Zero || s.Stats().Rebinds != 0 {
		t.Errorf("got %v", got)
	}
}

func TestANewNetworksAddressesAreTakenOutOfWhatWasKept(t *testing.T) {
	s, u := rebinding(t, map[string][]string{"www.example.": {"www.example. 60 IN A 192.0.2.1"}})
	sync := func(subnet string) {
		if err := s.Sync(t.Context(), []Listener{{"net1", netip.MustParseAddr("127.0.0.1"), []netip.Prefix{netip.MustParsePrefix(subnet)}, false}}); err != nil {
			t.Fatal(err)
		}
	}
	for i, subnet := range []string{"203.0.113.0/24", "203.0.113.0/24", "192.0.2.0/24"} {
		sync(subnet)
		got := askFor(t, s, "www.example.", dns.TypeA)
		if in := i == 2; blockedOf(got) != in || len(got.Answer) == 0 != in {
			t.Errorf("%s: got %v", subnet, got)
		}
	}
	if u.asked.Load() != 2 {
		t.Errorf("asked %d times", u.asked.Load())
	}
}

// FuzzRebind has any bytes be an answer: what is handed on is well-formed and leads nowhere inside.
func FuzzRebind(f *testing.F) {
	m := question("www.example.com.", dns.TypeA)
	q := parsed(f, m)
	for _, records := range [][]string{
		{"www.example.com. 60 IN A 10.0.0.1", "www.example.com. 60 IN A 192.0.2.1"},
		{"www.example.com. 60 IN CNAME b.example.com.", "b.example.com. 60 IN AAAA ::ffff:10.0.0.1"},
		{"www.example.com. 60 IN HTTPS 1 b.example.com. ipv4hint=10.0.0.1"},
	} {
		f.Add(reply(f, m, 0, records...)[headerLen:])
	}
	zones := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	f.Fuzz(func(t *testing.T, rest []byte) {
		head := reply(t, m, 0)[:headerLen]
		if len(rest) > 1 {
			head[7], head[11] = rest[0], rest[1]%4
		}
		msg := append(head, q.question...)
		msg = append(msg, rest[min(2, len(rest)):]...)
		if !q.wellFormed(msg) {
			return
		}
		filter := rebindFilter{on: true}
		out, err := filter.clean(q, msg, zones)
		if err == nil && (!q.wellFormed(out) || q.leadsInside(out, zones)) {
			t.Errorf("%x became %x", msg, out)
		}
		if err == nil {
			q.adopt(out)
		}
	})
}
