package router

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

func networkOfID(name, id string, subnets ...string) ledger.Network {
	n := ledger.Network{Name: name, ID: id + strings.Repeat("0", 64-len(id)), Driver: "weave"}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	return n
}

func TestAnEndpointIsOnTheNetworkThatItNamesOrLiesIn(t *testing.T) {
	networks := []ledger.Network{
		networkOfID("weave", "0123456789ab0", "10.32.0.0/12", "fd00::/48"),
		networkOfID("net1", "0123456789ab1", "10.2.0.0/16", "fd01::/64"),
		networkOfID("0123456789", "feedfeedfeed", "10.3.0.0/24"),
		networkOfID("halves", "aaaaaaaaaaaa", "10.4.0.0/25", "10.4.0.128/25"),
	}
	for text, want := range map[string]string{
		"net1": "net1", "weave": "weave", "0123456789": "0123456789",
		"0123456789ab1": "net1", "0123456789AB1": "net1", "feedfeedfeed": "0123456789", networks[0].ID: "weave",
		"10.2.45.3/24": "net1", "10.2.45.0/24": "net1", "10.2.0.0/16": "net1", "10.2.3.4/16": "net1", "10.2.3.4/32": "net1",
		"10.33.0.0/16": "weave", "fd00:0:0:7::/64": "weave", "fd01::5/64": "net1", "[fd01::5]/128": "net1", "10.4.0.128/26": "halves",
	} {
		e, err := endpoint.ParseBare(text)
		must(t, err)
		if got, err := placeOf(networks, e); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]struct {
		code  uint
		words []string
	}{
		"10.99.45.3/24": {ctl.CodeInvalidConfig, []string{"no network holds 10.99.45.0/24: weave net create --subnet 10.99.45.0/24"}},
		"10.99.45.3/32": {ctl.CodeInvalidConfig, []string{"no network holds 10.99.45.3/32"}},
		"10.0.0.0/8":    {ctl.CodeInvalidConfig, []string{"no network holds 10.0.0.0/8: network ", " has a part of it, 10.", "give a prefix inside that"}},
		"10.4.0.0/24":   {ctl.CodeInvalidConfig, []string{"network halves has a part of it"}},
		"fd02::/64":     {ctl.CodeInvalidConfig, []string{"no network holds fd02::/64"}},
		"net2":          {ctl.CodeInvalidConfig, []string{`no network is called "net2"`, "there are 0123456789, halves, net1, weave"}},
		"feed":          {ctl.CodeInvalidConfig, []string{`no network is called "feed"`}}, // too short for an id
		"0123456789ab":  {ctl.CodeAmbiguous, []string{"2 networks have an id that begins", "net1, weave: give more of the id"}},
	} {
		e, err := endpoint.ParseBare(text)
		must(t, err)
		got, err := placeOf(networks, e)
		var coded *ctl.Error
		if !errors.As(err, &coded) || coded.Code != want.code {
			t.Errorf("%s: got %q, %v", text, got, err)
			continue
		}
		for _, w := range want.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", text, err, w)
			}
		}
	}
}

func TestARefusalListsFewNetworks(t *testing.T) {
	var networks []ledger.Network
	for i := range 30 {
		networks = append(networks, networkOfID("net"+string(rune('a'+i)), "", "10.2.0.0/16"))
	}
	if _, err := calledNetwork(networks, "no"); err == nil || strings.Count(err.Error(), "net") > maxNamed+2 || !strings.Contains(err.Error(), "and 22 more") {
		t.Errorf("got %v", err)
	}
}
