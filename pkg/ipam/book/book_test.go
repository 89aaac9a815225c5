package book

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"pgregory.net/rapid"
)

var (
	net4 = netip.MustParsePrefix("10.32.0.0/12")
	net6 = netip.MustParsePrefix("fd00:1::/64")
)

func rng(a, b string) addr.Range {
	return addr.Range{First: netip.MustParseAddr(a), Last: netip.MustParseAddr(b)}
}

func key(i int) attachment.Key {
	return attachment.Key{Network: "weave", ContainerID: fmt.Sprint("c", i), IfName: "eth0"}
}

func claim(i int, addrs ...netip.Prefix) Claim {
	k := key(i)
	return Claim{Hash: k.Hash(), Key: k, Network: "weave", Addrs: addrs, Decider: ctl.DecidedByVeth, State: Attached}
}

func owning(own4, own6 []addr.Range) *Book {
	b := New()
	b.Sync([]Subnet{{"weave", net4, own4}, {"weave", net6, own6}})
	return b
}

// give allocates one IPv4 address.
func give(t testing.TB, b *Book, i int) netip.Prefix {
	t.Helper()
	p, ok := b.Pick(key(i).Hash(), "weave", true, Bounds{})
	if !ok {
		t.Fatalf("nothing to give to %d", i)
	}
	b.Put(claim(i, p))
	return p
}

func TestTheEndsOfASubnetAreGivenToNobody(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.0", "10.32.0.3"), rng("10.47.255.254", "10.47.255.255")}, []addr.Range{rng("fd00:1::", "fd00:1::2")})
	var got []string
	for i := range 4 {
		got = append(got, give(t, b, i).String())
	}
	if want := []string{"10.32.0.1/12", "10.32.0.2/12", "10.32.0.3/12", "10.47.255.254/12"}; !slices.Equal(got, want) {
		t.Errorf("gave %v, want %v", got, want)
	}
	if p, ok := b.Pick("x", "weave", true, Bounds{}); ok {
		t.Errorf("gave %v", p)
	}
	if p, ok := b.Pick("x", "weave", false, Bounds{}); !ok || p.String() != "fd00:1::1/64" {
		t.Errorf("IPv6: gave %v", p)
	}
	if u := b.Use("weave", net4, false); u.Usable != 4 || u.Used != 4 || u.Free() != 0 {
		t.Errorf("use %+v", u)
	}
}

func TestAFreedAddressRestsWhileOthersAreFree(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.4")}, nil)
	first := give(t, b, 1)
	b.Release(key(1).Hash(), 0)
	second := give(t, b, 2)
	if second == first {
		t.Fatal("given again at once, with three others free")
	}
	b.Release(key(2).Hash(), 0)
	give(t, b, 3)
	give(t, b, 4)
	if p := give(t, b, 5); p != first {
		t.Errorf("gave %v, want %v that has rested longest", p, first)
	}
	if p := give(t, b, 6); p != second {
		t.Errorf("gave %v, want %v", p, second)
	}
}

func TestAnAddressRestsForATimeUnlessItsHolderComesBack(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.2")}, nil)
	p := give(t, b, 1)
	b.Release(key(1).Hash(), time.Minute)
	late := time.Minute + RestFor
	if !b.Rests(p.Addr(), key(2).Hash(), late-1) || b.Rests(p.Addr(), key(2).Hash(), late) {
		t.Error("it does not rest for just RestFor")
	}
	if b.Rests(p.Addr(), key(1).Hash(), time.Minute) {
		t.Error("it rests for the one that had it")
	}
	if n, later := b.Resting("weave", net4, late-1), b.Resting("weave", net4, late); n != 1 || later != 0 {
		t.Errorf("%d rest, later %d", n, later)
	}
	other := give(t, b, 2)
	moved := claim(2)
	moved.Since = 2 * time.Minute
	b.Put(moved) // it gives its address up
	if !b.Rests(other.Addr(), "x", 2*time.Minute) {
		t.Error("an address that its holder gave up does not rest")
	}
}

