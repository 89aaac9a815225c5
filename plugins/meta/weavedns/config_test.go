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
		`{"cniVersion":"1.0.0","name":"n","type":"weavedns","inject":"off","required":true,"runtimeConfig":{"aliases":["a","B"]}}`,
		`{"name":"net1","runtimeConfig":{"aliases":{"net1":["a","b.c"]}}}`,
		`{"name":"n","inject":"auto"}`,
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
func accepted(t *testing.T, conf *config, c *cniconf.Call) {
	names := conf.names(c)
	if len(names) > maxNames {
		t.Fatalf("%d names", len(names))
	}
	for _, n := range names {
		if !valid(n) || normal(n) != n {
			t.Fatalf("name %q", n)
		}
	}
}

func TestOnlyANamespaceThatAPersonNamedGivesItsName(t *testing.T) {
	for path, want := range map[string]string{
		"/run/netns/web":      "web",
		"/var/run/netns/web":  "web",
		"/run/netns//web/":    "web",
		"/run/netns/cni-1234": "",
		"/run/netns/netns-12": "",
		"/proc/12/ns/net":     "",
		"/run/netns/a/b":      "",
		"/x/run/netns/web":    "",
		"":                    "",
		"/run/netns/../x":     "",
		"/var/run/netns/0d6e5a7c-55d5-4f0c-b2b1-5a4e7a9f1c11": "",
	} {
		if got := netnsName(path); got != want {
			t.Errorf("%q: got %q, want %q", path, got, want)
		}
	}
}
