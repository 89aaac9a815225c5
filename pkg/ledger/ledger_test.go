package ledger

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

func pfx(s ...string) (ps []netip.Prefix) {
	for _, x := range s {
		ps = append(ps, netip.MustParsePrefix(x))
	}
	return ps
}

// founded is a cluster with n members, ids 1 to n, named m1 to mn.
func founded(t interface{ Fatalf(string, ...any) }, n int, subnets ...string) *State {
	s := New()
	must := func(c Command) {
		if r := s.Apply(s.Index()+1, c); r.Code != OK {
			t.Fatalf("%+v: %s", c, r.Err)
		}
	}
	must(Command{Found: &Found{"cluster", Network{ID: idOf("weave"), Name: "weave", Driver: "weave", MTU: 1400, Subnets: pfx(subnets...)}}})
	for i := range n {
		must(Command{Join: &Join{Member{ID: MemberID(i + 1), Name: fmt.Sprintf("m%d", i+1)}}})
	}
	return s
}

func (s *State) do(c Command) Result { return s.Apply(s.Index()+1, c) }

func (s *State) grab(id MemberID, subnet string, want uint64, early bool) Result {
	return s.do(Command{Take: &Take{ID: id, Network: "weave", Subnet: netip.MustParsePrefix(subnet), Want: want, Early: early}})
}

func TestFoundingMakesTheDefaultNetwork(t *testing.T) {
	s := founded(t, 1, "10.32.0.0/12")
	n, ok := s.Network("weave")
	if !ok || n.VNI != FirstVNI || len(n.ID) != 64 || n.MTU != 1400 || s.Cluster() != "cluster" {
		t.Errorf("%+v", n)
	}
	if r := s.do(Command{Found: &Found{"other", n}}); r.Code != CodeTaken {
		t.Errorf("founded twice: %+v", r)
	}
	if r := s.do(Command{Found: &Found{"cluster", n}}); r.Code != OK {
		t.Errorf("the same founding again: %+v", r)
	}
}

func TestNothingButFoundingWorksBeforeFounding(t *testing.T) {
	s := New()
	if r := s.do(Command{Join: &Join{Member{ID: 1, Name: "a"}}}); r.Code != CodeUnknown {
		t.Errorf("%+v", r)
	}
	if r := s.do(Command{}); r.Code != CodeInvalid {
		t.Errorf("%+v", r)
	}
}

func TestALargePoolGivesWhatIsWanted(t *testing.T) {
	s := founded(t, 1000, "10.32.0.0/12")
	for id := range 1000 {
		r := s.grab(MemberID(id+1), "10.32.0.0/12", 256, true)
		if r.Code != OK || len(r.Ranges) != 1 || r.Ranges[0].Size() != 256 {
			t.Fatalf("member %d: %+v", id+1, r)
		}
	}
	if n := len(s.Owners("weave", netip.MustParsePrefix("10.32.0.0/12"))); n != 1000 {
		t.Errorf("%d pieces", n)
	}
}

func TestASmallSubnetIsShared(t *testing.T) {
	s := founded(t, 5, "10.0.0.0/24")
	for round := range 4 { // all of them ask for 256, and again
		for id := MemberID(1); id <= 5; id++ {
			r := s.grab(id, "10.0.0.0/24", 256, true)
			if round == 0 && (r.Code != OK || r.Ranges[0].Size() < 8) {
				t.Errorf("member %d: %+v", id, r)
			}
		}
	}
	if s.Pool("weave", netip.MustParsePrefix("10.0.0.0/24")) == 0 {
		t.Error("asking early drained the pool")
	}
	total := 0
	for range 1000 { // who needs one gets one, until there is none
		r := s.grab(3, "10.0.0.0/24", 1, false)
		if r.Code == CodeEmpty {
			break
		}
		if r.Code != OK {
			t.Fatalf("%+v", r)
		}
		total++
	}
	if total == 0 || s.Pool("weave", netip.MustParsePrefix("10.0.0.0/24")) != 0 {
		t.Errorf("%d addresses were given, the pool is not empty", total)
	}
}

func TestTheFirstOfManyLeavesSomethingForTheOthers(t *testing.T) {
	s := founded(t, 1, "10.0.0.0/24")
	s.grab(1, "10.0.0.0/24", 256, true)
	s.grab(1, "10.0.0.0/24", 256, true)
	for id := MemberID(2); id <= 5; id++ {
		s.do(Command{Join: &Join{Member{ID: id, Name: fmt.Sprint("m", id)}}})
		if r := s.grab(id, "10.0.0.0/24", 256, true); r.Code != OK || r.Ranges[0].Size() < 8 {
			t.Errorf("member %d: %+v", id, r)
		}
	}
}

