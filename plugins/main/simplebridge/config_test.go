package main

import (
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
)

// FuzzConfig: no configuration and no CNI_ARGS make the decoder panic, and what it refuses has a code.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.0.0","name":"sb","type":"simplebridge","bridge":"br0","ipam":{"type":"host-local","subnet":"10.1.0.0/16"},"mtu":1400,"isGateway":false}`,
		`{"name":"n","bridge":"a/b"}`,
		`{"name":"n","bridge":"","hairpinMode":null}`,
	} {
		f.Add([]byte(s), "IP=10.32.0.5;MAC=02:00:00:00:00:01;K8S_POD_NAME=web;X=a=b")
	}
	f.Fuzz(func(t *testing.T, stdin []byte, env string) {
		args, err := cniconf.ParseArgs(env)
		if err != nil {
			return
		}
		c := &cniconf.Call{
			Key:  attachment.Key{Network: "net1", ContainerID: "c1", IfName: "eth0"},
			Args: args, NetNS: env, CNIVersion: "1.0.0", Stdin: stdin,
		}
		conf, err := decode(c)
		if err != nil {
			var coded *types.Error
			if !errors.As(err, &coded) || coded.Code != types.ErrDecodingFailure && coded.Code != types.ErrInvalidNetworkConfig {
				t.Fatalf("refused without its code: %v", err)
			}
			return
		}
		accepted(t, conf, c)
	})
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
