package names

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

func addrs(ss ...string) []netip.Addr {
	var as []netip.Addr
	for _, s := range ss {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func rec(network, name, addr string) Record {
	return Record{Name: name, Network: network, Host: "h1", Addr: netip.MustParseAddr(addr)}
}

func TestAnOwnersRecordsComeAndGoTogether(t *testing.T) {
	tab := NewTable()
	tab.Put("a", []Record{rec("n1", "web", "10.0.0.2"), rec("n1", "web", "fd00::2"), rec("n1", "api", "10.0.0.2")})
	tab.Put("b", []Record{rec("n1", "web", "10.0.0.1"), rec("n2", "web", "10.9.0.1")})
	if got := tab.Lookup("n1", "web"); !slices.Equal(got, addrs("10.0.0.1", "10.0.0.2", "fd00::2")) {
		t.Errorf("web: %v", got)
	}
	if got := tab.Lookup("n2", "web"); !slices.Equal(got, addrs("10.9.0.1")) {
		t.Errorf("web of n2: %v", got)
	}
	if got := tab.Reverse(netip.MustParseAddr("10.0.0.2")); len(got) != 2 || got[0].Name != "api" {
		t.Errorf("reverse: %v", got)
	}
	tab.Put("a", []Record{rec("n1", "db", "10.0.0.3")})
	if got := tab.Lookup("n1", "web"); !slices.Equal(got, addrs("10.0.0.1")) {
		t.Errorf("web after a's change: %v", got)
	}
	tab.Drop("a")
	tab.Drop("a")
	tab.Drop("b")
	if n, r := tab.size(); n != 0 || r != 0 || len(tab.addrs)+len(tab.below) != 0 || len(tab.All()) != 0 {
		t.Errorf("left: %d names, %d records, %v", n, r, tab.All())
	}
}

func TestFooAndfooAreOneName(t *testing.T) {
	tab := NewTable()
	tab.Put("a", []Record{rec("n", "Foo", "10.0.0.1"), rec("n", "foo.", "10.0.0.1"), rec("n", "FOO", "10.0.0.2")})
	if got := tab.Lookup("n", "foo"); !slices.Equal(got, addrs("10.0.0.1", "10.0.0.2")) {
		t.Errorf("got %v", got)
	}
}

func TestRecordsThatNobodyCouldAskForArePassedOver(t *testing.T) {
	tab := NewTable()
	tab.Put("a", []Record{{Name: "ok", Network: "n"}, rec("n", "", "10.0.0.1"), rec("n", "a b", "10.0.0.1"), rec("n", "\x00", "10.0.0.1"), rec("n", strings.Repeat("a", 64), "10.0.0.1")})
	if all := tab.All(); len(all) != 0 {
		t.Errorf("got %v", all)
	}
}

// modelled is an owner of the plainest model of the table.
type modelled struct {
	records []Record
	since   map[netip.Addr]int // when it got each address
}

// counts reports whether a record of an owner is to be answered: its host is there, and
// no other owner got the address later.
func counts(model map[string]modelled, owner string, r Record, served map[string]bool) bool {
	for other, m := range model {
		for _, o := range m.records {
			if other != owner && !r.ByHand && !o.ByHand && o.Network == r.Network && o.Addr == r.Addr && m.since[r.Addr] > model[owner].since[r.Addr] {
				return false
			}
		}
	}
	return served == nil || served[r.Host]
}

// The table against the plainest model of it.
func TestTheTableBehavesLikeAListOfRecords(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	tab, model := NewTable(), map[string]modelled{}
	var served map[string]bool
	for step := 1; step <= 3000; step++ {
		owner := fmt.Sprint("o", rng.IntN(8))
		m := modelled{since: map[netip.Addr]int{}}
		for range rng.IntN(5) {
			r := rec(fmt.Sprint("n", rng.IntN(2)), fmt.Sprint("x", rng.IntN(4)), fmt.Sprint("10.0.0.", rng.IntN(6)))
			r.ByHand, r.Host = owner == "o1", fmt.Sprint("h", rng.IntN(2))
			m.records = append(m.records, r)
			if m.since[r.Addr] = step; model[owner].since[r.Addr] > 0 {
				m.since[r.Addr] = model[owner].since[r.Addr]
			}
		}
		switch rng.IntN(6) {
		case 0, 1:
			tab.Drop(owner)
			delete(model, owner)
		case 2:
			served = map[string]bool{fmt.Sprint("h", rng.IntN(4)): true, "h0": rng.IntN(2) == 0}
			tab.SetServed(served)
		default:
			tab.Put(owner, m.records)
			model[owner] = m
		}
		network, name, addr := fmt.Sprint("n", rng.IntN(2)), fmt.Sprint("x", rng.IntN(4)), netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(6))})
		var all, reverse []Record
		var found []netip.Addr
		for o, m := range model {
			for _, r := range m.records {
				if !counts(model, o, r, served) {
					continue
				}
				all = append(all, r)
				if r.Network == network && r.Name == name {
					found = append(found, r.Addr)
				}
				if r.Addr == addr {
					reverse = append(reverse, r)
				}
			}
		}
		slices.SortFunc(found, netip.Addr.Compare)
		if got := tab.Lookup(network, name); !slices.Equal(got, slices.Compact(found)) {
			t.Fatalf("step %d: lookup %v, want %v", step, got, found)
		}
		if got := tab.exists(network, name); got != (len(found) > 0) {
			t.Fatalf("step %d: exists %v, want %v", step, got, found)
		}
		if got := tab.Reverse(addr); !reflect.DeepEqual(got, sorted(reverse)) {
			t.Fatalf("step %d: reverse %v, want %v", step, got, reverse)
		}
		if got := tab.All(); !reflect.DeepEqual(got, sorted(all)) {
			t.Fatalf("step %d: all %v, want %v", step, got, all)
		}
	}
}

