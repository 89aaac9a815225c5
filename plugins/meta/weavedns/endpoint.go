package main

import (
	"net/netip"
	"slices"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// setEndpoint takes over what the container's endpoint says of names: more of them,
// none at all, or the resolver although the list gives none.
func (conf *config) setEndpoint(args cniconf.Args, usual string, p *cniconf.Problems) {
	e, err := conf.RequestedEndpoint(args)
	p.Check(err)
	conf.aliases, conf.services, conf.texts = e.Aliases, nil, e.Texts
	for _, s := range e.Services {
		conf.services = append(conf.services, ctl.Service(s))
	}
	switch {
	case e.DNS == nil:
	case *e.DNS && conf.Inject == injectOff:
		conf.Inject = usual
	case *e.DNS:
	default:
		conf.Inject, conf.nameless = injectOff, true
	}
}

// reached are those of the resolver's addresses to which the container has a way. They
// are on the network's bridge, which may be outside a small subnet that an endpoint
// asked for; a name server that does not answer is worse than none.
func reached(servers []netip.Addr, r *current.Result, ifname string) []netip.Addr {
	if len(r.IPs) == 0 {
		return servers // it gets its addresses, and its ways, from somebody else
	}
	ways := cniconf.Ways(r, ifname)
	return slices.DeleteFunc(servers, func(s netip.Addr) bool {
		return !slices.ContainsFunc(ways, func(w netip.Prefix) bool { return w.Contains(s) })
	})
}
