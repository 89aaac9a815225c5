package names

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// talkative are n containers of one name, each with as many texts as it may have.
func talkative(n int, text func(container, i int) string) *Table {
	tab := NewTable()
	for i := range n {
		s := Set{Network: "n", Host: "h", Names: []string{"web"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}}
		for k := range MaxTexts {
			s.Texts = append(s.Texts, text(i, k))
		}
		tab.PutSet(fmt.Sprint(i), s)
	}
	return tab
}

// allocated is how many bytes each run of f makes.
func allocated(f func()) uint64 {
	const runs = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}

func TestWhatANameOfManyIsAskedForCostsWhatItsAnswerCanHold(t *testing.T) {
	r := newResolver("weave.local", talkative(4000, func(c, i int) string { return fmt.Sprint(strings.Repeat("x", 100), c, i) }))
	for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT} {
		wire, _ := question("web.", qtype).Pack()
		n := allocated(func() {
			var q query
			r.handle(nil, wire, &q, false, scope{"n", "n"}, nil)
		})
		if n > 16<<10 {
			t.Errorf("%s: %d bytes for an answer of at most 512", dns.TypeToString[qtype], n)
		}
	}
}

func TestEachAddressAndTextOfANameOfManyIsAnsweredInItsTurn(t *testing.T) {
	const all = 60
	r := newResolver("weave.local", talkative(all, func(c, i int) string { return fmt.Sprint(c, " ", i) }))
	for qtype, want := range map[uint16]int{dns.TypeA: all, dns.TypeTXT: all * MaxTexts} {
		wire, _ := question("web.", qtype).Pack()
		seen := map[string]bool{}
		for range 20 * want {
			var q query
			out, _ := r.handle(nil, wire, &q, false, scope{"n", "n"}, nil)
			m := unpacked(t, out)
			if !m.Truncated || len(m.Answer) == 0 {
				t.Fatalf("%d answers, truncated %v", len(m.Answer), m.Truncated)
			}
			for _, rr := range m.Answer {
				seen[rr.String()] = true
			}
			if len(seen) == want {
				break
			}
		}
		if len(seen) != want {
			t.Errorf("%s: %d of %d were ever answered", dns.TypeToString[qtype], len(seen), want)
		}
	}
}

func TestTextsThatAllSayAreAnsweredOnceAndWhole(t *testing.T) {
	r := newResolver("weave.local", talkative(500, func(_, i int) string { return fmt.Sprint("k=", i) }))
	answer, _ := ask(t, r, "n", question("web.", dns.TypeTXT))
	if len(answer.Answer) != MaxTexts || answer.Truncated {
		t.Errorf("%d texts, truncated %v", len(answer.Answer), answer.Truncated)
	}
}

func TestAnAddressThatIsThereTwiceTakesNoOthersPlace(t *testing.T) {
	tab := NewTable()
	var names []string
	for range 20 {
		names = append(names, "web")
	}
	for i := range 40 {
		a := addrs(fmt.Sprint("10.0.0.", i+1))
		tab.PutSet(fmt.Sprint(i), Set{Network: "n", Host: "h", Names: names, Addrs: a})
		tab.PutSet(fmt.Sprint("hand", i), Set{Network: "n", Host: "h", Names: names, Addrs: a, ByHand: true})
	}
	r := newResolver("weave.local", tab)
	if got := len(tab.Lookup("n", "web")); got != 40 {
		t.Errorf("%d addresses", got)
	}
	wire, _ := question("web.", dns.TypeA).Pack()
	for range 50 {
		var q query
		out, _ := r.handle(nil, wire, &q, false, scope{"n", "n"}, nil)
		if m := unpacked(t, out); len(m.Answer) < 20 || !m.Truncated {
			t.Fatalf("%d of 40 addresses, truncated %v", len(m.Answer), m.Truncated)
		}
	}
}

func TestAContainerWithAllThatItMayHaveTakesLittleMemory(t *testing.T) {
	s := Set{Network: "n", Host: "h"}
	for k := range 64 {
		s.Names = append(s.Names, fmt.Sprint("alias-", k))
	}
	for k := range MaxServices {
		s.Services = append(s.Services, Service{fmt.Sprint("s", k), "tcp", 80})
	}
	for k := range MaxTexts {
		s.Texts = append(s.Texts, fmt.Sprint("t", k))
	}
	tab, i := NewTable(), 0
	n := allocated(func() {
		i++
		s.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		tab.PutSet(fmt.Sprint(i), s)
	})
	if n > 128<<10 {
		t.Errorf("%d KB", n>>10)
	}
}