// Word that a container has ended may come after word of the next one that has its address.
func TestANameNeverLeadsToAnAddressThatIsAnotherContainersByNow(t *testing.T) {
	x := addrs("10.0.0.2")
	web := Set{Network: "n", Host: "h1", Names: []string{"web"}, Addrs: x, Services: []Service{{"http", "tcp", 80}}, Texts: []string{"v1"}}
	for what, next := range map[string]Set{
		"one of another host":  {Network: "n", Host: "h2", Names: []string{"db"}, Addrs: x},
		"one of the same host": {Network: "n", Host: "h1", Names: []string{"db"}, Addrs: x},
		"one without a name":   {Network: "n", Host: "h2", Addrs: x},
	} {
		tab := NewTable()
		gone := func() bool {
			return tab.Lookup("n", "web") == nil && tab.texts("n", "web", 10) == nil && tab.services("n", "_http._tcp.web", 10) == nil
		}
		tab.PutSet("old", web)
		tab.PutSet("other network", Set{Network: "n2", Host: "h2", Names: []string{"x"}, Addrs: x})
		tab.PutSet("by hand", Set{Network: "n", Host: "h2", Names: []string{"y"}, Addrs: x, ByHand: true})
		if gone() {
			t.Errorf("%s: what is of another network, or by hand, takes the address", what)
		}
		tab.PutSet("new", next)
		if !gone() {
			t.Errorf("%s: the old name still leads there", what)
		}
		tab.SetServed(map[string]bool{"h1": true})
		if !gone() {
			t.Errorf("%s: the old name leads there again while the new one's router is away", what)
		}
		tab.SetServed(nil)
		tab.PutSet("old", web) // told again, as it was
		if got := tab.Lookup("n", "db"); !gone() || len(next.Names) > 0 && !slices.Equal(got, x) {
			t.Errorf("%s: what is told again is believed more than what came later: db %v", what, got)
		}
		if got := tab.Lookup("n", "y"); !slices.Equal(got, x) {
			t.Errorf("%s: a name by hand is gone: %v", what, got)
		}
		tab.Drop("old")
		tab.Drop("new")
		tab.PutSet("old", web)
		if gone() {
			t.Errorf("%s: the address is free, and its next owner has no name", what)
		}
	}
}

func TestReadersSeeWholeOwnersOnly(t *testing.T) {
	tab := NewTable()
	two := []Record{rec("n", "x", "10.0.0.1"), rec("n", "x", "10.0.0.2")}
	tab.Put("o", two)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	writers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				tab.Put("o", two)
			}
		}
	})
	for range 20000 {
		if got := tab.Lookup("n", "x"); len(got) != 2 {
			t.Errorf("saw %v", got)
			break
		}
	}
	close(stop)
	writers.Wait()
}

func TestValidNames(t *testing.T) {
	for in, out := range map[string]string{
		"web": "web", "WEB-1.": "web-1", "redis-1.prod": "redis-1.prod", "my_db": "my_db", "10": "10",
		strings.Repeat("a", 63): strings.Repeat("a", 63),
	} {
		if got, err := ValidName(in); err != nil || got != out {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ".", "..", "a..b", ".a", "-a", "a-", "a b", "a\x00", "ä", "a/b", "*", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a"} {
		if got, err := ValidName(in); err == nil {
			t.Errorf("%q was taken as %q", in, got)
		}
	}
}

func BenchmarkPutBesideManyNames(b *testing.B) {
	tab := NewTable()
	for i := range 100_000 {
		tab.Put(fmt.Sprint("o", i), []Record{{Name: fmt.Sprint("c", i), Network: "n", Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}})
	}
	r := []Record{rec("n", "web", "10.200.0.1"), rec("n", "api", "10.200.0.1")}
	for b.Loop() {
		tab.Put("me", r)
		tab.Drop("me")
	}
}
