package names

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func testTable() *Table {
	tab := NewTable()
	tab.Put("c1", []Record{rec("net1", "web", "10.48.0.2"), rec("net1", "web", "fd00:1::2")})
	tab.Put("c2", []Record{rec("net1", "web", "10.48.0.3"), rec("net1", "only4", "10.48.0.3"), rec("net1", "pod.prod", "10.48.0.3")})
	tab.Put("c4", []Record{rec("net1", "localhost", "10.48.0.4")})
	tab.Put("c3", []Record{rec("Net2", "web", "10.49.0.2"), rec("Net2", "other", "10.49.0.2")})
	return tab
}

var testZones = []netip.Prefix{
	netip.MustParsePrefix("10.48.0.0/20"), netip.MustParsePrefix("10.49.0.0/20"), netip.MustParsePrefix("fd00:1::/64"),
}

func testResolver() resolver { return newResolver("weave.local", testTable()) }

// ask puts a question to the resolver; nil when it would be put to others.
func ask(t testing.TB, r resolver, network string, m *dns.Msg) (*dns.Msg, outcome) {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var q query
	out, o := r.handle(nil, wire, &q, false, scope{network, strings.ToLower(network)}, testZones)
	if out == nil {
		return nil, o
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(out); err != nil {
		t.Fatalf("%v: answer %x: %v", m.Question, out, err)
	}
	if answer.Id != m.Id || !answer.Response {
		t.Fatalf("%v: header %+v", m.Question, answer.MsgHdr)
	}
	return answer, o
}

func question(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

// text is an answer in a form that a table of tests can have.
func text(m *dns.Msg) string {
	if m == nil {
		return "forward"
	}
	var parts []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		parts = append(parts, strings.Join(f[3:], " "))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		parts = append(parts, dns.RcodeToString[m.Rcode])
		for _, rr := range m.Ns {
			parts = append(parts, "SOA of "+rr.Header().Name)
		}
	}
	return strings.Join(parts, ", ")
}

func TestWhatIsAnsweredAndWhatIsLeftToOthers(t *testing.T) {
	const nobody = "NXDOMAIN, SOA of weave.local."
	const nothing = "NOERROR, SOA of weave.local."
	for _, c := range []struct {
		network, name string
		qtype         uint16
		want          string
	}{
		{"net1", "web.", dns.TypeA, "A 10.48.0.2, A 10.48.0.3"},
		{"net1", "web.weave.local.", dns.TypeA, "A 10.48.0.2, A 10.48.0.3"},
		{"net1", "web.net1.weave.local.", dns.TypeA, "A 10.48.0.2, A 10.48.0.3"},
		{"net1", "WEB.Weave.Local.", dns.TypeAAAA, "AAAA fd00:1::2"},
		{"Net2", "web.", dns.TypeA, "A 10.49.0.2"},
		{"Net2", "web.net2.weave.local.", dns.TypeA, "A 10.49.0.2"},
		{"net1", "pod.prod.weave.local.", dns.TypeA, "A 10.48.0.3"},
		{"net1", "pod.prod.net1.weave.local.", dns.TypeA, "A 10.48.0.3"},

		{"net1", "only4.", dns.TypeAAAA, "NOERROR, SOA of only4."},
		{"net1", "only4.weave.local.", dns.TypeAAAA, nothing},
		{"net1", "web.weave.local.", dns.TypeMX, nothing},
		{"net1", "web.weave.local.", dns.TypeCAA, nothing},
		{"net1", "weave.local.", dns.TypeA, nothing},
		{"net1", "net1.weave.local.", dns.TypeA, nothing},
		{"net1", "weave.local.", dns.TypeSOA, "SOA weave.local. . 1 1 1 1 1"},

		{"net1", "other.", dns.TypeA, "NXDOMAIN, SOA of other."},
		{"net1", "other.weave.local.", dns.TypeA, nobody},
		{"net1", "web.net2.weave.local.", dns.TypeA, nobody},
		{"net1", "other.net2.weave.local.", dns.TypeA, nobody},
		{"net1", "net2.weave.local.", dns.TypeA, nobody},
		{"net1", "a.web.weave.local.", dns.TypeA, nobody},
		{"net1", "nosuch.", dns.TypeA, "NXDOMAIN, SOA of nosuch."},
		{"net1", "nosuch.", dns.TypeMX, "NXDOMAIN, SOA of nosuch."},
		{"net1", "nosuch.", dns.TypeHTTPS, "NXDOMAIN, SOA of nosuch."},
		{"net1", "com.", dns.TypeNS, "forward"}, // a top-level domain, not a host
		{"net1", "com.", dns.TypeDS, "forward"},
		{"net1", "com.", dns.TypeDNSKEY, "forward"},
		{"net1", "com.", dns.TypeSOA, "forward"},
		{"net1", "other.", dns.TypeDS, "forward"}, // nobody's, as net1 has it
		{"net1", "web.", dns.TypeDS, "NOERROR, SOA of web."},
		{"net1", "web.", dns.TypeNS, "NOERROR, SOA of web."},
		{"net1", "gone.weave.local.", dns.TypeDS, nobody},
		{"net1", "weave.local.", dns.TypeDNSKEY, nothing},
		{"net1", "example.com.", dns.TypeDS, "forward"},
		{"net1", `web\.weave.local.`, dns.TypeA, "forward"}, // one label "web.weave" of the domain local
		{"net1", `a\.web.weave.local.`, dns.TypeA, nobody},

		{"net1", "example.com.", dns.TypeA, "forward"},
		{"net1", "xweave.local.", dns.TypeA, "forward"},
		{"net1", ".", dns.TypeNS, "forward"},
		{"net1", "_dmarc.example.com.", dns.TypeTXT, "forward"},

		{"net1", "2.0.48.10.in-addr.arpa.", dns.TypePTR, "PTR web.weave.local."},
		{"net1", "3.0.48.10.in-addr.arpa.", dns.TypePTR, "PTR only4.weave.local., PTR pod.prod.weave.local., PTR web.weave.local."},
		{"net1", "2.0.48.10.in-addr.arpa.", dns.TypeA, "NOERROR, SOA of 48.10.in-addr.arpa."},
		{"net1", "9.0.48.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN, SOA of 48.10.in-addr.arpa."},
		{"net1", "2.0.49.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN, SOA of 49.10.in-addr.arpa."}, // another network's
		{"net1", "0.48.10.in-addr.arpa.", dns.TypeSOA, "NOERROR, SOA of 48.10.in-addr.arpa."},
		{"net1", "lb._dns-sd._udp.0.0.48.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN, SOA of 48.10.in-addr.arpa."},
		{"net1", "10.in-addr.arpa.", dns.TypeSOA, "forward"},
		{"net1", "1.2.0.192.in-addr.arpa.", dns.TypePTR, "forward"},
		{"net1", "300.0.48.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN, SOA of 48.10.in-addr.arpa."},
		{"net1", "x.2.0.48.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN, SOA of 48.10.in-addr.arpa."},
		{"net1", arpa(t, "fd00:1::2"), dns.TypePTR, "PTR web.weave.local."},
		{"net1", arpa(t, "fd00:1::3"), dns.TypePTR, "NXDOMAIN, SOA of 0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa."},
		{"net1", arpa(t, "2001:db8::1"), dns.TypePTR, "forward"},

		{"net1", "web.", dns.TypeANY, `HINFO "RFC8482" ""`},
		{"net1", "example.com.", dns.TypeANY, `HINFO "RFC8482" ""`},
		{"net1", "nosuch.weave.local.", dns.TypeANY, nobody},
		{"net1", "localhost.", dns.TypeA, "A 127.0.0.1"}, // whoever is called so: see below
		{"net1", "A.LocalHost.", dns.TypeAAAA, "AAAA ::1"},
		{"net1", "localhost.", dns.TypeNS, "NOERROR, SOA of localhost."},
		{"net1", "a.localhost.", dns.TypeMX, "NOERROR, SOA of localhost."},
		{"net1", "localhost.weave.local.", dns.TypeA, nobody},
		{"net1", "alocalhost.example.com.", dns.TypeA, "forward"},
		{"net1", "weave.local.", dns.TypeAXFR, "REFUSED"},
		{"net1", "example.com.", dns.TypeIXFR, "REFUSED"},
		{"net1", "example.com.", dns.TypeTKEY, "REFUSED"},
	} {
		answer, _ := ask(t, testResolver(), c.network, question(c.name, c.qtype))
		if got := text(answer); got != c.want {
			t.Errorf("%s asks %s %s: got %s, want %s", c.network, c.name, dns.TypeToString[c.qtype], got, c.want)
		}
		if answer == nil {
			continue
		}
		if answer.Authoritative != (answer.Rcode != dns.RcodeRefused && c.name != "example.com.") {
			t.Errorf("%s: authoritative %v", c.name, answer.Authoritative)
		}
		if answer.Question[0].Name != c.name {
			t.Errorf("%s: the question came back as %q", c.name, answer.Question[0].Name)
		}
		for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
			if rr.Header().Ttl != 1 {
				t.Errorf("%s: lives %d s", c.name, rr.Header().Ttl)
			}
		}
	}
}