func TestBlocksAreAlignedAndMerged(t *testing.T) {
	s := founded(t, 2, "10.32.0.0/16")
	sub := netip.MustParsePrefix("10.32.0.0/16")
	s.do(Command{TakeAddr: &TakeAddr{ID: 2, Network: "weave", Addr: netip.MustParseAddr("10.32.0.3")}})
	r := s.grab(1, "10.32.0.0/16", 200, false)
	if want := (addr.Range{First: netip.MustParseAddr("10.32.1.0"), Last: netip.MustParseAddr("10.32.1.255")}); len(r.Ranges) != 1 || r.Ranges[0] != want {
		t.Errorf("%+v", r)
	}
	s.grab(1, "10.32.0.0/16", 256, false)
	if own := s.Owned("weave", sub, 1); len(own) != 1 || own[0].Size() != 512 {
		t.Errorf("not merged: %v", own)
	}
}

func TestAnAddressOfAnotherIsRefusedWithItsOwnersName(t *testing.T) {
	s := founded(t, 2, "10.0.0.0/24", "fd00::/64")
	for _, a := range []string{"10.0.0.9", "fd00::9"} {
		take := func(id MemberID) Result {
			return s.do(Command{TakeAddr: &TakeAddr{ID: id, Network: "weave", Addr: netip.MustParseAddr(a)}})
		}
		if r := take(1); r.Code != OK || r.Ranges[0].Size() != 1 {
			t.Errorf("%+v", r)
		}
		if r := take(1); r.Code != OK {
			t.Errorf("one's own again: %+v", r)
		}
		if r := take(2); r.Code != CodeTaken || r.Owner != 1 || !strings.Contains(r.Err, "host m1") {
			t.Errorf("%+v", r)
		}
	}
	for _, a := range []string{"10.0.1.0", "fd01::1", "::ffff:10.0.0.1", "fd00::1%eth0"} {
		if r := s.do(Command{TakeAddr: &TakeAddr{ID: 1, Network: "weave", Addr: netip.MustParseAddr(a)}}); r.Code == OK {
			t.Errorf("%s was granted", a)
		}
	}
	if r := s.do(Command{TakeAddr: &TakeAddr{ID: 1, Network: "weave"}}); r.Code != CodeUnknown {
		t.Errorf("no address: %+v", r)
	}
}

