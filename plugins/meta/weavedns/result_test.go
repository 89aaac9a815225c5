package main

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func TestThePlacesOfResolvConfThatCountAreOursWhereTheRuntimeAddsTheHostsServers(t *testing.T) {
	const four, six, others = "10.32.0.1", "fd00:32::1", "192.0.2.53"
	podman := cniconf.Args{"K8S_POD_NAME": "web", "IgnoreUnknown": "1"}
	for _, c := range []struct {
		args    cniconf.Args
		servers []string
		want    []string
	}{
		{podman, []string{four}, []string{four, four, four, others}},
		{podman, []string{four, six}, []string{four, six, four, others}},
		{podman, nil, []string{others}},
		{cniconf.Args{"K8S_POD_NAME": "web", "K8S_POD_NAMESPACE": "prod"}, []string{four}, []string{four, others}},
		{nil, []string{four, six}, []string{four, six, others}},
	} {
		r := ctl.Resolver{Domain: "weave.local"}
		for _, s := range c.servers {
			r.Servers = append(r.Servers, netip.MustParseAddr(s))
		}
		dns := types.DNS{Nameservers: []string{others}}
		new(config).putResult(&dns, r, keepsHostServers(c.args))
		if !slices.Equal(dns.Nameservers, c.want) {
			t.Errorf("%v of %v: %v, want %v", c.servers, c.args, dns.Nameservers, c.want)
		}
	}
}
