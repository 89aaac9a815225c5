package addr

import (
	"math"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func rng(a, b string) Range { return Range{netip.MustParseAddr(a), netip.MustParseAddr(b)} }

func TestRangeOfPrefix(t *testing.T) {
	for _, c := range []struct{ prefix, first, last string }{
		{"10.32.0.0/12", "10.32.0.0", "10.47.255.255"},
		{"10.32.0.7/32", "10.32.0.7", "10.32.0.7"},
		{"0.0.0.0/0", "0.0.0.0", "255.255.255.255"},
		{"fd00::/64", "fd00::", "fd00::ffff:ffff:ffff:ffff"},
		{"::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"fd00::/48", "fd00::", "fd00:0:0:ffff:ffff:ffff:ffff:ffff"},
	} {
		if got := RangeOf(netip.MustParsePrefix(c.prefix)); got != rng(c.first, c.last) {
			t.Errorf("%s: got %v", c.prefix, got)
		}
	}
}

func TestSizeSaturates(t *testing.T) {
	for _, c := range []struct {
		r    Range
		want uint64
	}{
		{rng("10.0.0.0", "10.0.0.255"), 256},
		{rng("10.0.0.1", "10.0.0.1"), 1},
		{rng("fd00::", "fd00::ffff:ffff:ffff:fffe"), math.MaxUint64},
		{rng("fd00::", "fd00::ffff:ffff:ffff:ffff"), math.MaxUint64},
		{rng("::", "ffff::"), math.MaxUint64},
	} {
		if got := c.r.Size(); got != c.want {
			t.Errorf("%v: got %d, want %d", c.r, got, c.want)
		}
	}
}

func TestAddStopsAtTheFamilysEnd(t *testing.T) {
	if _, ok := Add(netip.MustParseAddr("255.255.255.255"), 1); ok {
		t.Error("v4: ran past the end")
	}
	if _, ok := Add(netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 1); ok {
		t.Error("v6: ran past the end")
	}
	if got, ok := Add(netip.MustParseAddr("fd00::ffff:ffff:ffff:ffff"), 1); !ok || got.String() != "fd00:0:0:1::" {
		t.Errorf("v6 carry: got %v", got)
	}
}

func TestAligned(t *testing.T) {
	for _, c := range []struct {
		r    Range
		max  uint64
		want Range
	}{
		{rng("10.0.0.0", "10.0.255.255"), 256, rng("10.0.0.0", "10.0.0.255")},
		{rng("10.0.0.1", "10.0.0.255"), 256, rng("10.0.0.1", "10.0.0.1")},
		{rng("10.0.0.4", "10.0.0.255"), 256, rng("10.0.0.4", "10.0.0.7")},
		{rng("10.0.0.0", "10.0.0.2"), 256, rng("10.0.0.0", "10.0.0.1")},
		{rng("fd00::", "fd00::ffff:ffff:ffff:ffff"), 300, rng("fd00::", "fd00::ff")},
		{rng("::", "::ffff"), 1 << 63, rng("::", "::ffff")},
	} {
		if got := c.r.Aligned(c.max); got != c.want {
			t.Errorf("%v by %d: got %v, want %v", c.r, c.max, got, c.want)
		}
	}
}

func TestAddAndDistanceAreInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		a := netip.AddrFrom16([16]byte(b))
		if rapid.Bool().Draw(t, "v4") {
			a = netip.AddrFrom4([4]byte(b[:4]))
		}
		n := rapid.Uint64Range(0, math.MaxUint64-1).Draw(t, "n")
		sum, ok := Add(a, n)
		if ok && Distance(a, sum) != n {
			t.Fatalf("%v + %d = %v, distance %d", a, n, sum, Distance(a, sum))
		}
	})
}
