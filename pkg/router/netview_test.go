package router

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

func TestARemovalThatWaitsForAFormerLifeSaysSo(t *testing.T) {
	s := ledger.New()
	apply := func(c ledger.Command) {
		t.Helper()
		if err := s.Apply(s.Index()+1, c).Error(); err != nil {
			t.Fatal(err)
		}
	}
	subnet := netip.MustParsePrefix("10.48.0.0/24")
	net := func(name, p string) ledger.Network {
		return ledger.Network{Name: name, Driver: "weave", MTU: 1400, Subnets: []netip.Prefix{netip.MustParsePrefix(p)}}
	}
	apply(ledger.Command{Found: &ledger.Found{Cluster: "c", Network: net("weave", "10.32.0.0/24")}})
	apply(ledger.Command{AddNetwork: &ledger.AddNetwork{Network: net("n", subnet.String())}})
	join := func(id ledger.MemberID, name string) {
		t.Helper()
		apply(ledger.Command{Join: &ledger.Join{Member: ledger.Member{ID: id, Name: name}}})
	}
	take := func(id ledger.MemberID) {
		t.Helper()
		apply(ledger.Command{Take: &ledger.Take{ID: id, Network: "n", Subnet: subnet, Want: 4}})
	}
	join(1, "a")
	join(2, "b")
	take(1)
	take(2)
	if away, former := othersOf(s, "n", 1); !slices.Equal(away, []string{"b"}) || former != "" {
		t.Errorf("%v, former %q", away, former)
	}
	join(3, "a") // without a proof that the first has ended
	if away, former := othersOf(s, "n", 3); !slices.Equal(away, []string{"a", "b"}) || former != "a" {
		t.Errorf("seen from a's next life: %v, former %q", away, former)
	}
}
