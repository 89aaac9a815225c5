package main

import (
	"net"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
)

const (
	defaultBridge = "simplebr0"
	defaultMTU    = 1500 // of a bridge that is made here
)

// config is what the README describes.
type config struct {
	cniconf.Conf
	Bridge      string `json:"bridge"`
	MTU         int    `json:"mtu"`
	IsGateway   *bool  `json:"isGateway"`
	HairpinMode *bool  `json:"hairpinMode"`

	mac net.HardwareAddr // asked for, nil when none is
}

// decode reads the configuration with its defaults and checks all that can be
// checked before anything is touched.
func decode(c *cniconf.Call) (*config, error) {
	conf := &config{}
	if err := cniconf.Decode(c.Stdin, conf); err != nil {
		return nil, err
	}
	var p cniconf.Problems
	if conf.IPAM.Type == cniconf.WeaveIPAM && conf.IsGateway != nil && *conf.IsGateway {
		p.Add("isGateway: weave-ipam gives no gateway for the bridge of simplebridge: the network's is on the bridge of weave-net; leave isGateway out, or use weave-net")
	}
	conf.setDefaults()
	conf.mac = conf.CheckMain(c, conf.MTU, &p)
	if err := attachment.ValidIfName(conf.Bridge); err != nil {
		p.Add("bridge: %v", err)
	}
	return conf, p.Err()
}

func (conf *config) setDefaults() {
	yes, own := true, conf.IPAM.Type != cniconf.WeaveIPAM
	if conf.Bridge == "" {
		conf.Bridge = defaultBridge
	}
	if conf.IsGateway == nil {
		conf.IsGateway = &own
	}
	if conf.HairpinMode == nil {
		conf.HairpinMode = &yes
	}
}
