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
	conf.Check(&p)
	if err := attachment.ValidIfName(conf.Bridge); err != nil {
		p.Add("bridge: %v", err)
	}
	p.Check(cniconf.CheckMTU(conf.MTU))
	asked, err := conf.RequestedIPs(c.Args)
	p.Check(err)
	if len(asked) > 0 && conf.IPAM.Type == "" {
		p.Add("an address is asked for and there is no ipam to give it")
	}
	conf.mac, err = conf.RequestedMAC(c.Args)
	p.Check(err)
	if err := p.Err(); err != nil {
		return nil, err
	}
	return conf, c.CheckAlias(asked)
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
