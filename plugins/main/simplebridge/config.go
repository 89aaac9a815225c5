package main

import (
	"net"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
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
	conf.setDefaults()
	conf.mac = conf.CheckMain(c, conf.MTU, &p)
	if err := attachment.ValidIfName(conf.Bridge); err != nil {
		p.Add("bridge: %v", err)
	}
	if routers(conf.Bridge) {
		p.Add("bridge %q: that is one of the router's, with a network of many hosts on it: use weave-net for that, or another bridge", conf.Bridge)
	}
	return conf, p.Err()
}

// decodeAdd also refuses a bridge that is to be a gateway and gets no address for
// it. Attachments from before it was refused are still to be checked and collected.
func decodeAdd(c *cniconf.Call) (*config, error) {
	conf, err := decode(c)
	if err != nil {
		return nil, err
	}
	var p cniconf.Problems
	switch weaves := conf.IPAM.Type == cniconf.WeaveIPAM; {
	case ofANetwork(conf.Bridge) && !weaves:
		p.Add("bridge %q: the router makes it for a network of driver simplebridge, whose addresses weave-ipam gives: use that, or another bridge", conf.Bridge)
	case weaves && *conf.IsGateway && !ofANetwork(conf.Bridge):
		p.Add("isGateway: weave-ipam gives no gateway for the bridge of simplebridge: the network's is on the bridge of weave-net; leave isGateway out, or use weave-net")
	}
	return conf, p.Err()
}

// ofANetwork reports whether a bridge is, by its name, one that the router makes for a
// network of driver simplebridge: with the gateway's address on it.
func ofANetwork(bridge string) bool { return ctl.DeviceID(bridge, ctl.LocalPrefix) != "" }

// routers reports whether a bridge is, by its name, one of a network of many hosts.
func routers(bridge string) bool {
	return bridge == "weave" || ctl.DeviceID(bridge, ctl.BridgePrefix) != ""
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
