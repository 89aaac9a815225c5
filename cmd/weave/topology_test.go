package main

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// seen is what busy's router knows of the cluster.
func seen() ctl.Topology {
	return ctl.Topology{
		Self: "alpha",
		Hosts: []ctl.TopologyHost{
			{Name: "alpha", Address: netip.MustParseAddr("10.9.0.1"), State: ctl.HostHere},
			{Name: "beta", Address: netip.MustParseAddr("10.9.0.2"), State: ctl.HostUp},
			{Name: "delta", Address: netip.MustParseAddr("10.9.0.5"), State: ctl.HostUp, Silent: true},
			{Name: "gamma", State: ctl.HostAway},
			{Name: "zeta", Address: netip.MustParseAddr("10.9.0.7"), State: ctl.HostUnknown},
		},
		Links: []ctl.TopologyLink{
			{A: "alpha", B: "beta", State: "connected"}, {A: "alpha", B: "delta", State: "relayed"},
			{A: "alpha", B: "gamma", State: "dialling"}, {A: "alpha", B: "zeta", State: "refused"},
			{A: "beta", B: "delta", State: "connected"},
		},
		Networks: []ctl.TopologyNetwork{
			{Name: "blue", Driver: "weave", Subnets: prefixes("10.48.0.0/20")},
			{Name: "weave", Driver: "weave", Subnets: prefixes("10.32.0.0/12"),
				Hosts: []ctl.HostEndpoints{{Host: "alpha", Endpoints: 3}, {Host: "beta", Endpoints: 12}, {Host: "delta", Endpoints: 1}}},
		},
	}
}

func TestThePictureIsOfWhatTheRouterKnows(t *testing.T) {
	socket := router(t, busy())
	code, out, errs := weave(t, false, nil, "status", "topology", "--svg", "--socket", socket)
	if code != 0 || errs != "" || !strings.HasPrefix(out, "<svg ") || !strings.Contains(out, ">beta – delta: connected<") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	var got ctl.Topology
	_, out, _ = weave(t, false, nil, "status", "topology", "--json", "--socket", socket)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(seen(), got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Error(d)
	}
}
