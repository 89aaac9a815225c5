package ipam_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

func without(i int, excluded ...string) ctl.AllocateRequest {
	in := request(i)
	in.Exclude = excluded
	return in
}

func TestAnAddressThatIsExcludedIsNotGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/28", "fd00:1::/64")
		h := start(t, l, 1, t.TempDir())
		no := []string{"10.32.0.4/30", "10.32.0.9", "fd00:1::/120"}
		var got []string
		for i := range 14 - 4 - 1 {
			ps := h.give(without(i, no...))
			if got = append(got, ps[0].Addr().String()); ps[1].Addr().Less(netip.MustParseAddr("fd00:1::100")) {
				t.Errorf("gave %v", ps)
			}
		}
		slices.Sort(got)
		if fmt.Sprint(got) != "[10.32.0.1 10.32.0.10 10.32.0.11 10.32.0.12 10.32.0.13 10.32.0.14 10.32.0.2 10.32.0.3 10.32.0.8]" {
			t.Errorf("got %v", got)
		}
		if e := h.refuse(without(100, no...), ctl.CodeNetworkFull); !strings.Contains(e.Details, "excludes") {
			t.Errorf("error %q", e)
		}
		if ps := h.give(request(101)); !netip.MustParsePrefix("10.32.0.4/30").Contains(ps[0].Addr()) && ps[0].Addr().String() != "10.32.0.9" {
			t.Errorf("without the list: %v", ps)
		}
	})
}

func TestWhatIsExcludedIsNotGivenBackToWhoHadItNorToWhoAsksForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/24")
		h := start(t, l, 1, t.TempDir())
		had := h.give(request(1))
		if again := h.give(without(1, had[0].Addr().String())); !slices.Equal(again, had) {
			t.Errorf("while it has it: %v, had %v", again, had)
		}
		if err := h.Release(key(1)); err != nil {
			t.Fatal(err)
		}
		if ps := h.give(without(1, had[0].Addr().String())); slices.Equal(ps, had) {
			t.Errorf("gave %v", ps)
		}
		in := request(2, "10.32.0.77")
		in.Exclude = []string{"10.32.0.64/26"}
		h.refuse(in, ctl.CodeInvalidConfig)
	})
}

// A range that is excluded as a whole must not make a host take it all, block by block.
func TestTheExcludedPartOfThePoolIsLeftThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/16")
		h := start(t, l, 1, t.TempDir())
		if ps := h.give(without(1, "10.32.0.0/17", "10.32.128.0/18")); ps[0].Addr().String() != "10.32.192.0" {
			t.Errorf("gave %v", ps)
		}
		h.refuse(without(2, "10.32.0.0/16"), ctl.CodeNetworkFull)
		var owned uint64
		for _, r := range l.State().Owned("weave", netip.MustParsePrefix("10.32.0.0/16"), 1) {
			owned += r.Size()
		}
		if owned != 1 {
			t.Errorf("%d addresses were taken for one", owned)
		}
		l.apply(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: 1, Network: "weave", Addr: netip.MustParseAddr("10.32.192.1")}})
		if ps := h.give(without(3, "10.32.0.0/17", "10.32.128.0/18")); ps[0].Addr().String() != "10.32.192.1" {
			t.Errorf("gave %v", ps)
		}
	})
}

func TestAListOfExclusionsThatCannotBeIsRefused(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/24")
	h := start(t, l, 1, t.TempDir())
	many := slices.Repeat([]string{"10.32.0.9"}, 65)
	for _, list := range [][]string{{"x"}, {"10.32.0.0/33"}, {""}, {"fe80::1%a"}, {"::ffff:10.0.0.1"}, {"10.32.0.9", "10.32.0.0-10.32.0.9"}, {"10.32.0.3", "192.0.2.0/24"}, many} {
		h.refuse(without(1, list...), ctl.CodeInvalidConfig)
	}
	for _, list := range [][]string{{"10.32.0.240/28", "fd00::/8"}, {"10.32.0.3"}, {"10.32.0.128/25", "10.32.0.200/30", "::/0"}} {
		h.give(without(2, list...))
	}
}
