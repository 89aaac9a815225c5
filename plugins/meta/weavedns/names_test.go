package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// registered is what a container with these arguments and runtimeConfig is registered with.
func registered(t *testing.T, netns, args string, runtimeConfig any) ctl.RegisterRequest {
	t.Helper()
	parsed, err := cniconf.ParseArgs(args)
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "net1", "type": "weavedns", "runtimeConfig": runtimeConfig})
	if err != nil {
		t.Fatal(err)
	}
	c := &cniconf.Call{
		Key:  attachment.Key{Network: "net1", ContainerID: "0123456789abcdef0123", IfName: "eth0"},
		Args: parsed, NetNS: netns, CNIVersion: "1.0.0", Stdin: stdin,
	}
	conf, err := decode(c)
	if err != nil {
		t.Fatalf("%s %s: %v", args, stdin, err)
	}
	return conf.registration(c)
}

func annotated(endpoint string) any {
	return map[string]any{"io.kubernetes.cri.pod-annotations": map[string]string{"weave.network/endpoint": endpoint}}
}

func TestNamesComeFromEverySourceTheBestFirst(t *testing.T) {
	const made, person = "/var/run/netns/cni-1234", "/run/netns/person"
	list := map[string]any{"aliases": []string{"A1", "a1", "bad name", "a_2"}}
	byNet := map[string]any{"Aliases": map[string][]string{"net1": {"al"}, "net2": {"no"}}}
	for _, c := range []struct {
		netns, args   string
		runtimeConfig any
		want          string
	}{
		// one source each
		{made, "WEAVE_HOSTNAME=Mine", nil, "mine"},
		{made, "K8S_POD_NAME=Web;IgnoreUnknown=1", nil, "web"},
		{made, "K8S_POD_NAME=web;K8S_POD_NAMESPACE=prod", nil, "web.prod"},
		{made, "NERDCTL_CNI_DHCP_HOSTNAME=host1", nil, "host1"},
		{made, "WEAVE_HOSTNAME=LocalHost;NERDCTL_CNI_DHCP_HOSTNAME=host1", nil, "host1"},
		{made, "WEAVE_ENDPOINT=?alias%3Dlocalhost", nil, "0123456789ab"},
		{made, "", list, "a1 a_2"},
		{made, "", byNet, "al"},
		{made, "", annotated("weave://net1?alias=one&alias=two"), "one two"},
		{made, "WEAVE_ENDPOINT=?alias%3Done", nil, "one"},
		{person, "", nil, "person"},
		{"/var/run/netns/person", "", nil, "person"},
		{made, "", nil, "0123456789ab"},
		{"", "", nil, "0123456789ab"},

		// the best of several
		{person, "WEAVE_HOSTNAME=mine;K8S_POD_NAME=web;K8S_POD_NAMESPACE=prod;NERDCTL_CNI_DHCP_HOSTNAME=host1", nil, "mine"},
		{person, "K8S_POD_NAME=web;NERDCTL_CNI_DHCP_HOSTNAME=host1", nil, "web"},
		{person, "NERDCTL_CNI_DHCP_HOSTNAME=host1", nil, "host1"},
		{person, "", list, "a1 a_2"},
		{person, "", annotated("?alias=one"), "one"},
		{person, "", annotated("?port=http:80"), "person"},
		{made, "K8S_POD_NAMESPACE=prod", nil, "0123456789ab"},

		// and all aliases beside it, each once
		{made, "K8S_POD_NAME=proj_redis_1", map[string]any{"aliases": []string{"redis", "proj_redis_1"}}, "proj_redis_1 redis"},
		{made, "K8S_POD_NAME=web;K8S_POD_NAMESPACE=prod", annotated("?alias=one&alias=web.prod"), "web.prod one"},
		{made, "WEAVE_HOSTNAME=mine;WEAVE_ENDPOINT=?alias%3Done", byNet, "mine al one"},

		// what can be no name is as good as none
		{made, "WEAVE_HOSTNAME=a b;K8S_POD_NAME=web", nil, "web"},
		{made, "K8S_POD_NAME=a=b", nil, "0123456789ab"},
		{made, "WEAVE_HOSTNAME=web.", nil, "web"},
		{made, "WEAVE_HOSTNAME=" + strings.Repeat("a", 64), nil, "0123456789ab"},
		{made, "K8S_POD_NAME=web", annotated("?dns=no"), ""},
	} {
		if got := strings.Join(registered(t, c.netns, c.args, c.runtimeConfig).Names, " "); got != c.want {
			t.Errorf("%s %q %v: got %q, want %q", c.netns, c.args, c.runtimeConfig, got, c.want)
		}
	}
}

func TestAContainerHasSoManyNames(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("n", i))
	}
	got := registered(t, "", "WEAVE_HOSTNAME=mine", map[string]any{"aliases": many}).Names
	if want := append([]string{"mine"}, many[:maxNames-1]...); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestPortsAndTextsOfAnEndpointAreRegistered(t *testing.T) {
	want := []ctl.Service{{Name: "http", Protocol: "tcp", Port: 80}, {Name: "dns", Protocol: "udp", Port: 53}}
	for _, got := range []ctl.RegisterRequest{
		registered(t, "", "K8S_POD_NAME=web", annotated("?port=http:80&port=dns:53/udp&txt=v%3D2;x")),
		registered(t, "", "K8S_POD_NAME=web;WEAVE_ENDPOINT=weave://net1?port%3Dhttp:80&port%3Ddns:53/udp&txt%3Dv%3D2%3Bx", nil),
	} {
		if !slices.Equal(got.Names, []string{"web"}) || !reflect.DeepEqual(got.Services, want) || !slices.Equal(got.Texts, []string{"v=2;x"}) {
			t.Errorf("got %+v", got)
		}
	}
}
