package main

import (
	"net/netip"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/cniconf/configtest"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func FuzzConfig(f *testing.F) {
	configtest.Fuzz(f, decodeAdd, accepted,
		`{"cniVersion":"1.0.0","name":"n","type":"macvlan","ipam":{"type":"weave-ipam","network":"blue","subnet":"10.32.4.0/24","socket":"/s","routes":[{"dst":"10.0.0.0/8","gw":"10.32.0.1"}]}}`,
		`{"name":"n","type":"weave-net","network":"blue","ipam":{"type":"weave-ipam"}}`,
		`{"name":"n","ipam":{"type":"host-local"}}`,
		`{"name":"n","type":"weave-net","endpoint":"weave://10.2.45.3/24","ipam":{"type":"weave-ipam","routes":[{"dst":"0.0.0.0/0"}]}}`,
		`{"name":"n","type":"macvlan","endpoint":7,"ipam":{"type":"weave-ipam","endpoint":"10.2.67.0/24"},"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"weave.network/endpoint":"10.2.67.9/25"}}}`,
		`{"name":"n","type":"ptp","ipam":{"type":"weave-ipam","routes":[null,{},{"dst":"0.0.0.0/0"}]}}`,
		`{"name":"n","type":"bridge","isGateway":"yes","isDefaultGateway":false,"ipam":{"type":"weave-ipam"}}`,
	)
}

// accepted: what the rest of ADD relies on.
func accepted(t *testing.T, conf *config, _ *cniconf.Call) {
	if cniconf.CheckName("network", conf.network()) != nil || conf.decider() == "" {
		t.Fatalf("accepted %+v", conf)
	}
	if usual, err := conf.usualEndpoint(); err != nil || conf.Type != weaveNet && usual.Prefix.IsValid() && !inside(conf.where.Prefix, usual.Prefix) {
		t.Fatalf("accepted %s, and the list's is %s, %v", conf.where, usual, err)
	}
	r := conf.result(ctl.AllocateReply{Addresses: []ctl.Address{{Address: netip.MustParsePrefix("10.32.0.5/12"), Gateway: netip.MustParseAddr("10.32.0.1")}}})
	for _, route := range r.Routes {
		if ones, _ := route.Dst.Mask.Size(); ones == 0 && route.GW == nil && r.IPs[0].Gateway == nil {
			t.Fatalf("a default route by no gateway: %+v", route)
		}
	}
}
