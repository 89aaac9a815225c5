package ledger

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

func (s *State) joinAs(id MemberID, name string, p Place) Result {
	return s.do(Command{Join: &Join{Member{ID: id, Name: name, Place: p}}})
}

func TestOnlyAPlaceThatProvesItsEndIsSucceeded(t *testing.T) {
	old := Place{"m", "b1", "n1"}
	for _, c := range []struct {
		next Place
		want bool
	}{
		{Place{"m", "b2", "n1"}, true},  // rebooted
		{Place{"m", "b2", "n2"}, true},  // rebooted, numbered anew
		{Place{"m", "b1", "n1"}, true},  // the lock says so
		{Place{"m", "b1", "n2"}, false}, // two routers on one machine
		{Place{"x", "b2", "n1"}, false}, // another machine
		{Place{"", "b2", "n1"}, false},
		{Place{"m", "", "n1"}, false},
		{Place{}, false},
	} {
		s := founded(t, 1, "10.0.0.0/20", "fd00::/64")
		s.joinAs(7, "h", old)
		s.grab(1, "10.0.0.0/20", 16, false)
		for range 3 {
			s.grab(7, "10.0.0.0/20", 16, false)
			s.grab(1, "10.0.0.0/20", 16, false)
		}
		s.grab(7, "fd00::/64", 16, false)
		before := owned(s, 7)
		if r := s.joinAs(8, "h", c.next); r.Code != OK {
			t.Fatal(r.Err)
		}
		m, _ := s.Member(7)
		heir, rest := MemberID(8), MemberID(7)
		if !c.want {
			heir, rest = rest, heir
		}
		if m.Left != c.want || m.Replaced != 8 || !reflect.DeepEqual(owned(s, heir), before) || len(owned(s, rest)) != 0 {
			t.Errorf("%v: predecessor %+v, it owns %v, the newcomer %v", c.next, m, owned(s, 7), owned(s, 8))
		}
		if r := s.grab(8, "10.0.0.0/20", 16, false); r.Code != OK {
			t.Errorf("the newcomer takes: %+v", r)
		}
		if r := s.grab(7, "10.0.0.0/20", 16, false); r.Code != CodeGone {
			t.Errorf("its predecessor takes: %+v", r)
		}
	}
	if (Place{"m", "b", ""}).Succeeds(Place{"m", "b", ""}) {
		t.Error("nothing is known of the namespaces, and that was a proof")
	}
	if !(Place{"", "b", "n"}).Succeeds(Place{"", "b", "n"}) || (Place{"", "c", "n"}).Succeeds(Place{"", "b", "n"}) {
		t.Error("a machine without a name: its boot is known, another boot may be anybody's")
	}
}

func owned(s *State, id MemberID) (all []addr.Range) {
	for _, n := range s.Networks() {
		for _, sub := range n.Subnets {
			all = append(all, s.Owned(n.Name, sub, id)...)
		}
	}
	return all
}

func TestASuccessorAlsoFollowsThoseThatWereReplacedBefore(t *testing.T) {
	s := founded(t, 1, "10.0.0.0/20")
	s.joinAs(7, "h", Place{"m", "b1", "n"})
	s.grab(7, "10.0.0.0/20", 16, false)
	s.joinAs(8, "h", Place{"clone", "c1", "n"}) // proves nothing
	s.grab(8, "10.0.0.0/20", 16, false)
	s.joinAs(9, "h", Place{"m", "b2", "n"})
	first, _ := s.Member(7)
	second, _ := s.Member(8)
	if !first.Left || second.Left || second.Replaced != 9 || len(owned(s, 9)) != 1 || len(owned(s, 8)) != 1 {
		t.Errorf("%+v, %+v; %v and %v", first, second, owned(s, 9), owned(s, 8))
	}
	// Blocks that became neighbours are one.
	if n := len(s.Owners("weave", netip.MustParsePrefix("10.0.0.0/20"))); n != 2 {
		t.Errorf("%d pieces", n)
	}
}

func TestAMemberItselfSaysWhereItRunsNow(t *testing.T) {
	s := founded(t, 2, "10.0.0.0/20")
	where := Place{"m", "b2", "n"}
	again := Join{Member{ID: 1, Name: "m1", Place: where}}
	s.do(Command{Join: &again})
	if m, _ := s.Member(1); m.Place != (Place{}) {
		t.Error("another's old word moved it")
	}
	if r := s.do(Command{From: 2, Seq: 1, Join: &again}); r.Code != CodeInvalid {
		t.Errorf("another member moved it: %+v", r)
	}
	if r := s.do(Command{From: 1, Seq: 1, Join: &again}); r.Code != OK {
		t.Errorf("%+v", r)
	}
	if m, _ := s.Member(1); m.Place != where {
		t.Errorf("%+v", m)
	}
}

