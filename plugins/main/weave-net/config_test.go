package main

import (
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// FuzzConfig: no configuration and no CNI_ARGS make the decoder panic, and what it refuses has a code.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		`{"cniVersion":"1.0.0","name":"weave","type":"weave-net","ipam":{"type":"weave-ipam"},"mtu":1400,"hairpinMode":false,"isDefaultGateway":true,"network":"blue","socket":"/run/weave/weave.sock"}`,
		`{"name":"n","runtimeConfig":{"IPs":["10.32.0.5"],"MAC":"02:00:00:00:00:01"}}`,
		`{"name":"n","mtu":-1,"network":"../x"}`,
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
	if conf.Network == "" || conf.HairpinMode == nil || conf.IsDefaultGateway == nil || conf.MTU < 0 {
		t.Fatalf("accepted %+v", conf)
	}
	link, err := conf.link(ctl.Network{MTU: 1410})
	if err == nil && (link.MTU < 576 || link.MTU > 1410) {
		t.Fatalf("accepted MTU %d", link.MTU)
	}
}