func TestOnlyTheOwnerGivesBackAndAllOrNothing(t *testing.T) {
	s := founded(t, 2, "10.0.0.0/20")
	own := s.grab(1, "10.0.0.0/20", 64, false).Ranges[0]
	other := s.grab(2, "10.0.0.0/20", 64, false).Ranges[0]
	before := s.Dump().Networks
	for _, rs := range [][]addr.Range{{own, other}, {own, own}, {{First: own.First, Last: other.Last}}, {{}}, {{First: own.Last, Last: own.First}}} {
		if r := s.do(Command{Give: &Give{ID: 1, Network: "weave", Ranges: rs}}); r.Code == OK {
			t.Errorf("%v was taken back", rs)
		}
	}
	if !reflect.DeepEqual(before, s.Dump().Networks) {
		t.Error("a refused command changed something")
	}
	mid := addr.Range{First: own.First.Next(), Last: own.Last.Prev()}
	if r := s.do(Command{Give: &Give{ID: 1, Network: "weave", Ranges: []addr.Range{mid}}}); r.Code != OK {
		t.Fatalf("%+v", r)
	}
	if got := s.Owned("weave", netip.MustParsePrefix("10.0.0.0/20"), 1); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

func TestACommandHappensOnce(t *testing.T) {
	s := founded(t, 2, "10.0.0.0/20")
	take := func(seq uint64) Result {
		return s.do(Command{From: 1, Seq: seq, Take: &Take{ID: 1, Network: "weave", Subnet: netip.MustParsePrefix("10.0.0.0/20"), Want: 16}})
	}
	first := take(7)
	if again := take(7); !reflect.DeepEqual(first, again) {
		t.Errorf("%+v, then %+v", first, again)
	}
	if r := take(6); r.Code != CodeStale {
		t.Errorf("an older one: %+v", r)
	}
	if got := s.Pool("weave", netip.MustParsePrefix("10.0.0.0/20")); got != 4096-16 {
		t.Errorf("the pool has %d", got)
	}
	if r := s.Apply(s.Index(), Command{}); r.Code != CodeStale {
		t.Errorf("an entry twice: %+v", r)
	}
	if r := s.do(Command{From: 1, Seq: 7, Take: &Take{ID: 1, Network: "weave", Subnet: netip.MustParsePrefix("10.0.0.0/20"), Want: 17}}); r.Code != CodeStale {
		t.Errorf("another one under its number: %+v", r)
	}
	if seq, res := s.Last(1); seq != 7 || !reflect.DeepEqual(res, first) {
		t.Errorf("remembered: %d %+v", seq, res)
	}
}

func TestNobodySpeaksForAnother(t *testing.T) {
	s := founded(t, 2, "10.0.0.0/20")
	if r := s.do(Command{From: 2, Seq: 1, Leave: &Leave{1}}); r.Code != CodeInvalid {
		t.Errorf("%+v", r)
	}
	if r := s.do(Command{From: 3, Seq: 1, DelNetwork: &DelNetwork{Name: "weave"}}); r.Code != CodeGone {
		t.Errorf("a stranger: %+v", r)
	}
}

func TestANameJoinedAgainReplacesAndKeepsTheBlocksApart(t *testing.T) {
	s := founded(t, 2, "10.0.0.0/20")
	sub := netip.MustParsePrefix("10.0.0.0/20")
	s.grab(1, "10.0.0.0/20", 16, false)
	if r := s.do(Command{Join: &Join{Member{ID: 9, Name: "m1"}}}); r.Code != OK {
		t.Fatal(r.Err)
	}
	if m, _ := s.MemberByName("m1"); m.ID != 9 {
		t.Errorf("%+v", m)
	}
	if len(s.Owned("weave", sub, 1)) != 1 || len(s.Owned("weave", sub, 9)) != 0 {
		t.Error("blocks changed hands without proof")
	}
	if r := s.grab(1, "10.0.0.0/20", 16, false); r.Code != CodeGone {
		t.Errorf("a replaced member took: %+v", r)
	}
	if r := s.do(Command{Join: &Join{Member{ID: 1, Name: "m1"}}}); r.Code != CodeGone {
		t.Errorf("it joined again under the old id: %+v", r)
	}
}

func TestAReplacedMemberWithoutBlocksIsForgottenInTime(t *testing.T) {
	s := founded(t, 1, "10.0.0.0/20")
	for id := MemberID(2); id < 3000; id++ {
		s.do(Command{From: id - 1, Seq: 1, DelNetwork: &DelNetwork{Name: "weave"}})
		if r := s.do(Command{Join: &Join{Member{ID: id, Name: "m1"}}}); r.Code != OK {
			t.Fatal(r.Err)
		}
	}
	if d := s.Dump(); len(d.Members) > maxLeft+1 || len(d.Recalls) > 1 {
		t.Errorf("%d members and %d commands are remembered", len(d.Members), len(d.Recalls))
	}
	if _, err := Load(s.Dump()); err != nil {
		t.Error(err)
	}
}

func TestWhoLeavesLeavesNothingBehind(t *testing.T) {
	s := founded(t, 3, "10.0.0.0/20", "fd00::/64")
	s.grab(1, "10.0.0.0/20", 16, false)
	s.grab(1, "fd00::/64", 1<<20, false)
	s.grab(2, "10.0.0.0/20", 16, false)
	for range 2 {
		if r := s.do(Command{Leave: &Leave{1}}); r.Code != OK {
			t.Fatal(r.Err)
		}
	}
	if n := s.Pool("weave", netip.MustParsePrefix("10.0.0.0/20")); n != 4096-16 {
		t.Errorf("pool: %d", n)
	}
	if n := s.Pool("weave", netip.MustParsePrefix("fd00::/64")); n != math.MaxUint64 {
		t.Errorf("pool: %d", n)
	}
}

func TestNetworksNeverOverlapAndVNIsAreUnique(t *testing.T) {
	s := founded(t, 1, "10.32.0.0/12")
	seen := map[uint32]bool{}
	for i := range 20 {
		r := s.do(Command{AddNetwork: &AddNetwork{Network{Name: fmt.Sprint("n", i), Driver: "weave"}, []Choice{{netip.MustParsePrefix("10.48.0.0/16"), 20}}}})
		if (r.Code == OK) != (i < 16) {
			t.Fatalf("network %d: %+v", i, r)
		}
	}
	for _, n := range s.Networks() {
		if seen[n.VNI] {
			t.Errorf("VNI %d twice", n.VNI)
		}
		seen[n.VNI] = true
	}
	for _, c := range []AddNetwork{
		{Network{Name: "x", Subnets: pfx("10.32.5.0/24")}, nil},
		{Network{Name: "x", Subnets: pfx("10.0.0.0/8")}, nil},
		{Network{Name: "x", Subnets: pfx("11.0.0.0/16", "11.0.1.0/24")}, nil},
		{Network{Name: "x", Subnets: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("11.0.0.1"), 24)}}, nil},
		{Network{Name: "x", Subnets: []netip.Prefix{{}}}, nil},
		{Network{Name: "x y"}, nil},
		{Network{Name: "weave"}, nil},
		{Network{Name: "x", VNI: FirstVNI}, nil},
		{Network{Name: "x", VNI: 1 << 24}, nil},
		{Network{Name: "x", ID: "ab"}, nil},
		{Network{Name: "x", MTU: -1}, nil},
		{Network{Name: "x"}, []Choice{{netip.MustParsePrefix("10.48.0.0/16"), 12}}},
		{Network{Name: "x"}, []Choice{{netip.Prefix{}, 12}}},
	} {
		if r := s.do(Command{AddNetwork: &c}); r.Code == OK {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestOldStatesStayAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := founded(t, 3, "10.0.0.0/22", "fd00::/64")
		type old struct {
			state *State
			dump  string
		}
		var olds []old
		for range 30 {
			olds = append(olds, old{s, fmt.Sprintf("%+v", s.Dump())})
			s = s.Clone()
			s.do(anyCommand(t))
		}
		for i, o := range olds {
			if fmt.Sprintf("%+v", o.state.Dump()) != o.dump {
				t.Fatalf("state %d changed under its readers", i)
			}
		}
	})
}

