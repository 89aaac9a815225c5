package allot

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// twoNetworks is the core of a host that owns all of net1 and net2.
func twoNetworks(t *testing.T) *Core {
	t.Helper()
	state := ledger.New()
	apply := func(c ledger.Command) {
		t.Helper()
		if res := state.Apply(state.Index()+1, c); res.Code != ledger.OK {
			t.Fatalf("%+v: %s", c, res.Err)
		}
	}
	subnets := map[string][]netip.Prefix{
		"net1": {netip.MustParsePrefix("10.2.0.0/20"), netip.MustParsePrefix("fd00::/116")},
		"net2": {netip.MustParsePrefix("10.9.0.0/28")},
	}
	apply(ledger.Command{Found: &ledger.Found{Cluster: "c", Network: ledger.Network{Name: "net1", Driver: "weave", Subnets: subnets["net1"]}}})
	apply(ledger.Command{AddNetwork: &ledger.AddNetwork{Network: ledger.Network{Name: "net2", Driver: "weave", Subnets: subnets["net2"]}}})
	apply(ledger.Command{Join: &ledger.Join{Member: ledger.Member{ID: 1, Name: "a"}}})
	for name, all := range subnets {
		for _, p := range all {
			for state.Pool(name, p) > 0 {
				apply(ledger.Command{Take: &ledger.Take{ID: 1, Network: name, Subnet: p, Want: 1 << 12}})
			}
		}
	}
	a := New(Config{Self: 1, Claims: noFiles{}, Log: slog.New(slog.DiscardHandler), Now: func() time.Duration { return 0 }})
	a.Sync(state, true)
	return a
}

// try is one ADD: the addresses that it gets, or the code and words of the refusal.
func try(a *Core, container string, in ctl.AllocateRequest) string {
	in.Key, in.Decider = keyOf(container), ctl.DecidedByClaim
	o, err := ParseAllocate(in)
	var got []netip.Prefix
	var l *Lack
	if err == nil {
		got, l, err = a.Try(o)
	}
	var coded *ctl.Error
	if errors.As(err, &coded) {
		return fmt.Sprint(coded.Code, " ", coded.Msg, "; ", coded.Details)
	}
	if err != nil || l != nil {
		return fmt.Sprint(got, l, err)
	}
	return strings.Trim(fmt.Sprint(got), "[]")
}