func TestAFreshAddressOfAnotherSubnetComesBeforeAFreedOne(t *testing.T) {
	b, second := New(), netip.MustParsePrefix("10.64.0.0/16")
	b.Sync([]Subnet{{"weave", net4, []addr.Range{rng("10.32.0.1", "10.32.0.1")}}, {"weave", second, []addr.Range{rng("10.64.0.1", "10.64.0.1")}}})
	p := give(t, b, 1)
	b.Release(key(1).Hash(), 0)
	q := give(t, b, 2)
	if q == p {
		t.Fatalf("gave %v again", p)
	}
	b.Release(key(2).Hash(), 0)
	if got := give(t, b, 3); got != p {
		t.Errorf("gave %v, but %v was freed first", got, p)
	}
}

func TestTheMemoryOfWhatWasFreedIsBounded(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.20")}, []addr.Range{rng("fd00:1::", "fd00:1::ffff:ffff")})
	for i := range 100 {
		b.Put(claim(i)) // of layer 2 only
		b.Release(key(i).Hash(), 0)
		c := claim(100+i, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 0, byte(i)}), 24))
		c.Borrowed = true
		b.Put(c)
		b.Release(c.Hash, 0)
	}
	if len(b.former) != 0 || len(b.freed) != 0 {
		t.Errorf("without an address to give: %d formers, %d freed", len(b.former), len(b.freed))
	}
	for i := range 10 {
		give(t, b, i)
		b.Release(key(i).Hash(), 0)
	}
	b.Sync([]Subnet{{"weave", net4, nil}, {"weave", net6, []addr.Range{rng("fd00:1::", "fd00:1::ffff:ffff")}}})
	if len(b.former) != 0 {
		t.Errorf("%d formers of addresses that are lost", len(b.former))
	}
	for i := range manyFreed + 1000 {
		p, _ := b.Pick(key(i).Hash(), "weave", false, Bounds{})
		b.Put(claim(i, p))
		b.Release(key(i).Hash(), 0)
	}
	if len(b.former) > manyFreed || len(b.freed) > manyFreed {
		t.Errorf("after churn: %d formers, %d freed", len(b.former), len(b.freed))
	}
}

func TestAKeyGetsTheAddressThatItHad(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.3")}, nil)
	p := give(t, b, 1)
	b.Release(key(1).Hash(), 0)
	give(t, b, 2)
	if got := give(t, b, 1); got != p {
		t.Errorf("gave %v, had %v", got, p)
	}
	b.Release(key(1).Hash(), 0)
	give(t, b, 3)
	give(t, b, 4) // gets it, all others being held
	if got, ok := b.Pick(key(1).Hash(), "weave", true, Bounds{}); ok {
		t.Errorf("gave %v, which is held", got)
	}
}

func TestALostBlockIsNotGivenFromAndItsClaimsAreForeign(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.10")}, nil)
	p := give(t, b, 1)
	give(t, b, 2)
	b.Release(key(2).Hash(), 0)
	b.Sync([]Subnet{{"weave", net4, []addr.Range{rng("10.32.0.9", "10.32.0.10"), rng("10.33.0.0", "10.33.0.0")}}})
	if got := b.Foreign("weave", net4); len(got) != 1 || got[0] != p.Addr() || b.Owns(p.Addr()) {
		t.Errorf("foreign %v", got)
	}
	var got []string
	for i := range 3 {
		got = append(got, give(t, b, 10+i).Addr().String())
	}
	if want := []string{"10.32.0.9", "10.32.0.10", "10.33.0.0"}; !slices.Equal(got, want) {
		t.Errorf("gave %v, want %v", got, want)
	}
	if u := b.Use("weave", net4, true); u != (Use{3, 3, 1}) {
		t.Errorf("use %+v", u)
	}
	b.Release(key(1).Hash(), 0)
	if _, ok := b.Pick("x", "weave", true, Bounds{}); ok {
		t.Error("a released foreign address was given")
	}
}

func TestTwoHoldersOfOneAddressBothCount(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.1")}, nil)
	p := netip.MustParsePrefix("10.32.0.1/12")
	b.Put(claim(1, p))
	b.Put(claim(2, p))
	b.Release(key(1).Hash(), 0)
	if _, ok := b.Pick("x", "weave", true, Bounds{}); ok {
		t.Error("given while the second still holds it")
	}
	b.Release(key(2).Hash(), 0)
	if _, ok := b.Pick("x", "weave", true, Bounds{}); !ok {
		t.Error("not given after both had left it")
	}
}