// anyCommand is mostly sensible, sometimes not.
func anyCommand(t *rapid.T) Command {
	id := MemberID(rapid.Uint64Range(0, 7).Draw(t, "member"))
	net := rapid.SampledFrom([]string{"weave", "weave", "weave", "n1", ""}).Draw(t, "network")
	sub := rapid.SampledFrom(append(pfx("10.0.0.0/22", "fd00::/64", "10.9.0.0/24"), netip.Prefix{})).Draw(t, "subnet")
	var c Command
	if rapid.Bool().Draw(t, "numbered") {
		c.From, c.Seq = id, rapid.Uint64Range(1, 40).Draw(t, "seq")
	}
	netID := rapid.SampledFrom([]string{idOf("weave"), idOf("n1"), idOf("n1"), ""}).Draw(t, "id")
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 0, 1, 2:
		c.Take = &Take{id, net, sub, rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64()).Draw(t, "want"), rapid.Bool().Draw(t, "early")}
	case 3:
		c.TakeAddr = &TakeAddr{id, net, anyAddr(t)}
	case 4:
		c.Give = &Give{id, net, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) addr.Range { return addr.Range{First: anyAddr(t), Last: anyAddr(t)} }), 0, 3).Draw(t, "ranges")}
	case 5:
		c.Join = &Join{Member{ID: id, Name: rapid.SampledFrom([]string{"m1", "m2", "m3", "m4", "", "a b"}).Draw(t, "name"), Place: anyPlace(t)}}
	case 6:
		c.Leave = &Leave{id}
	case 7:
		n := Network{Name: net, ID: netID, Subnets: []netip.Prefix{sub}, Labels: anyLabels(t)}
		n.Host = rapid.SampledFrom([]string{"", "", "m1", "a b"}).Draw(t, "host")
		n.Internal = rapid.Bool().Draw(t, "internal")
		c.AddNetwork = &AddNetwork{n, nil}
	case 8:
		c.DelNetwork = &DelNetwork{net, netID}
	case 9:
		c.Retire = &Retire{id}
	case 10:
		c.SetLabels = &SetLabels{net, netID, anyLabels(t), rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 0, 2).Draw(t, "drop")}
	case 11:
		c.CloseNetwork = &CloseNetwork{net, netID, rapid.Bool().Draw(t, "force")}
	}
	return c
}

