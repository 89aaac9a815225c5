package main

import (
	"context"
	"net"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// config is what the README describes.
type config struct {
	cniconf.Conf
	Network          string `json:"network"`
	MTU              int    `json:"mtu"`
	HairpinMode      *bool  `json:"hairpinMode"`
	IsDefaultGateway *bool  `json:"isDefaultGateway"`

	mac net.HardwareAddr // asked for, nil when none is
}

// decode reads the configuration with its defaults and checks all that can be
// checked before anything is touched.
func decode(c *cniconf.Call) (*config, error) {
	conf := &config{}
	if err := cniconf.Decode(c.Stdin, conf); err != nil {
		return nil, err
	}
	conf.setDefaults()
	var p cniconf.Problems
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

func (conf *config) askNetwork(ctx context.Context, r *cniconf.Router) (ctl.Network, error) {
	var n ctl.Network
	err := r.Call(ctx, ctl.PathNetwork, ctl.NetworkRequest{Name: conf.Network}, &n)
	return n, err
}

// link is how a container is attached to the network. A larger MTU than the
// network's is refused: it would work on this host and lose packets between hosts.
func (conf *config) link(n ctl.Network) (cniconf.Link, error) {
	l := cniconf.Link{Bridge: n.Bridge, BridgeMAC: n.MAC, MTU: n.MTU, Hairpin: *conf.HairpinMode, MAC: conf.mac}
	if conf.MTU > n.MTU {
		return l, cniconf.Errorf(types.ErrInvalidNetworkConfig, "mtu %d is larger than %d, which is what network %q carries between hosts", conf.MTU, n.MTU, conf.Network)
	}
	if conf.MTU != 0 {
		l.MTU = conf.MTU
	}
	return l, nil
}
