package main

import (
	"testing"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/cniconf/configtest"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func FuzzConfig(f *testing.F) {
	configtest.Fuzz(f, decode, accepted,
		`{"cniVersion":"1.0.0","name":"weave","type":"weave-net","ipam":{"type":"weave-ipam"},"mtu":1400,"hairpinMode":false,"isDefaultGateway":true,"network":"blue","socket":"/run/weave/weave.sock"}`,
		`{"name":"n","runtimeConfig":{"IPs":["10.32.0.5"],"MAC":"02:00:00:00:00:01"}}`,
		`{"name":"n","mtu":-1,"network":"../x"}`,
		`{"name":"n","endpoint":"weave://10.2.45.3/24","ipam":{"type":"weave-ipam"}}`,
		`{"name":"n","ipam":{"type":"weave-ipam"},"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"weave.network/endpoint":"weave://net1?alias=a"}}}`,
	)
}

// accepted: what the rest of ADD relies on.
func accepted(t *testing.T, conf *config, _ *cniconf.Call) {
	if conf.Network == "" || conf.HairpinMode == nil || conf.IsDefaultGateway == nil || conf.MTU < 0 {
		t.Fatalf("accepted %+v", conf)
	}
	if conf.where.Prefix.IsValid() && conf.IPAM.Type != cniconf.WeaveIPAM {
		t.Fatalf("accepted %s with ipam.type %q", conf.where, conf.IPAM.Type)
	}
	link, err := conf.link(ctl.Network{MTU: 1410})
	if err == nil && (link.MTU < 576 || link.MTU > 1410) {
		t.Fatalf("accepted MTU %d", link.MTU)
	}
}