// idOf is an id for networks of that name.
func idOf(name string) string {
	return hex.EncodeToString([]byte((name + strings.Repeat(".", 32))[:32]))
}

func anyLabels(t *rapid.T) []Label {
	one := rapid.Custom(func(t *rapid.T) Label {
		return Label{rapid.SampledFrom([]string{"a", "b", "c", "", "x=y"}).Draw(t, "key"), rapid.StringN(0, 3, 9).Draw(t, "value")}
	})
	ls := rapid.SliceOfN(one, 0, 3).Draw(t, "labels")
	if len(ls) == 0 {
		return nil
	}
	return ls
}

func anyPlace(t *rapid.T) Place {
	part := func(name string) string {
		return rapid.SampledFrom([]string{"", "1", "1", "2"}).Draw(t, name)
	}
	return Place{part("machine"), part("boot"), part("netns")}
}

func anyAddr(t *rapid.T) netip.Addr {
	base := rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("fd00::"), netip.MustParseAddr("10.9.0.0"), {}}).Draw(t, "base")
	if !base.IsValid() {
		return base
	}
	a, ok := addr.Add(base, rapid.OneOf(rapid.Uint64Range(0, 1100), rapid.Uint64()).Draw(t, "offset"))
	if !ok {
		return base
	}
	return a
}

// TestEveryAddressHasAtMostOneOwner: whatever is done, the owned ranges of a
// subnet and its pool are the subnet, without overlap; a member that is told of a
// range owns it; a refusal changes nothing; two states that were told the same are
// the same; and a dump is the state.
func TestEveryAddressHasAtMostOneOwner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, twin := founded(t, 3, "10.0.0.0/22", "fd00::/64"), founded(t, 3, "10.0.0.0/22", "fd00::/64")
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			c := anyCommand(t)
			before := s.Dump()
			res := s.do(c)
			if again := twin.do(c); !reflect.DeepEqual(res, again) || !reflect.DeepEqual(s.Dump(), twin.Dump()) {
				t.Fatalf("%+v: %+v here, %+v there", c, res, again)
			}
			if after := s.Dump(); res.Code != OK && (!reflect.DeepEqual(before.Networks, after.Networks) || !reflect.DeepEqual(before.Members, after.Members)) {
				t.Fatalf("%+v was refused (%s) and changed something", c, res.Err)
			}
			if (res.Code == OK) != (res.Err == "") {
				t.Fatalf("%+v: code %d says %q", c, res.Code, res.Err)
			}
			conserved(t, s)
			neededWithReason(t, s)
			packed := s.Dump().Append(nil)
			loaded, err := parsed(packed)
			if err != nil || !bytes.Equal(loaded.Dump().Append(nil), packed) || fmt.Sprintf("%+v", loaded.Dump()) != fmt.Sprintf("%+v", s.Dump()) {
				t.Fatalf("a dump is not the state: %v", err)
			}
		}
	})
}

func conserved(t *rapid.T, s *State) {
	for _, n := range s.Networks() {
		for _, sub := range n.Subnets {
			whole, sum := addr.RangeOf(sub), s.Pool(n.Name, sub)
			owners := s.Owners(n.Name, sub)
			for i, o := range owners {
				sum = satAdd(sum, o.Range.Size())
				if i > 0 && !owners[i-1].Range.Last.Less(o.Range.First) {
					t.Fatalf("%v and %v", owners[i-1], o)
				}
				if got, ok := s.Owner(n.Name, o.Range.First); !ok || got != o.Member {
					t.Fatalf("the owner of %v is %v", o.Range.First, got)
				}
				if !slices.Contains(s.Owned(n.Name, sub, o.Member), o.Range) {
					t.Fatalf("%v is not among its owner's", o)
				}
			}
			if sum != whole.Size() {
				t.Fatalf("%s: %d addresses of %d are accounted for", sub, sum, whole.Size())
			}
		}
	}
}