func TestAPartOfASubnetCanBeAskedFor(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.0", "10.32.3.255")}, nil)
	part := Bounds{Within: netip.MustParsePrefix("10.32.2.0/24")}
	for i := range 256 {
		p, ok := b.Pick(key(i).Hash(), "weave", true, part)
		if !ok || !part.Contains(p.Addr()) || p.Bits() != 12 {
			t.Fatalf("address %d: %v, %v", i, p, ok)
		}
		b.Put(claim(i, p))
	}
	if p, ok := b.Pick("x", "weave", true, part); ok {
		t.Errorf("gave %v of a full part", p)
	}
	if p := give(t, b, 1000); p.Addr().String() != "10.32.0.1" {
		t.Errorf("elsewhere: gave %v", p)
	}
	b.Release(key(7).Hash(), 0)
	if p, ok := b.Pick("x", "weave", true, part); !ok || p.Addr().String() != "10.32.2.7" {
		t.Errorf("gave %v, want the one that was freed", p)
	}
}

func kernel(i int, addrs ...netip.Prefix) Kernel {
	k := key(i)
	return Kernel{Alias: attachment.Alias{Hash: k.Hash(), Network: k.Network, MAC: k.MAC(addrs), Addrs: addrs}, Veth: k.Veth(), Network: "weave"}
}

func TestReconcileReleasesOnlyWhatIsTrulyGone(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.100")}, nil)
	for i := range 5 {
		give(t, b, i)
	}
	set := func(i int, f func(*Claim)) { c, _ := b.Claim(key(i).Hash()); f(&c); b.Put(c) }
	set(1, func(c *Claim) { c.Decider = ctl.DecidedByClaim })
	set(2, func(c *Claim) { c.State, c.Deadline = Reserved, 30*time.Second })
	set(3, func(c *Claim) { c.State, c.Deadline = Reserved, 30*time.Second })
	present := []Kernel{kernel(0), kernel(3)} // 3: an ADD that never finished, but its veth is there

	gone := func(now time.Duration, present []Kernel) (hashes []string) {
		cs, _ := b.Reconcile(present, "boot", now)
		for _, c := range cs {
			hashes = append(hashes, c.Key.ContainerID)
		}
		return hashes
	}
	for _, step := range []struct {
		at      time.Duration
		present []Kernel
		want    []string
	}{
		{0, present, nil},
		{1 * time.Second, present, nil}, // too soon after the first sighting
		{1500 * time.Millisecond, append(present, kernel(4)), nil}, // it was there after all
		{2500 * time.Millisecond, present, nil},                    // counting anew
		{4 * time.Second, present, nil},                            //
		{4500 * time.Millisecond, present, []string{"c4"}},         //
		{29 * time.Second, present, nil},                           //
		{30 * time.Second, present, nil},                           // the reservation of 2 is over: first sighting
		{32 * time.Second, present, []string{"c2"}},                //
		{time.Hour, present, nil},                                  // 1 is decided by its claim, 3 has a veth
		{2 * time.Hour, []Kernel{kernel(0)}, nil},                  //
		{2*time.Hour + 2*time.Second, []Kernel{kernel(0)}, []string{"c3"}},
	} {
		if got := gone(step.at, step.present); !slices.Equal(got, step.want) {
			t.Fatalf("at %v released %v, want %v", step.at, got, step.want)
		}
	}
	if n := len(b.Claims()); n != 2 {
		t.Errorf("%d claims left, want 0 and 1", n)
	}
}

func TestReconcileAdoptsAVethWithoutAClaimAtTheSecondSighting(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.100")}, nil)
	p := netip.MustParsePrefix("10.32.0.1/12")
	for _, step := range []struct {
		at   time.Duration
		want int
	}{{0, 0}, {time.Second, 0}, {2 * time.Second, 1}, {5 * time.Second, 0}} {
		if _, adopted := b.Reconcile([]Kernel{kernel(1, p)}, "boot", step.at); len(adopted) != step.want {
			t.Fatalf("at %v adopted %v", step.at, adopted)
		}
	}
	if got := give(t, b, 2); got == p {
		t.Error("its address was given to another")
	}
}

