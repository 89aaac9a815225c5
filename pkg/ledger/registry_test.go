package ledger

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// registry is a ledger of two hosts with networks of each kind: "n" of the cluster,
// "here" of host m1, and "ends", which is being removed.
func registry(t interface{ Fatalf(string, ...any) }) *State {
	s := founded(t, 2, "10.0.0.0/20")
	for _, n := range []Network{
		{Name: "n", Driver: "weave", Subnets: pfx("10.9.0.0/29"), Labels: []Label{{"b", ""}, {"a", "1"}}},
		{Name: "here", Driver: "simplebridge", Host: "m1", Internal: true, Subnets: pfx("10.9.1.0/24")},
		{Name: "ends", Driver: "weave", Subnets: pfx("10.9.2.0/24")},
	} {
		if n.ID = idOf(n.Name); s.do(Command{AddNetwork: &AddNetwork{Network: n}}).Code != OK {
			t.Fatalf("network %s was refused", n.Name)
		}
	}
	s.do(Command{Take: &Take{1, "ends", pfx("10.9.2.0/24")[0], 4, false}})
	s.end("ends", true)
	return s
}

func (s *State) end(name string, force bool) Result {
	return s.do(Command{CloseNetwork: &CloseNetwork{name, idOf(name), force}})
}

func (s *State) del(name string) Result {
	return s.do(Command{DelNetwork: &DelNetwork{name, idOf(name)}})
}

func TestANetworkThatIsBeingRemovedGivesNothingAndGoesWhenNobodyOwnsAny(t *testing.T) {
	s := registry(t)
	sub := pfx("10.9.0.0/29")[0]
	take := func(id MemberID) Result { return s.do(Command{Take: &Take{id, "n", sub, 1, false}}) }
	takeAddr := func(id MemberID, a string) Result {
		return s.do(Command{TakeAddr: &TakeAddr{id, "n", netip.MustParseAddr(a)}})
	}
	takeAddr(1, "10.9.0.1")
	if r := s.del("n"); r.Code != CodeInvalid {
		t.Errorf("one that was not closed: %+v", r)
	}
	if r := s.end("n", false); r.Code != OK {
		t.Fatalf("%+v", r)
	}
	for what, r := range map[string]Result{"a block": take(2), "an address of the pool": takeAddr(2, "10.9.0.2"), "its own": takeAddr(1, "10.9.0.1")} {
		if r.Code != CodeClosing {
			t.Errorf("%s was given: %+v", what, r)
		}
	}
	if r := s.del("n"); r.Code != CodeOccupied || r.Owner != 1 || !slices.Equal(s.Holders("n"), []MemberID{1}) {
		t.Errorf("with an owner: %+v, %v", r, s.Holders("n"))
	}
	s.do(Command{Give: &Give{1, "n", []addr.Range{addr.RangeOf(netip.MustParsePrefix("10.9.0.1/32"))}}})
	if r := s.do(Command{DelNetwork: &DelNetwork{"n", idOf("x")}}); r.Code != CodeUnknown {
		t.Errorf("another id: %+v", r)
	}
	if r := s.del("n"); r.Code != OK || len(s.Holders("n")) != 0 {
		t.Errorf("%+v", r)
	}
	if r := s.del("n"); r.Code != CodeUnknown {
		t.Errorf("twice: %+v", r)
	}
	s.do(Command{AddNetwork: &AddNetwork{Network: Network{Name: "n"}}})
	if n, _ := s.Network("n"); n.VNI <= FirstVNI+3 {
		t.Errorf("VNI %d was used again at once", n.VNI)
	}
}

func TestTheNeedsOfANetworkEndWithItAndWhatComesBackStaysInThePool(t *testing.T) {
	s := registry(t)
	for i := range 8 {
		s.do(Command{TakeAddr: &TakeAddr{1, "n", netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})}})
	}
	s.do(Command{Take: &Take{2, "n", pfx("10.9.0.0/29")[0], 2, false}})
	s.do(Command{TakeAddr: &TakeAddr{2, "n", netip.MustParseAddr("10.9.0.3")}})
	if len(s.Needs()) != 2 {
		t.Fatalf("%v", s.Needs())
	}
	s.end("n", false)
	if len(s.Needs()) != 0 {
		t.Errorf("%v", s.Needs())
	}
	s.do(Command{Give: &Give{1, "n", []addr.Range{addr.RangeOf(netip.MustParsePrefix("10.9.0.0/29"))}}})
	if n := s.Pool("n", pfx("10.9.0.0/29")[0]); n != 8 {
		t.Errorf("%d of 8 are in the pool", n)
	}
}

func TestTheDefaultNetworkIsNeverRemoved(t *testing.T) {
	s := registry(t)
	if r := s.end(DefaultNetwork, true); r.Code != CodeInvalid || !strings.Contains(r.Err, "default") {
		t.Errorf("%+v", r)
	}
	if r := s.del(DefaultNetwork); r.Code != CodeInvalid {
		t.Errorf("%+v", r)
	}
}