func TestADumpWithTwoOwnersIsRefused(t *testing.T) {
	s := founded(t, 2, "10.0.0.0/20")
	s.grab(1, "10.0.0.0/20", 16, false)
	other := s.grab(2, "10.0.0.0/20", 16, false).Ranges[0].First
	s.do(Command{TakeAddr: &TakeAddr{ID: 1, Network: "weave", Addr: other}})
	good := s.Dump()
	spoil := func(name string, change func(*Dump)) {
		d := good
		d.Members = slices.Clone(good.Members)
		d.Networks = slices.Clone(good.Networks)
		d.Needs = slices.Clone(good.Needs)
		d.Networks[0].Owners = [][]Ownership{slices.Clone(good.Networks[0].Owners[0])}
		change(&d)
		if _, err := Load(d); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	owners := func(d *Dump) []Ownership { return d.Networks[0].Owners[0] }
	spoil("an overlap", func(d *Dump) { owners(d)[1].Range.First = owners(d)[0].Range.First })
	spoil("a range of nobody", func(d *Dump) { owners(d)[1].Member = 77 })
	spoil("a range outside", func(d *Dump) { owners(d)[1].Range.Last = netip.MustParseAddr("10.1.0.0") })
	spoil("a range that is none", func(d *Dump) { owners(d)[1].Range = addr.Range{} })
	spoil("unmerged ranges", func(d *Dump) { owners(d)[1].Member = 1 })
	spoil("members out of order", func(d *Dump) { slices.Reverse(d.Members) })
	spoil("two of a name", func(d *Dump) { d.Members[1].Name = "m1" })
	spoil("a network without owners' lists", func(d *Dump) { d.Networks[0].Owners = nil })
	spoil("a place that is no text", func(d *Dump) { d.Members[0].Place.Boot = "a b" })
	spoil("a need of nobody", func(d *Dump) { d.Needs[0].Member = 77 })
	spoil("a need of one's own address", func(d *Dump) { d.Needs[0].Member = 2 })
	spoil("a need of an address in the pool", func(d *Dump) { d.Needs[0].Addr = netip.MustParseAddr("10.0.9.9") })
	spoil("a need of another subnet's address", func(d *Dump) { d.Needs[0].Subnet = netip.MustParsePrefix("10.0.0.0/24") })
	spoil("a need of an address and of more", func(d *Dump) { d.Needs[0].Want = 1 })
	spoil("a need of nothing", func(d *Dump) { d.Needs[0].Addr = netip.Addr{} })
	spoil("a need where the pool has enough", func(d *Dump) { d.Needs[0].Addr, d.Needs[0].Want = netip.Addr{}, 1 })
	spoil("a need twice", func(d *Dump) { d.Needs = append(d.Needs, d.Needs[0]) })
	spoil("a network twice", func(d *Dump) { d.Networks = append(d.Networks, d.Networks[0]) })
}

func FuzzApplyNeverPanics(f *testing.F) {
	f.Add(uint8(3), uint64(1), uint64(100), []byte{10, 0, 0, 1}, []byte{10, 0, 0, 9}, 20, "weave")
	f.Fuzz(func(t *testing.T, kind uint8, id, n uint64, a, b []byte, bits int, name string) {
		s := founded(t, 3, "10.0.0.0/22", "fd00::/64")
		x, _ := netip.AddrFromSlice(a)
		y, _ := netip.AddrFromSlice(b)
		p := netip.PrefixFrom(x, bits)
		for _, c := range []Command{
			{Take: &Take{MemberID(id), name, p, n, false}}, {TakeAddr: &TakeAddr{MemberID(id), name, x}},
			{Give: &Give{MemberID(id), name, []addr.Range{{First: x, Last: y}}}},
			{AddNetwork: &AddNetwork{Network{Name: name, Subnets: []netip.Prefix{p}}, []Choice{{p, int(kind)}}}},
			{Join: &Join{Member{ID: MemberID(id), Name: name, Place: Place{name, name, name}}}}, {Retire: &Retire{MemberID(id)}}, {Leave: &Leave{MemberID(id)}}, {DelNetwork: &DelNetwork{name, name}},
			{SetLabels: &SetLabels{name, idOf("weave"), []Label{{name, name}}, []string{name}}}, {CloseNetwork: &CloseNetwork{name, idOf("weave"), n%2 == 0}},
		} {
			c.From, c.Seq = MemberID(kind%5), n
			s.do(c)
		}
		if _, err := Load(s.Dump()); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkTakeAmong1000Hosts(b *testing.B) {
	s := founded(b, 1000, "10.32.0.0/12")
	for i := range 3000 {
		s.grab(MemberID(i%1000+1), "10.32.0.0/12", 64, false)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := s.Clone()
		c.grab(MemberID(i%1000+1), "10.32.0.0/12", 64, false)
	}
}
