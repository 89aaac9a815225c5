package main

import (
	"context"
	"net"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
)

// config is what the README describes.
type config struct {
	cniconf.Conf
	Network          string `json:"network"`
	Endpoint         string `json:"endpoint"`
	MTU              int    `json:"mtu"`
	HairpinMode      *bool  `json:"hairpinMode"`
	IsDefaultGateway *bool  `json:"isDefaultGateway"`

	mac   net.HardwareAddr  // asked for, nil when none is
	where endpoint.Endpoint // asked for one container, else Endpoint; Network, if it does not say
}

// decode reads the configuration with its defaults and checks all that can be
// checked before anything is touched.
func decode(c *cniconf.Call) (*config, error) {
	conf := &config{}
	if err := cniconf.Decode(c.Stdin, conf); err != nil {
		return nil, err
	}
	var p cniconf.Problems
	conf.setEndpoint(c.Args, &p)
	conf.setDefaults()
	conf.mac = conf.CheckMain(c, conf.MTU, &p)
	p.Check(cniconf.CheckName("network", conf.Network))
	if n := conf.IPAM.Network; n != "" && n != conf.Network {
		p.Add("ipam.network %q and network %q differ: the addresses would be another network's", n, conf.Network)
	}
	return conf, p.Err()
}

func (conf *config) setDefaults() {
	yes := true
	if conf.Network == "" {
		conf.Network = conf.Name
	}
	if conf.HairpinMode == nil {
		conf.HairpinMode = &yes
	}
	if conf.IsDefaultGateway == nil {
		conf.IsDefaultGateway = &yes
	}
}

// setEndpoint finds out where the container is to be attached.
func (conf *config) setEndpoint(args cniconf.Args, p *cniconf.Problems) {
	if conf.Endpoint != "" && conf.Network != "" {
		p.Add("network %q and endpoint %q: give one of the two", conf.Network, conf.Endpoint)
	}
	if conf.IPAM.Endpoint != "" {
		p.Add("ipam.endpoint %q: behind weave-net it is weave-net's key endpoint", conf.IPAM.Endpoint)
	}
	usual, err := cniconf.ConfiguredEndpoint("endpoint", conf.Endpoint)
	p.Check(err)
	conf.where, err = conf.RequestedEndpoint(args)
	p.Check(err)
	if !conf.where.Somewhere() {
		conf.where = usual
	}
	if conf.where.Prefix.IsValid() && conf.IPAM.Type != cniconf.WeaveIPAM {
		p.Add("endpoint %s: ipam.type is %q, and only %s gives an address that an endpoint asks for", conf.where.Place(), conf.IPAM.Type, cniconf.WeaveIPAM)
	}
}

// askNetwork asks for the network that the configuration is about. With a key it is
// the one that this attachment stands on.
func (conf *config) askNetwork(ctx context.Context, r *cniconf.Router, k attachment.Key) (ctl.Network, error) {
	in := ctl.NetworkRequest{Name: conf.Network, Key: k}
	if conf.where.Somewhere() {
		in.Endpoint = conf.where.Place()
	}
	var n ctl.Network
	if err := r.Call(ctx, ctl.PathNetwork, in, &n); err != nil {
		return n, err
	}
	switch {
	case in.Endpoint != "" && n.Driver == "":
		return n, cniconf.Errorf(ctl.CodeNotSupported, "endpoint %s: the router is older than this plugin and reads no endpoints: upgrade weaver", in.Endpoint)
	case n.Driver == ctl.DriverSimpleBridge:
		return n, cniconf.Errorf(types.ErrInvalidNetworkConfig, "network %q is of driver %s: attach to it with the network list that is its own", n.Name, n.Driver)
	}
	return n, nil
}

// link is how a container is attached to the network. A larger MTU than the
// network's is refused: it would work on this host and lose packets between hosts.
func (conf *config) link(n ctl.Network) (cniconf.Link, error) {
	l := cniconf.Link{Bridge: n.Bridge, BridgeMAC: n.MAC, MTU: n.MTU, Hairpin: *conf.HairpinMode, MAC: conf.mac}
	if conf.MTU > n.MTU {
		return l, cniconf.Errorf(types.ErrInvalidNetworkConfig, "mtu %d is larger than %d, which is what network %q carries between hosts", conf.MTU, n.MTU, n.Name)
	}
	if conf.MTU != 0 {
		l.MTU = conf.MTU
	}
	return l, nil
}