func TestAnEndpointsPrefixIsWhereAddressesComeFromAndTheirLength(t *testing.T) {
	for _, c := range []struct {
		what string
		in   ctl.AllocateRequest
		want string // "N words" for a refusal
	}{
		{"a name alone", ctl.AllocateRequest{Endpoint: "weave://net1"}, "10.2.0.1/20 fd00::1/116"},
		{"a subnet bounds its own family", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24"}, "10.2.7.1/24 fd00::1/116"},
		{"of IPv6", ctl.AllocateRequest{Endpoint: "weave://fd00::100/120"}, "10.2.0.1/20 fd00::101/120"},
		{"that address and nothing else", ctl.AllocateRequest{Endpoint: "weave://10.2.7.9/24"}, "10.2.7.9/24"},
		{"that address of IPv6", ctl.AllocateRequest{Endpoint: "weave://[fd00::7]/120"}, "fd00::7/120"},
		{"one host", ctl.AllocateRequest{Endpoint: "weave://10.2.7.9/32"}, "10.2.7.9/32"},
		{"two hosts", ctl.AllocateRequest{Endpoint: "weave://10.2.7.8/31"}, "10.2.7.8/31 fd00::1/116"},
		{"the whole range", ctl.AllocateRequest{Endpoint: "weave://10.2.0.0/20"}, "10.2.0.1/20 fd00::1/116"},
		{"with one of the other family asked for", ctl.AllocateRequest{Endpoint: "weave://10.2.7.9/24", Requested: []string{"fd00::8", "10.2.7.9"}}, "10.2.7.9/24 fd00::8/116"},
		{"with another of the same subnet", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24", Requested: []string{"10.2.7.8/12"}}, "10.2.7.8/24"},
		{"with one from elsewhere", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24", Requested: []string{"10.2.8.8"}}, "7 address 10.2.8.8 is not in the subnet 10.2.7.0/24"},
		{"with its broadcast address", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24", Requested: []string{"10.2.7.255"}}, "7 address 10.2.7.255 is the first or the last of 10.2.7.0/24"},
		{"in a configuration's subnet", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24", Subnet: "10.2.0.0/21"}, "10.2.7.1/24 fd00::1/116"},
		{"that is smaller", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24", Subnet: "10.2.7.128/25"}, "10.2.7.128/24 fd00::1/116"},
		{"that is elsewhere", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24", Subnet: "10.2.8.0/24"}, "7 endpoint weave://10.2.7.0/24 is not in the subnet 10.2.8.0/24"},
		{"that is of the other family", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24", Subnet: "fd00::200/120"}, "10.2.7.1/24 fd00::200/116"},
		{"with excluded ones", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0/24", Exclude: []string{"10.2.7.0/30"}}, "10.2.7.4/24 fd00::1/116"},
		{"of a network that has it not", ctl.AllocateRequest{Endpoint: "weave://10.99.7.0/24"}, "7 subnet 10.99.7.0/24 is not in network"},
		{"no endpoint", ctl.AllocateRequest{Endpoint: "weave://10.2.7.0"}, "7 endpoint"},
	} {
		c.in.Network = "net1"
		if got := try(twoNetworks(t), "a", c.in); got != c.want && (!strings.HasPrefix(c.want, "7 ") || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

func TestTheEndsOfAnEndpointsSubnetAreNeverChosen(t *testing.T) {
	a := twoNetworks(t)
	in := ctl.AllocateRequest{Network: "net1", Endpoint: "weave://10.2.7.8/29"}
	for i := range 6 {
		if got := try(a, fmt.Sprint("c", i), in); !strings.HasPrefix(got, fmt.Sprintf("10.2.7.%d/29 ", 9+i)) {
			t.Errorf("%d: %s", i, got)
		}
	}
	if got := try(a, "more", in); !strings.HasPrefix(got, "100 ") || !strings.Contains(got, "of 6 addresses this host holds 6, with 6 in use") || strings.Contains(got, "configuration") {
		t.Errorf("when all are given: %s", got)
	}
	if got := try(a, "other", ctl.AllocateRequest{Network: "net1", Requested: []string{"10.2.7.15"}}); got != "10.2.7.15/20" {
		t.Errorf("who has the network's length may have it: %s", got)
	}
}

func TestARepeatedADDGetsTheSameOrIsToldWhyNot(t *testing.T) {
	a := twoNetworks(t)
	at := func(network, endpoint string) ctl.AllocateRequest {
		return ctl.AllocateRequest{Network: network, Endpoint: endpoint}
	}
	for range 2 {
		if got := try(a, "a", at("net1", "weave://10.2.7.0/24")); got != "10.2.7.1/24 fd00::1/116" {
			t.Errorf("got %s", got)
		}
	}
	for _, same := range []ctl.AllocateRequest{at("net1", ""), at("net1", "weave://net1"), at("net1", "weave://10.2.7.1/24")} {
		if got := try(a, "a", same); got != "10.2.7.1/24 fd00::1/116" {
			t.Errorf("%s: got %s", same.Endpoint, got)
		}
	}
	for _, other := range []ctl.AllocateRequest{at("net1", "weave://10.2.8.0/24"), at("net1", "weave://10.2.7.2/24"), at("net2", "weave://net2"), at("net2", "")} {
		if got := try(a, "a", other); !strings.HasPrefix(got, "7 container a, interface eth0 holds [10.2.7.1/24 fd00::1/116]") || !strings.Contains(got, "detach it first") {
			t.Errorf("%s %s: got %s", other.Network, other.Endpoint, got)
		}
	}
	if got := try(a, "a", at("net1", "weave://10.2.6.0/23")); got != "10.2.7.1/23 fd00::1/116" {
		t.Errorf("a longer one that holds it: %s", got)
	}
	if err := a.Release(keyOf("a").Hash()); err != nil {
		t.Fatal(err)
	}
	if got := try(a, "a", at("net1", "weave://10.2.7.0/24")); got != "10.2.7.1/24 fd00::1/116" {
		t.Errorf("after its release: %s", got)
	}
}