func TestARetiredHostsBlocksAreInThePoolOnce(t *testing.T) {
	s := founded(t, 3, "10.0.0.0/20")
	sub := netip.MustParsePrefix("10.0.0.0/20")
	s.grab(2, "10.0.0.0/20", 16, false)
	if r := s.do(Command{From: 1, Seq: 1, Retire: &Retire{2}}); r.Code != OK {
		t.Fatal(r.Err)
	}
	m, _ := s.Member(2)
	if !m.Left || !m.Retired || s.Pool("weave", sub) != 4096 {
		t.Errorf("%+v, %d in the pool", m, s.Pool("weave", sub))
	}
	s.grab(3, "10.0.0.0/20", 16, false)
	before := s.Dump().Networks
	if r := s.do(Command{From: 3, Seq: 1, Retire: &Retire{2}}); r.Code != OK || !reflect.DeepEqual(before, s.Dump().Networks) {
		t.Errorf("a second time: %+v", r)
	}
	if r := s.do(Command{Retire: &Retire{99}}); r.Code != CodeUnknown {
		t.Errorf("nobody: %+v", r)
	}
	if r := s.grab(2, "10.0.0.0/20", 16, false); r.Code != CodeGone {
		t.Errorf("it takes: %+v", r)
	}
}

func TestWhatComesBackGoesToThoseInNeed(t *testing.T) {
	sub := netip.MustParsePrefix("10.0.0.0/28")
	s := founded(t, 2, "10.0.0.0/28")
	for s.Pool("weave", sub) > 0 {
		s.grab(1, "10.0.0.0/28", 16, false)
	}
	take := func(want uint64) Result { return s.grab(2, "10.0.0.0/28", want, false) }
	if r := take(4); r.Code != CodeEmpty {
		t.Fatalf("%+v", r)
	}
	take(8)
	s.do(Command{TakeAddr: &TakeAddr{ID: 2, Network: "weave", Addr: netip.MustParseAddr("10.0.0.9")}})
	want := []Need{{Member: 2, Network: "weave", Subnet: sub, Want: 8}, {Member: 2, Network: "weave", Subnet: sub, Addr: netip.MustParseAddr("10.0.0.9")}}
	if got := s.Needs(); !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v", got)
	}
	one := netip.MustParseAddr("10.0.0.4")
	s.do(Command{Give: &Give{ID: 1, Network: "weave", Ranges: []addr.Range{{First: one, Last: one}}}})
	if got := s.Needs(); !reflect.DeepEqual(got, want[1:]) {
		t.Fatalf("something came back, still needed: %+v", got)
	}
	if owner, _ := s.Owner("weave", one); owner != 2 {
		t.Errorf("%s came back and belongs to %d", one, owner)
	}
	if take(8); len(s.Needs()) != 2 {
		t.Errorf("the need of more is not noted: %+v", s.Needs())
	}
	if r := s.do(Command{Take: &Take{ID: 2, Network: "weave", Subnet: sub, Want: 1, Early: true}}); r.Code == OK || len(s.Needs()) != 2 {
		t.Errorf("who asks early is noted: %+v, %+v", r, s.Needs())
	}
	s.do(Command{Retire: &Retire{1}})
	if got := s.Needs(); len(got) != 0 {
		t.Errorf("all is free, still needed: %+v", got)
	}
	if owner, _ := s.Owner("weave", netip.MustParseAddr("10.0.0.9")); owner != 2 {
		t.Errorf("the address that was asked for belongs to %d", owner)
	}
}

func TestNeedsAreBoundedAndTheOldestMakesRoom(t *testing.T) {
	s := founded(t, 2, "10.0.0.0/20")
	own := s.grab(1, "10.0.0.0/20", 256, false).Ranges[0]
	for i := range 3 * MaxNeeds {
		a, _ := addr.Add(own.First, uint64(i))
		s.do(Command{TakeAddr: &TakeAddr{ID: 2, Network: "weave", Addr: a}})
	}
	got := s.Needs()
	first, _ := addr.Add(own.First, 2*MaxNeeds)
	if len(got) != MaxNeeds || got[0].Addr != first {
		t.Errorf("%d needs, the oldest %+v", len(got), got[0])
	}
}

func neededWithReason(t *rapid.T, s *State) {
	count := map[MemberID][2]int{}
	for _, n := range s.Needs() {
		c, k := count[n.Member], 0
		if m, ok := s.Member(n.Member); !ok || !m.Live() {
			t.Fatalf("%+v: by nobody", n)
		}
		if n.Addr.IsValid() {
			k = 1
			if owner, ok := s.Owner(n.Network, n.Addr); !ok || owner == n.Member {
				t.Fatalf("%+v: it belongs to %x", n, owner)
			}
		} else if s.Pool(n.Network, n.Subnet) > 0 {
			t.Fatalf("%+v: the pool has some", n)
		}
		if c[k]++; c[k] > MaxNeeds {
			t.Fatalf("%d needs of one member", c[k])
		}
		count[n.Member] = c
	}
}