func arpa(t testing.TB, a string) string {
	s, err := dns.ReverseAddr(a)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAllAddressesAreAnsweredInChangingOrder(t *testing.T) {
	tab := NewTable()
	for i := range 8 {
		tab.Put(fmt.Sprint(i), []Record{rec("n", "web", fmt.Sprint("10.0.0.", i))})
	}
	first := map[string]int{}
	for range 400 {
		m, _ := ask(t, newResolver("d", tab), "n", question("web.", dns.TypeA))
		if len(m.Answer) != 8 {
			t.Fatalf("%d addresses", len(m.Answer))
		}
		first[m.Answer[0].String()]++
	}
	if len(first) != 8 {
		t.Errorf("first of 400: %v", first)
	}
}

func TestAnswersFitTheClientAndSayWhenTheyDoNot(t *testing.T) {
	tab := NewTable()
	var one []Record
	for i := range 2000 {
		a := [4]byte{10, 0, byte(i >> 8), byte(i)}
		tab.Put(fmt.Sprint(i), []Record{{Name: "many", Network: "n", Addr: netip.AddrFrom4(a)}})
		one = append(one, Record{Name: fmt.Sprint("name", i), Network: "n", Addr: netip.MustParseAddr("10.9.9.9")})
	}
	tab.Put("one", one)
	r := newResolver("d", tab)
	for _, c := range []struct {
		name  string
		qtype uint16
		edns  uint16
		tcp   bool
		limit int
		all   bool
	}{
		{"many.", dns.TypeA, 0, false, 512, false},
		{"many.", dns.TypeA, 100, false, 512, false},
		{"many.", dns.TypeA, 800, false, 800, false},
		{"many.", dns.TypeA, 65535, false, 1232, false},
		{"many.", dns.TypeA, 0, true, 65535, true},
		{"9.9.9.10.in-addr.arpa.", dns.TypePTR, 1232, false, 1232, false},
		{"9.9.9.10.in-addr.arpa.", dns.TypePTR, 1232, true, 65535, true},
	} {
		m := question(c.name, c.qtype)
		if c.edns > 0 {
			m.SetEdns0(c.edns, true)
		}
		wire, _ := m.Pack()
		var q query
		out, _ := r.handle(nil, wire, &q, c.tcp, scope{"n", "n"}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
		var got dns.Msg
		if err := got.Unpack(out); err != nil {
			t.Fatal(err)
		}
		if len(out) > c.limit || got.Truncated == c.all || len(got.Answer) == 0 || c.all && len(got.Answer) != 2000 {
			t.Errorf("%+v: %d bytes, %d records, truncated %v", c, len(out), len(got.Answer), got.Truncated)
		}
		if opt := got.IsEdns0(); (opt != nil) != (c.edns > 0) || opt != nil && opt.UDPSize() != 1232 {
			t.Errorf("%+v: OPT %v", c, opt)
		}
	}
}

// oddQuery is a message that no client sends in earnest, and what it gets.
type oddQuery struct {
	msg  []byte
	want string
}

func oddQueries() map[string]oddQuery {
	good, _ := question("web.", dns.TypeA).Pack()
	with := func(change func(b []byte) []byte) []byte { return change(bytes.Clone(good)) }
	set := func(i int, v byte) []byte {
		return with(func(b []byte) []byte { b[i] = v; return b })
	}
	opt := []byte{0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0}
	return map[string]oddQuery{
		"empty":                  {nil, "nothing"},
		"half a header":          {good[:11], "nothing"},
		"a response":             {set(2, 0x80), "nothing"},
		"UPDATE":                 {set(2, 5<<3), "NOTIMP"},
		"NOTIFY":                 {set(2, 4<<3), "NOTIMP"},
		"STATUS":                 {set(2, 2<<3), "NOTIMP"},
		"no question":            {set(5, 0), "FORMERR"},
		"two questions":          {set(5, 2), "FORMERR"},
		"65535 questions":        {with(func(b []byte) []byte { b[4], b[5] = 255, 255; return b }), "FORMERR"},
		"an answer":              {set(7, 1), "FORMERR"},
		"an authority":           {set(9, 1), "FORMERR"},
		"additional that lacks":  {set(11, 1), "FORMERR"},
		"many additional":        {set(11, 3), "FORMERR"},
		"question cut off":       {good[:len(good)-1], "FORMERR"},
		"header only":            {good[:12], "FORMERR"},
		"compression loop":       {slices.Concat(good[:12], []byte{0xc0, 12, 0, 1, 0, 1}), "FORMERR"},
		"reserved label":         {slices.Concat(good[:12], []byte{0x80, 0, 0, 1, 0, 1}), "FORMERR"},
		"label past the end":     {slices.Concat(good[:12], []byte{63, 'a', 0, 0, 1, 0, 1}), "FORMERR"},
		"name of 256 bytes":      {slices.Concat(good[:12], bytes.Repeat([]byte{1, 'a'}, 127), []byte{1, 'a', 0, 0, 1, 0, 1}), "FORMERR"},
		"name of 255 bytes":      {slices.Concat(good[:12], bytes.Repeat([]byte{1, 'a'}, 127), []byte{0, 0, 1, 0, 1}), "forward"},
		"class CH":               {set(len(good)-1, 3), "REFUSED"},
		"class ANY":              {set(len(good)-1, 255), "REFUSED"},
		"type 0":                 {set(len(good)-3, 0), "REFUSED"},
		"type OPT":               {set(len(good)-3, 41), "REFUSED"},
		"two OPT":                {with(func(b []byte) []byte { b[11] = 2; return slices.Concat(b, opt, opt) }), "FORMERR"},
		"OPT not at the root":    {with(func(b []byte) []byte { b[11] = 1; return slices.Concat(b, []byte{1, 'a'}, opt) }), "FORMERR"},
		"OPT longer than it is":  {with(func(b []byte) []byte { b[11] = 1; o := bytes.Clone(opt); o[10] = 9; return append(b, o...) }), "FORMERR"},
		"EDNS version 1":         {with(func(b []byte) []byte { b[11] = 1; o := bytes.Clone(opt); o[6] = 1; return append(b, o...) }), "BADVERS"},
		"something else instead": {with(func(b []byte) []byte { b[11] = 1; o := bytes.Clone(opt); o[2] = 1; return append(b, o...) }), "NOERROR"},
		"trailing bytes":         {append(bytes.Clone(good), "garbage"...), "NOERROR"},
	}
}

func TestQueriesThatAreNone(t *testing.T) {
	for name, c := range oddQueries() {
		var q query
		out, o := testResolver().handle(nil, c.msg, &q, false, scope{"net1", "net1"}, testZones)
		got := "nothing"
		if o == forward {
			got = "forward"
		}
		if out != nil {
			var m dns.Msg
			if err := m.Unpack(out); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got = dns.RcodeToString[m.Rcode]
			if m.Rcode == dns.RcodeBadVers {
				got = "BADVERS"
			}
			if m.Id != binary.BigEndian.Uint16(c.msg) {
				t.Errorf("%s: id %d", name, m.Id)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestALocalAnswerAllocatesNextToNothing(t *testing.T) {
	r := testResolver()
	m := question("web.weave.local.", dns.TypeA)
	m.SetEdns0(1232, false)
	wire, _ := m.Pack()
	out := make([]byte, 0, maxUDP)
	n := testing.AllocsPerRun(100, func() {
		var q query
		if got, _ := r.handle(out, wire, &q, false, scope{"net1", "net1"}, testZones); len(got) == 0 {
			t.Fatal("no answer")
		}
	})
	if n > 3 {
		t.Errorf("%v allocations", n)
	}
}

// onTheWire is the length of a datagram of IPv4.
func onTheWire(msg []byte) int { return 20 + 8 + len(msg) }

// FuzzHandle has any bytes be a query: see handleCheck.
func FuzzHandle(f *testing.F) {
	for _, p := range handleSeeds(f) {
		f.Add(p.bytes, p.flag)
	}
	check := handleCheck()
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool) {
		if _, err := check(packet{bytes: msg, flag: tcp}); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkLocalName(b *testing.B) {
	for _, names := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(names, "names"), func(b *testing.B) {
			tab := NewTable()
			var queries [][]byte
			for i := range names {
				tab.Put(fmt.Sprint(i), []Record{{Name: fmt.Sprint("c", i), Network: "n", Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}})
				wire, _ := question(fmt.Sprint("c", i, ".weave.local."), dns.TypeA).Pack()
				queries = append(queries, wire)
			}
			r, out := newResolver("weave.local", tab), make([]byte, 0, maxUDP)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				var q query
				if got, _ := r.handle(out, queries[i*7919%names], &q, false, scope{"n", "n"}, testZones); len(got) == 0 {
					b.Fatal("no answer")
				}
			}
		})
	}
}

func TestADomainOfOneLabelExists(t *testing.T) {
	r := newResolver("weave", testTable())
	for _, qtype := range []uint16{dns.TypeA, dns.TypeNS, dns.TypeSOA} {
		answer, _ := ask(t, r, "net1", question("weave.", qtype))
		if answer == nil || answer.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %s", dns.TypeToString[qtype], text(answer))
		}
	}
	r.table.Put("c9", []Record{rec("net1", "weave", "10.48.0.9")})
	if answer, _ := ask(t, r, "net1", question("weave.", dns.TypeA)); text(answer) != "A 10.48.0.9" {
		t.Errorf("a container of that name: %s", text(answer))
	}
}

func TestAContainerWithoutAUsableNameHasItsAddressAllTheSame(t *testing.T) {
	r := testResolver()
	r.table.PutSet("gone", Set{Network: "net1", Host: "h1", Names: []string{"before"}, Addrs: []netip.Addr{netip.MustParseAddr("10.48.0.77")}})
	r.table.PutSet("now", Set{Network: "net1", Host: "h2", Names: []string{"localhost"}, Addrs: []netip.Addr{netip.MustParseAddr("10.48.0.77")}})
	if answer, _ := ask(t, r, "net1", question("before.", dns.TypeA)); strings.HasPrefix(text(answer), "A ") {
		t.Errorf("a name of before leads to another container: %s", text(answer))
	}
}
