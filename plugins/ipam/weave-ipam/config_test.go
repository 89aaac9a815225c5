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
		`{"cniVersion":"1.0.0","name":"n","type":"macvlan","ipam":{"type":"weave-ipam","network":"blue","subnet":"10.32.4.0/24","socket":"/s","routes":[{"dst":"10.0.0.0/8","gw":"10.32.0.1"}]}}`,
		`{"name":"n","type":"weave-net","network":"blue","ipam":{"type":"weave-ipam"}}`,
		`{"name":"n","ipam":{"type":"host-local"}}`,
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
	if cniconf.CheckName("network", conf.network()) != nil || conf.decider() == "" {
		t.Fatalf("accepted %+v", conf)
	}
	result(ctl.AllocateReply{}, conf.IPAM.Routes)
}
