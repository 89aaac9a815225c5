package main

import (
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/cniconf/configtest"
)

func FuzzConfig(f *testing.F) {
	configtest.Fuzz(f, decode, accepted,
		`{"cniVersion":"1.0.0","name":"sb","type":"simplebridge","bridge":"br0","ipam":{"type":"host-local","subnet":"10.1.0.0/16"},"mtu":1400,"isGateway":false}`,
		`{"name":"n","bridge":"a/b"}`,
		`{"name":"n","bridge":"","hairpinMode":null}`,
	)
}

// accepted: what the rest of ADD relies on.
func accepted(t *testing.T, conf *config, _ *cniconf.Call) {
	if attachment.ValidIfName(conf.Bridge) != nil || conf.HairpinMode == nil || conf.IsGateway == nil || conf.MTU < 0 {
		t.Fatalf("accepted %+v", conf)
	}
	if mac := conf.bridgeMAC(attachment.NSID{Dev: 1, Ino: 2}); len(mac) != 6 || mac[0] != 2 {
		t.Fatalf("MAC %v", mac)
	}
}
