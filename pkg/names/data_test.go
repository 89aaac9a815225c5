package names

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// dataTable is two containers of one service, of which one has a name of its own, and one
// that shares all its names.
func dataTable() *Table {
	tab := NewTable()
	http := []Service{{"HTTP", "tcp", 80}}
	tab.PutSet("1", Set{Network: "net1", Host: "h", Names: []string{"web", "web-1"}, Addrs: addrs("10.48.0.2", "fd00:1::2"), Services: http, Texts: []string{"version=2"}})
	tab.PutSet("2", Set{Network: "net1", Host: "h", Names: []string{"web"}, Addrs: addrs("10.48.0.3"), Services: []Service{{"http", "TCP", 8080}}, Texts: []string{"version=2", `a"b`}})
	tab.PutSet("3", Set{Network: "Net2", Host: "h", Names: []string{"pod.prod"}, Addrs: addrs("10.49.0.2"), Services: []Service{{"dns", "udp", 53}}})
	return tab
}

func TestServicesAndTextsAreAnswered(t *testing.T) {
	const nobody = "NXDOMAIN, SOA of weave.local."
	const nothing = "NOERROR, SOA of weave.local."
	r := newResolver("weave.local", dataTable())
	hidden := targetName(rec("net1", "", "10.48.0.3")) + ".weave.local."
	both := "SRV 0 0 80 web-1.weave.local., SRV 0 0 8080 " + hidden
	for _, c := range []struct {
		network, name string
		qtype         uint16
		want          string
	}{
		{"net1", "_http._tcp.web.", dns.TypeSRV, both},
		{"net1", "_HTTP._tcp.Web.weave.local.", dns.TypeSRV, both},
		{"net1", "_http._tcp.web.net1.weave.local.", dns.TypeSRV, both},
		{"net1", "_http._tcp.web-1.", dns.TypeSRV, "SRV 0 0 80 web-1.weave.local."},
		{"net1", hidden, dns.TypeA, "A 10.48.0.3"},
		{"Net2", "_dns._udp.pod.prod.weave.local.", dns.TypeSRV, "SRV 0 0 53 pod.prod.weave.local."},
		{"net1", "web.", dns.TypeTXT, `TXT "a\"b", TXT "version=2"`},
		{"net1", "web-1.weave.local.", dns.TypeTXT, `TXT "version=2"`},

		{"net1", "_http._tcp.web.", dns.TypeA, "NOERROR, SOA of web."},
		{"net1", "_http._tcp.web.weave.local.", dns.TypeTXT, nothing},
		{"net1", "web.weave.local.", dns.TypeSRV, nothing},
		{"net1", "_tcp.web.weave.local.", dns.TypeSRV, nothing}, // there are names below
		{"Net2", "prod.weave.local.", dns.TypeA, nothing},
		{"net1", "prod.weave.local.", dns.TypeA, nobody},
		{"net1", "_https._tcp.web.", dns.TypeSRV, "NXDOMAIN, SOA of web."},
		{"net1", "_http._udp.web.weave.local.", dns.TypeSRV, nobody},
		{"net1", "_dns._udp.pod.prod.weave.local.", dns.TypeSRV, nobody},
		{"Net2", "pod.prod.weave.local.", dns.TypeTXT, nothing},
		{"net1", "_http._tcp.web.weave.local.", dns.TypeANY, `HINFO "RFC8482" ""`},
		{"net1", "_http._tcp.example.com.", dns.TypeSRV, "forward"},
		{"net1", "2.0.48.10.in-addr.arpa.", dns.TypePTR, "PTR web-1.weave.local., PTR web.weave.local."},
		{"net1", "3.0.48.10.in-addr.arpa.", dns.TypePTR, "PTR web.weave.local."}, // nobody hears of the hidden name
	} {
		answer, _ := ask(t, r, c.network, question(c.name, c.qtype))
		if got := text(answer); got != c.want {
			t.Errorf("%s asks %s %s: got %s, want %s", c.network, c.name, dns.TypeToString[c.qtype], got, c.want)
		}
	}
}

func TestOnlyWhatPeopleCanAskForIsCounted(t *testing.T) {
	tab := dataTable()
	tab.PutSet("nameless", Set{Network: "net1", Host: "h", Addrs: addrs("10.48.0.9")})
	if names, records := tab.size(); names != 3 || records != 6 { // web twice, of which one has two addresses, web-1 with two, pod.prod
		t.Errorf("%d names, %d records: %v", names, records, tab.All())
	}
}