func TestGarbageIsOldUnlistedAndUninhabited(t *testing.T) {
	b := owning([]addr.Range{rng("10.32.0.1", "10.32.0.100")}, nil)
	for i := range 6 {
		p := give(t, b, i)
		c := claim(i, p)
		c.NetNS = attachment.NSID{Dev: 4, Ino: uint64(100 + i)}
		switch i {
		case 1:
			c.Since = 50 * time.Second
		case 2:
			c.NetNS = attachment.NSID{}
		case 3:
			c.Key.Network = "other"
		}
		b.Put(c)
	}
	host := HostKey("weave")
	b.Put(Claim{Hash: host.Hash(), Key: host, Network: "weave", Decider: ctl.DecidedByClaim, NetNS: attachment.NSID{Dev: 4, Ino: 1}})
	alive := func(id attachment.NSID) bool { return id.Ino == 104 }
	var got []string
	for _, c := range b.Stale("weave", map[string]bool{key(0).Hash(): true}, alive, time.Minute) {
		got = append(got, c.Key.ContainerID)
	}
	// 0 is valid, 1 young, 2 of unknown namespace, 3 of another network, 4 inhabited.
	if want := []string{"c5"}; !slices.Equal(got, want) {
		t.Errorf("garbage %v, want %v", got, want)
	}
}

// TestBookAgainstAModel plays random claims, releases and changes of ownership
// against a plain set.
func TestBookAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{b: New(), held: map[netip.Addr]int{}, had: map[netip.Addr]int{}, claims: map[int][]netip.Prefix{}}
		m.sync(t)
		t.Repeat(map[string]func(*rapid.T){
			"sync": m.sync, "give": m.give, "request": m.request, "release": m.release, "": m.check,
		})
		m.exhaust(t)
	})
}

type model struct {
	b      *Book
	own    [2][]addr.Range
	held   map[netip.Addr]int
	had    map[netip.Addr]int // whose an address was last
	claims map[int][]netip.Prefix
}

var (
	small4 = netip.MustParsePrefix("10.0.0.0/28")
	small6 = netip.MustParsePrefix("fd00::/124")
	smalls = []netip.Prefix{small4, small6}
)

func (m *model) sync(t *rapid.T) {
	var subnets []Subnet
	for i, p := range smalls {
		var own []addr.Range
		a := p.Addr()
		for _, mine := range rapid.SliceOfN(rapid.Bool(), 16, 16).Draw(t, "owned") {
			if n := len(own); mine && n > 0 && own[n-1].Last.Next() == a {
				own[n-1].Last = a
			} else if mine {
				own = append(own, addr.Range{First: a, Last: a})
			}
			a = a.Next()
		}
		m.own[i] = own
		subnets = append(subnets, Subnet{"weave", p, own})
	}
	m.b.Sync(subnets)
}

func (m *model) owns(a netip.Addr) bool {
	for _, own := range m.own {
		for _, r := range own {
			if r.Contains(a) {
				return true
			}
		}
	}
	return false
}

// free lists what may be given of a family, within bounds.
func (m *model) free(i int, within func(netip.Addr) bool) (out []netip.Addr) {
	for a := smalls[i].Addr(); smalls[i].Contains(a); a = a.Next() {
		if _, held := m.held[a]; !held && m.owns(a) && !reserved(smalls[i], a) && within(a) {
			out = append(out, a)
		}
	}
	return out
}

