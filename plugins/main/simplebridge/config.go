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
	conf.setDefaults()
	var p cniconf.Problems
	conf.mac = conf.CheckMain(c, conf.MTU, &p)
	if err := attachment.ValidIfName(conf.Bridge); err != nil {
		p.Add("bridge: %v", err)
	}
	return conf, p.Err()
}

func (conf *config) setDefaults() {
	yes := true
	if conf.Bridge == "" {
		conf.Bridge = defaultBridge
	}
	if conf.IsGateway == nil {
		conf.IsGateway = &yes
	}
	if conf.HairpinMode == nil {
		conf.HairpinMode = &yes
	}
}
