package main

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
)

// setEndpoint finds out where the address is to come from. Behind weave-net that is
// where weave-net attaches the container. Behind any other plugin its interface is where
// the list puts it: there an endpoint only chooses within what the list says.
func (conf *config) setEndpoint(args cniconf.Args, p *cniconf.Problems) {
	usual, err := conf.usualEndpoint()
	p.Check(err)
	conf.where, err = conf.RequestedEndpoint(args)
	p.Check(err)
	switch {
	case !conf.where.Somewhere():
		conf.where = usual
	case conf.Type == weaveNet:
	case !usual.Prefix.IsValid():
		conf.fixed = true
	case !inside(conf.where.Prefix, usual.Prefix):
		p.Add("endpoint %s is not in ipam.endpoint %s", conf.where.Place(), usual.Place())
	}
}

// usualEndpoint is that of the list.
func (conf *config) usualEndpoint() (endpoint.Endpoint, error) {
	if conf.Type == weaveNet {
		var text string
		if len(conf.Endpoint) > 0 && json.Unmarshal(conf.Endpoint, &text) != nil {
			return endpoint.Endpoint{}, fmt.Errorf("endpoint: want a text, have %.40s", conf.Endpoint)
		}
		return cniconf.ConfiguredEndpoint("endpoint", text)
	}
	e, err := cniconf.ConfiguredEndpoint("ipam.endpoint", conf.IPAM.Endpoint)
	switch {
	case err != nil || conf.IPAM.Endpoint == "":
		return e, err
	case !e.Prefix.IsValid():
		return e, fmt.Errorf("ipam.endpoint %q: want a prefix like weave://10.2.67.0/24; a network is named by ipam.network", conf.IPAM.Endpoint)
	case conf.IPAM.Network != "":
		return e, fmt.Errorf("ipam.network %q and ipam.endpoint %q: give one of the two", conf.IPAM.Network, conf.IPAM.Endpoint)
	}
	return e, nil
}

// inside reports whether all of a prefix is in another.
func inside(p, whole netip.Prefix) bool {
	return p.IsValid() && whole.Bits() <= p.Bits() && whole.Contains(p.Addr())
}

// checkReply refuses addresses of a router that has passed the endpoint over, and a
// way out by a gateway that is not in the endpoint's subnet.
func (conf *config) checkReply(got ctl.AllocateReply) error {
	if conf.where.Somewhere() && got.Network == "" {
		return cniconf.Errorf(ctl.CodeNotSupported, "endpoint %s: the router is older than this plugin and reads no endpoints: upgrade weaver", conf.where.Place())
	}
	for _, a := range got.Addresses {
		if !conf.reachesGateway() || !a.Gateway.IsValid() || conf.gateway(a).IsValid() {
			continue
		}
		for i, r := range conf.IPAM.Routes {
			if ones, bits := r.Dst.Mask.Size(); len(r.GW) == 0 && ones == 0 && bits == a.Address.Addr().BitLen() {
				return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("ipam.routes[%d]: %s has no gw, and the gateway %s is not in %s, which the container is to have", i, &r.Dst, a.Gateway, a.Address.Masked()),
					"ask for an endpoint whose prefix has it, or give the route a gw that is in all of them")
			}
		}
	}
	return nil
}

// gateway is the network's, where the container reaches it: with weave-net when it is
// in the subnet that the container has; ptp makes a way to it.
func (conf *config) gateway(a ctl.Address) netip.Addr {
	if !conf.reachesGateway() || conf.Type == weaveNet && !a.Address.Contains(a.Gateway) {
		return netip.Addr{}
	}
	return a.Gateway
}