func (m *model) give(t *rapid.T) {
	i, who := rapid.IntRange(0, 1).Draw(t, "family"), rapid.IntRange(0, 30).Draw(t, "who")
	if _, has := m.claims[who]; has {
		t.Skip("has one")
	}
	var within Bounds
	if rapid.Bool().Draw(t, "bounded") {
		within.Within = netip.PrefixFrom(smalls[i].Addr(), smalls[i].Bits()+1)
	}
	for range rapid.IntRange(0, 2).Draw(t, "excluded") {
		first, _ := addr.Add(smalls[i].Addr(), rapid.Uint64Range(0, 15).Draw(t, "first"))
		last, _ := addr.Add(first, rapid.Uint64Range(0, 5).Draw(t, "more"))
		if r := (addr.Range{First: first, Last: last}); rapid.Bool().Draw(t, "kept") {
			within.Kept = append(within.Kept, r)
		} else {
			within.But = append(within.But, r)
		}
	}
	p, ok := m.b.Pick(key(who).Hash(), "weave", i == 0, within)
	last, had := m.had[p.Addr()]
	chosen, may := m.free(i, within.chooses), m.free(i, within.Contains)
	if !ok && len(chosen) > 0 || ok && !slices.Contains(chosen, p.Addr()) && !(had && last == who && slices.Contains(may, p.Addr())) {
		t.Fatalf("picked %v, %v; of %v, and of what it had %v", p, ok, chosen, may)
	}
	if ok {
		m.put(who, p)
	}
}

// request claims any address at all, owned or not, as an adopted attachment might.
func (m *model) request(t *rapid.T) {
	i, who := rapid.IntRange(0, 1).Draw(t, "family"), rapid.IntRange(0, 30).Draw(t, "who")
	a, _ := addr.Add(smalls[i].Addr(), rapid.Uint64Range(0, 15).Draw(t, "which"))
	if _, taken := m.held[a]; taken || len(m.claims[who]) > 0 {
		t.Skip("taken")
	}
	m.put(who, netip.PrefixFrom(a, smalls[i].Bits()))
}

func (m *model) put(who int, p netip.Prefix) {
	m.b.Put(claim(who, p))
	m.claims[who], m.held[p.Addr()], m.had[p.Addr()] = []netip.Prefix{p}, who, who
}

func (m *model) release(t *rapid.T) {
	who := rapid.IntRange(0, 30).Draw(t, "who")
	_, ok := m.b.Release(key(who).Hash(), 0)
	if ok != (len(m.claims[who]) > 0) {
		t.Fatalf("released: %v", ok)
	}
	for _, p := range m.claims[who] {
		delete(m.held, p.Addr())
	}
	delete(m.claims, who)
}

func (m *model) check(t *rapid.T) {
	for i, p := range smalls {
		var used, foreign uint64
		for a := range m.held {
			if p.Contains(a) && m.owns(a) && !reserved(p, a) {
				used++
			} else if p.Contains(a) && !m.owns(a) {
				foreign++
			}
		}
		if u := m.b.Use("weave", p, true); u.Used != used || u.Foreign != foreign {
			t.Fatalf("family %d: use %+v, want %d used, %d foreign", i, u, used, foreign)
		}
	}
}

// exhaust takes all that is left: just the free ones, each once.
func (m *model) exhaust(t *rapid.T) {
	for i := range smalls {
		want := len(m.free(i, Bounds{}.Contains))
		for n := 0; ; n++ {
			who := 1000 + 100*i + n
			p, ok := m.b.Pick(key(who).Hash(), "weave", i == 0, Bounds{})
			if !ok {
				if n != want {
					t.Fatalf("family %d: %d could be given, %d were free", i, n, want)
				}
				break
			}
			if _, held := m.held[p.Addr()]; held || !m.owns(p.Addr()) {
				t.Fatalf("gave %v", p)
			}
			m.put(who, p)
		}
	}
}

func TestWhatANetworkFreedIsForgottenWithIt(t *testing.T) {
	b := New()
	p := netip.MustParsePrefix("10.48.0.0/24")
	here := Subnet{Network: "n", Prefix: p, Own: []addr.Range{addr.RangeOf(p)}}
	kept := Subnet{Network: "weave", Prefix: netip.MustParsePrefix("10.32.0.0/24"), Own: []addr.Range{addr.RangeOf(netip.MustParsePrefix("10.32.0.0/24"))}}
	b.Sync([]Subnet{here, kept})
	for i, n := range []string{"n", "weave"} {
		a, _ := b.Pick("h", n, true, Bounds{})
		b.Put(Claim{Hash: fmt.Sprint("h", i), Network: n, Addrs: []netip.Prefix{a}})
		b.Release(fmt.Sprint("h", i), 0)
	}
	b.Sync([]Subnet{kept})
	if len(b.freed) != 1 || len(b.former) != 1 {
		t.Errorf("%v, %v", b.freed, b.former)
	}
}
