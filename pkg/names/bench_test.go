package names

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// What a reader does with a query between the kernel's two calls.
func BenchmarkServe(b *testing.B) {
	tab := NewTable()
	for i := range 1000 {
		tab.Put(fmt.Sprint(i), []Record{{Name: fmt.Sprint("c", i), Network: "n", Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}})
	}
	s := New(Config{Domain: "weave.local", Table: tab, Log: quiet(), Upstreams: func() []string { return []string{"192.0.2.1:53"} }})
	client := netip.MustParseAddrPort("10.0.0.1:1")
	run := func(b *testing.B, name string, tcp bool) {
		wire, _ := question(name, dns.TypeA).Pack()
		q, out := new(query), make([]byte, 0, maxUDP)
		b.ReportAllocs()
		for b.Loop() {
			*q = query{}
			answer, o := s.serve(out, wire, q, tcp, scope{"n", "n"})
			if o == forward {
				answer, _ = s.atOnce(out, q, tcp, false, client)
			}
			if len(answer) == 0 {
				b.Fatal("no answer")
			}
		}
	}
	b.Run("local", func(b *testing.B) { run(b, "c77.weave.local.", false) })
	m := question("www.example.com.", dns.TypeA)
	q := parsed(b, m)
	s.cache.put(q.forwardKey(nil, s.upstreamsOf(client.Addr())), q, reply(b, m, 0, "www.example.com. 3600 IN A 192.0.2.1"), time.Now())
	b.Run("cached", func(b *testing.B) { run(b, "www.example.com.", false) })
}
