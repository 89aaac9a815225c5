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
	if n, r := tab.size(); n != 0 || r != 0 || len(tab.addrs) != 0 || len(tab.All()) != 0 {
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

// The table against the plainest model of it.
func TestTheTableBehavesLikeAListOfRecords(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	tab, model := NewTable(), map[string][]Record{}
	for step := range 3000 {
		owner := fmt.Sprint("o", rng.IntN(8))
		var rs []Record
		for range rng.IntN(5) {
			rs = append(rs, rec(fmt.Sprint("n", rng.IntN(2)), fmt.Sprint("x", rng.IntN(4)), fmt.Sprint("10.0.0.", rng.IntN(6))))
		}
		if rng.IntN(3) == 0 {
			tab.Drop(owner)
			delete(model, owner)
		} else {
			tab.Put(owner, rs)
			model[owner] = rs
		}
		network, name, addr := fmt.Sprint("n", rng.IntN(2)), fmt.Sprint("x", rng.IntN(4)), netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(6))})
		var all, reverse []Record
		var found []netip.Addr
		for _, rs := range model {
			all = append(all, rs...)
			for _, r := range rs {
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
		if got := tab.Reverse(addr); !reflect.DeepEqual(got, sorted(reverse)) {
			t.Fatalf("step %d: reverse %v, want %v", step, got, reverse)
		}
		if got := tab.All(); !reflect.DeepEqual(got, sorted(all)) {
			t.Fatalf("step %d: all %v, want %v", step, got, all)
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
