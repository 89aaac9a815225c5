package router

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/conflist"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netlists"
)

func TestRuntimesAreToldOfAllNetworksThatStayButTheDefaultOne(t *testing.T) {
	id := strings.Repeat("67ea60624dfc1a6c", 4)
	subnets := []netip.Prefix{netip.MustParsePrefix("10.48.0.0/20")}
	here := []ledger.Network{
		{Name: DefaultNetwork, ID: id, Driver: "weave", Subnets: subnets},
		{Name: "blue", ID: id, Driver: "weave", Subnets: subnets},
		{Name: "store", ID: id, Driver: "weave", Subnets: subnets, Internal: true},
		{Name: "fermi", ID: id, Driver: "simplebridge", Host: "a", Subnets: subnets},
		{Name: "gone", ID: id, Driver: "weave", Subnets: subnets, Closing: true},
	}
	got := listed(here, func(n ledger.Network) bool { return n.Name != "store" })
	want := []netlists.Network{
		{Network: conflist.Network{Name: "blue", ID: id, Subnets: subnets}, Ready: true},
		{Network: conflist.Network{Name: "store", ID: id, Subnets: subnets, Internal: true}},
		{Network: conflist.Network{Name: "fermi", ID: id, Subnets: subnets, Bridge: "sb-67ea60624dfc"}, Ready: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