func TestARemovalThatBecomesForcedStaysSo(t *testing.T) {
	s := registry(t)
	for _, force := range []bool{false, true, false} {
		s.end("n", force)
	}
	if n, _ := s.Network("n"); !n.Closing || !n.Forced {
		t.Errorf("%+v", n)
	}
}

func TestANetworkOfOneHostGivesNothingToAnother(t *testing.T) {
	s := registry(t)
	take := func(id MemberID) Result {
		return s.do(Command{Take: &Take{id, "here", pfx("10.9.1.0/24")[0], 4, false}})
	}
	if r := take(2); r.Code != CodeWrong || !strings.Contains(r.Err, "host m1") {
		t.Errorf("%+v", r)
	}
	if r := take(1); r.Code != OK {
		t.Errorf("%+v", r)
	}
}

func TestLabelsAreSetAndDroppedAndBounded(t *testing.T) {
	s := registry(t)
	set := func(set []Label, drop ...string) Result {
		return s.do(Command{SetLabels: &SetLabels{"n", idOf("n"), set, drop}})
	}
	labels := func() string { n, _ := s.Network("n"); return fmt.Sprint(n.Labels) }
	if labels() != "[{a 1} {b }]" {
		t.Errorf("at first %s", labels())
	}
	if r := set([]Label{{"c", "ä"}, {"a", "2"}}, "b", "nothing", "c"); r.Code != OK || labels() != "[{a 2} {c ä}]" {
		t.Errorf("%+v, %s", r, labels())
	}
	many := make([]Label, MaxLabels+1)
	for i := range many {
		many[i].Key = fmt.Sprint("k", i)
	}
	for what, bad := range map[string][]Label{
		"more than there may be":      many,
		"more than there may be here": many[:MaxLabels-1],
		"one without a key":           {{"", "x"}},
		"one with '='":                {{"a=b", "x"}},
		"one twice":                   {{"x", ""}, {"x", ""}},
		"a long key":                  {{strings.Repeat("k", MaxLabelKey+1), ""}},
		"a long value":                {{"k", strings.Repeat("v", MaxLabelValue+1)}},
		"an escape":                   {{"k", "\x1b[2J"}},
		"a new line":                  {{"k\n", ""}},
		"what is no text":             {{"k", "\xff"}},
	} {
		if r := set(bad); r.Code == OK || labels() != "[{a 2} {c ä}]" {
			t.Errorf("%s: %+v, %s", what, r, labels())
		}
	}
	if r := s.do(Command{SetLabels: &SetLabels{"n", idOf("x"), nil, nil}}); r.Code != CodeUnknown {
		t.Errorf("another network's id: %+v", r)
	}
	if r := set(nil, "a", "c"); r.Code != OK || labels() != "[]" {
		t.Errorf("%+v, %s", r, labels())
	}
}

func TestLabelsOfAllNetworksTogetherAreBounded(t *testing.T) {
	s := founded(t, 1, "10.0.0.0/20")
	var long []Label
	for i := range MaxLabels {
		long = append(long, Label{fmt.Sprintf("%0*d", MaxLabelKey, i), strings.Repeat("v", MaxLabelValue)})
	}
	var last Result
	n := 0
	for ; n < MaxNetworks && last.Code == OK; n++ {
		last = s.do(Command{AddNetwork: &AddNetwork{Network: Network{Name: fmt.Sprint("n", n), Labels: long}}})
	}
	if last.Code != CodeTooMany || len(s.Dump().Append(nil)) > 2*maxAllLabels {
		t.Errorf("%d networks, %d bytes: %+v", n, len(s.Dump().Append(nil)), last)
	}
	first, _ := s.Network("n0")
	if r := s.do(Command{SetLabels: &SetLabels{"n0", first.ID, nil, []string{long[0].Key}}}); r.Code != OK {
		t.Errorf("fewer: %+v", r)
	}
}