func TestTheTargetsOfServicesComeWithTheirAddresses(t *testing.T) {
	answer, _ := ask(t, newResolver("weave.local", dataTable()), "net1", question("_http._tcp.web.weave.local.", dns.TypeSRV))
	var got []string
	for _, rr := range answer.Extra {
		got = append(got, strings.Join(strings.Fields(rr.String()), " "))
	}
	slices.Sort(got)
	want := []string{targetName(rec("net1", "", "10.48.0.3")) + ".weave.local. 1 IN A 10.48.0.3", "web-1.weave.local. 1 IN A 10.48.0.2", "web-1.weave.local. 1 IN AAAA fd00:1::2"}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDataFitsTheClientAndSaysWhenItDoesNot(t *testing.T) {
	tab := NewTable()
	for i := range 200 {
		tab.PutSet(fmt.Sprint(i), Set{Network: "n", Host: "h", Names: []string{"web", fmt.Sprint("web-", i)}, Addrs: addrs(fmt.Sprint("10.0.0.", i)),
			Services: []Service{{"http", "tcp", 80}}, Texts: []string{strings.Repeat("x", 200) + fmt.Sprint(i)}})
	}
	r := newResolver("weave.local", tab)
	for name, qtype := range map[string]uint16{"_http._tcp.web.": dns.TypeSRV, "web.": dns.TypeTXT} {
		for _, size := range []uint16{0, 512, 1232, 65535} {
			m := question(name, qtype)
			if size > 0 {
				m.SetEdns0(size, false)
			}
			wire, _ := m.Pack()
			for _, tcp := range []bool{false, true} {
				var q query
				out, _ := r.handle(nil, wire, &q, tcp, scope{"n", "n"}, nil)
				var got dns.Msg
				if err := got.Unpack(out); err != nil {
					t.Fatal(err)
				}
				if len(out) > q.limit || got.Truncated == tcp || tcp && len(got.Answer) != 200 || len(got.Answer) == 0 || (got.IsEdns0() != nil) != (size > 0) {
					t.Errorf("%s size %d, tcp %v: %d bytes of %d, truncated %v, %d answers", name, size, tcp, len(out), q.limit, got.Truncated, len(got.Answer))
				}
			}
		}
	}
}

// replicas are n containers of one name, each with a port.
func replicas(n int) *Table {
	tab := NewTable()
	for i := range n {
		tab.PutSet(fmt.Sprint(i), Set{Network: "n", Host: "h", Names: []string{"web"}, Services: []Service{{"http", "tcp", 80}},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}})
	}
	return tab
}

func TestAServiceOfManyCostsWhatItsAnswerCanHold(t *testing.T) {
	const all = 1000
	tab := replicas(all)
	r := newResolver("weave.local", tab)
	m := question("_http._tcp.web.", dns.TypeSRV)
	wire, _ := m.Pack()
	seen := map[string]bool{}
	for range 100 * all { // each with 5 of 1000 in an answer
		var q query
		out, _ := r.handle(nil, wire, &q, false, scope{"n", "n"}, nil)
		var got dns.Msg
		if err := got.Unpack(out); err != nil {
			t.Fatal(err)
		}
		if most := q.mostServices("weave.local"); len(got.Answer) >= most || !got.Truncated || len(tab.services("n", "_http._tcp.web", most)) != most {
			t.Fatalf("%d answers of at most %d, truncated %v", len(got.Answer), most, got.Truncated)
		}
		for _, rr := range got.Answer {
			seen[rr.(*dns.SRV).Target] = true
		}
		if len(seen) == all {
			return
		}
	}
	t.Errorf("%d of %d containers were ever answered", len(seen), all)
}

func BenchmarkServices(b *testing.B) {
	for _, n := range []int{10, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newResolver("weave.local", replicas(n))
			wire, _ := question("_http._tcp.web.", dns.TypeSRV).Pack()
			for b.Loop() {
				var q query
				r.handle(nil, wire, &q, false, scope{"n", "n"}, nil)
			}
		})
	}
}

func TestWhatANetworkCannotBeAskedForIsLeftOutOfASet(t *testing.T) {
	tab := NewTable()
	s := Set{Network: "n", Host: "h", Names: []string{"web", "bad name", "WEB"}, Addrs: addrs("10.0.0.1")}
	for _, x := range []Service{{"", "tcp", 1}, {"a.b", "tcp", 1}, {"a", "icmp", 1}, {"a", "tcp", 0}, {"80", "tcp", 80}, {"-a", "tcp", 1}, {strings.Repeat("a", 16), "tcp", 1}, {"a--b", "tcp", 1}, {"a_b", "tcp", 1}} {
		s.Services = append(s.Services, x)
	}
	s.Texts = []string{"", strings.Repeat("x", 256)}
	tab.PutSet("o", s)
	if o := tab.owners["o"]; len(o.services)+len(o.texts) != 0 {
		t.Errorf("got %v, %v", o.services, o.texts)
	}
	for i := range 100 {
		s.Services = append(s.Services, Service{"a", "tcp", uint16(i + 1)})
		s.Texts = append(s.Texts, fmt.Sprint(i))
	}
	tab.PutSet("o", s)
	if got := len(tab.services("n", "_a._tcp.web", 1000)); got != MaxServices {
		t.Errorf("%d services", got)
	}
	if got := len(tab.texts("n", "web", 1000)); got != MaxTexts {
		t.Errorf("%d texts", got)
	}
	tab.Drop("o")
	if len(tab.below)+len(tab.names)+len(tab.addrs)+len(tab.owners) != 0 {
		t.Errorf("left: %+v", tab)
	}
}

// FuzzSet has a peer say anything of its container: see setCheck.
func FuzzSet(f *testing.F) {
	for _, p := range setSeeds() {
		s := split(p.bytes)
		f.Add(s[0], s[1], s[2], p.number, s[3], s[4])
	}
	check := setCheck()
	f.Fuzz(func(t *testing.T, name, service, proto string, port uint16, txt, asked string) {
		if _, err := check(packet{bytes: join(name, service, proto, txt, asked), number: port}); err != nil {
			t.Fatal(err)
		}
	})
}
