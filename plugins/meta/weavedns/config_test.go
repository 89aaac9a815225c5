package main

import (
	"testing"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/cniconf/configtest"
)

func FuzzConfig(f *testing.F) {
	configtest.Fuzz(f, decode, accepted,
		`{"cniVersion":"1.0.0","name":"n","type":"weavedns","inject":"off","required":true,"runtimeConfig":{"aliases":["a","B"]}}`,
		`{"name":"net1","runtimeConfig":{"aliases":{"net1":["a","b.c"]}}}`,
		`{"name":"n","inject":"auto"}`,
		`{"name":"n","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"weave.network/endpoint":"?alias=a&alias=B"}}}`,
		`{"name":"n","runtimeConfig":{"aliases":["a"],"io.kubernetes.cri.pod-annotations":{"weave.network/endpoint":"?dns=no"}}}`,
	)
}

// accepted: what the rest of ADD relies on.
func accepted(t *testing.T, conf *config, c *cniconf.Call) {
	names := conf.names(c)
	if conf.nameless && (len(names) > 0 || conf.Inject != injectOff) {
		t.Fatalf("one without names has %q, inject %s", names, conf.Inject)
	}
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