// What the first release wrote, byte for byte: a host goes on from it, and one that goes
// back to that release reads what this one wrote, as long as nothing newer was asked for.
func TestWhatTheFirstReleaseWroteIsReadAndWrittenAsItWas(t *testing.T) {
	for what, old := range map[string]struct {
		bytes  string
		digest uint64
	}{
		"found":      {"01018080808080200101630005776561766505776561766500f80a01040a00000014", 0x161c54337f2dfb15},
		"join":       {"01018080808080200201016d016101620163", 0xa87e762f552ec8b9},
		"leave":      {"01018080808080200301", 0xbef9b2e6c900c76f},
		"retire":     {"01018080808080200901", 0xbee54ee6c8ef7479},
		"take":       {"01018080808080200401057765617665040a000000140901", 0x7e7ed635d6923593},
		"take one":   {"01018080808080200501057765617665040a000000", 0xa12e6e81aa15fd7c},
		"give":       {"0101808080808020060105776561766501040a000000040a000fff", 0x34d463ad6f7696b2},
		"add":        {"01018080808080200700016e0000000001040a0000001418", 0x8f30eb33f73c6dbc},
		"del, never": {"010180808080802008016e", 0x57bc502773c54756},
	} {
		b, _ := hex.DecodeString(old.bytes)
		c, err := ParseCommand(b)
		if err != nil || !bytes.Equal(c.Append(nil), b) || c.digest() != old.digest {
			t.Errorf("%s: %+v, %v: %x, digest %x", what, flat(c), err, c.Append(nil), c.digest())
		}
	}
	b, _ := hex.DecodeString(firstDump)
	s, err := parsed(b)
	if err != nil || !bytes.Equal(s.Dump().Append(nil), b) {
		t.Fatalf("%v", err)
	}
	if n, ok := s.Network("n"); !ok || n.VNI != FirstVNI+1 || len(s.Needs()) != 2 {
		t.Errorf("%+v, %v", n, s.Needs())
	}
}

// firstDump is a ledger of three members and two networks as the first release wrote it.
const firstDump = "010d07636c75737465728280dc030301026d3100000000000202026d3200000000000303026d330000000300040240356439643466303533303232363961383065336530663034" +
	"61343063393062306263336439633336383834323262643064373965353861343834303638376532016e008180dc030001040a09000018004062646664373834666661613932333538" +
	"3963383764623730363036633433373134633763383835613034353830396233333066643939323337353831633763320577656176650577656176658080dc03f80a02040a00000" +
	"01e10fd0000000000000000000000000000004001000a0000000a0000030100fd000000000000000000000000000000fd000000000000000000000000000003020101a67e7cc9dd" +
	"63793500000110fd00000000000000000000000000000010fd000000000000000000000000000003000202e5b948cbb5d52b090334616464726573732031302e302e302e31206f6" +
	"6206e6574776f726b2077656176652062656c6f6e677320746f20686f7374206d3100010202057765617665040a0000001e020002057765617665040a0000001e00040a000001"

func TestARegistryIsReadAsItWasWritten(t *testing.T) {
	s := registry(t)
	packed := s.Dump().Append(nil)
	if packed[0] != dumpFormatMore {
		t.Errorf("format %d", packed[0])
	}
	again, err := parsed(packed)
	if err != nil || fmt.Sprintf("%+v", again.Dump()) != fmt.Sprintf("%+v", s.Dump()) {
		t.Errorf("%v", err)
	}
	for what, harm := range map[string]func(n *Network){
		"labels out of order":              func(n *Network) { n.Labels = []Label{{"b", ""}, {"a", ""}} },
		"a label twice":                    func(n *Network) { n.Labels = []Label{{"b", ""}, {"b", ""}} },
		"forced, and not closing":          func(n *Network) { n.Forced = true },
		"the default network that closes":  func(n *Network) { n.Name, n.Closing = DefaultNetwork, true },
		"a host that nobody can be called": func(n *Network) { n.Host = "a b" },
	} {
		d := s.Dump()
		d.Networks = slices.Clone(d.Networks)
		harm(&d.Networks[len(d.Networks)-2].Network) // "n", before "weave"
		if what == "the default network that closes" {
			d.Networks = d.Networks[:len(d.Networks)-1]
		}
		if _, err := Load(d); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
	if _, err := ParseDump(append([]byte{dumpFormatMore + 1}, packed[1:]...)); !errors.Is(err, ErrNewer) {
		t.Errorf("%v", err)
	}
}

// TestNetworksShareNothing: whatever is done, no two networks have a name, an id, a VNI
// or an address in common, and one goes only when nobody owns any of it.
func TestNetworksShareNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := founded(t, 3, "10.0.0.0/22", "fd00::/64")
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			before := s.Clone()
			c := anyCommand(t)
			s.do(c)
			for _, n := range before.Networks() {
				if _, there := s.Network(n.Name); !there && (len(before.Holders(n.Name)) > 0 || !n.Closing || n.Name == DefaultNetwork) {
					t.Fatalf("%+v: network %s is gone, of which %v owned addresses", c, n.Name, before.Holders(n.Name))
				}
			}
			distinct(t, s.Networks())
		}
	})
}

func distinct(t *rapid.T, all []Network) {
	for i, n := range all {
		for _, o := range all[:i] {
			if n.Name == o.Name || n.ID == o.ID || n.VNI == o.VNI {
				t.Fatalf("%+v and %+v", n, o)
			}
			for _, p := range n.Subnets {
				if slices.ContainsFunc(o.Subnets, p.Overlaps) {
					t.Fatalf("%+v overlaps %+v", n, o)
				}
			}
		}
	}
}