// TestSuccessionMovesEverythingAtOnce: whoever owned what, after a successor's
// join its predecessors own nothing, it owns what they did, and nobody else's changed.
func TestSuccessionMovesEverythingAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := founded(t, 3, "10.0.0.0/22", "fd00::/64")
		for id := range MemberID(3) {
			s.do(Command{From: id + 1, Seq: 1, Join: &Join{Member{ID: id + 1, Name: fmt.Sprint("m", id+1), Place: Place{fmt.Sprint("x", id+1), "b", "n"}}}})
		}
		for range rapid.IntRange(1, 40).Draw(t, "commands") {
			if c := anyCommand(t); c.Join == nil {
				s.do(c)
			}
		}
		m, ok := s.Member(1)
		if !ok || !m.Live() {
			t.Skip("gone before")
		}
		count := func(id MemberID) (n uint64) {
			for _, r := range owned(s, id) {
				n = satAdd(n, r.Size())
			}
			return n
		}
		had, others := count(1), [2]uint64{count(2), count(3)}
		if r := s.do(Command{Join: &Join{Member{ID: 50, Name: "m1", Place: Place{"x1", "c", "n"}}}}); r.Code != OK {
			t.Fatal(r.Err)
		}
		if count(1) != 0 || count(50) != had || others != [2]uint64{count(2), count(3)} {
			t.Fatalf("it had %d, has %d, the successor %d", had, count(1), count(50))
		}
		conserved(t, s)
	})
}

// TestACommandIsReadAsItWasWritten: or not at all, when it says what no command may.
func TestACommandIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyCommand(t), anyCommand(t)
		got, err := ParseCommand(a.Append(nil))
		if err != nil || fmt.Sprint(flat(got)) != fmt.Sprint(flat(a)) || !got.Same(a) {
			t.Fatalf("%v: %v, %v", flat(a), flat(got), err)
		}
		if fmt.Sprint(flat(a)) != fmt.Sprint(flat(b)) && a.Same(b) {
			t.Fatalf("one digest: %+v and %+v", flat(a), flat(b))
		}
	})
}

func TestACommandThatSaysWhatNoneMayIsNotRead(t *testing.T) {
	for _, c := range []Command{
		{},
		{TakeAddr: &TakeAddr{Addr: netip.MustParseAddr("fd00::1%eth0")}},
		{DelNetwork: &DelNetwork{Name: "a\xff"}},
		{AddNetwork: &AddNetwork{Network{MTU: -1}, nil}},
		{AddNetwork: &AddNetwork{Network{}, []Choice{{Bits: -1}}}},
	} {
		if got, err := ParseCommand(c.Append(nil)); err == nil {
			t.Errorf("%v was read as %v", flat(c), flat(got))
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	sub := netip.MustParsePrefix("10.0.0.0/20")
	for _, c := range []Command{
		{Found: &Found{"c", Network{Name: "weave", Subnets: []netip.Prefix{sub}}}}, {Join: &Join{Member{ID: 1, Name: "m", Place: Place{"a", "b", "c"}}}},
		{Leave: &Leave{1}}, {Retire: &Retire{1}}, {Take: &Take{1, "weave", sub, 9, true}}, {TakeAddr: &TakeAddr{1, "weave", sub.Addr()}},
		{Give: &Give{1, "weave", []addr.Range{addr.RangeOf(sub)}}}, {AddNetwork: &AddNetwork{Network{Name: "n"}, []Choice{{sub, 24}}}}, {DelNetwork: &DelNetwork{Name: "n"}},
		{DelNetwork: &DelNetwork{"n", idOf("n")}}, {CloseNetwork: &CloseNetwork{"n", idOf("n"), true}}, {SetLabels: &SetLabels{"n", idOf("n"), []Label{{"k", "v"}}, []string{"w"}}},
		{AddNetwork: &AddNetwork{Network{Name: "n", Host: "m1", Internal: true, Labels: []Label{{"k", "v"}}}, []Choice{{sub, 24}}}},
	} {
		c.From, c.Seq = 1, 1<<40
		f.Add(c.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCommand(b)
		if err != nil {
			return
		}
		again, err := ParseCommand(c.Append(nil))
		if err != nil || !again.Same(c) {
			t.Fatalf("%v, again %v: %v", flat(c), flat(again), err)
		}
		s := founded(t, 3, "10.0.0.0/22", "fd00::/64")
		s.do(c)
		if _, err := Load(s.Dump()); err != nil {
			t.Fatal(err)
		}
	})
}

// flat is a command without pointers.
func flat(c Command) []any {
	all := []any{c.From, c.Seq}
	for v, i := reflect.ValueOf(c), 2; i < v.NumField(); i++ {
		if f := v.Field(i); !f.IsNil() {
			all = append(all, f.Elem().Type().Name(), fmt.Sprintf("%+v", f.Elem().Interface()))
		}
	}
	return all
}
