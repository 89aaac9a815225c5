// Command weave-ipam is the CNI IPAM plugin that gives out the addresses of a
// weave network, unique on all its hosts. It asks the router of its host.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
)

func main() {
	cniconf.Main(cniconf.Plugin{Name: cniconf.WeaveIPAM, Add: add, Check: check, Del: del, GC: gc, Status: status})
}

// config is what the README describes.
type config struct {
	cniconf.Conf
	Network  string          `json:"network"`  // of weave-net, whose configuration this is too
	Endpoint json.RawMessage `json:"endpoint"` // likewise; in another plugin's it may be anything

	// Of the main plugin bridge. In another's they may be anything.
	IsGateway        json.RawMessage `json:"isGateway"`
	IsDefaultGateway json.RawMessage `json:"isDefaultGateway"`
	Bridge           json.RawMessage `json:"bridge"` // of bridge and simplebridge

	asked []string
	where endpoint.Endpoint
	fixed bool // the container's interface is on the network already
}

const weaveNet = "weave-net"

func decode(c *cniconf.Call) (*config, error) {
	conf := &config{}
	if err := cniconf.Decode(c.Stdin, conf); err != nil {
		return nil, err
	}
	var p cniconf.Problems
	if conf.IPAM.Type != cniconf.WeaveIPAM {
		p.Add("ipam.type %q: weave-ipam is called by another plugin, with its own section", conf.IPAM.Type)
	}
	conf.Check(&p)
	p.Check(cniconf.CheckName("network", conf.network()))
	var err error
	conf.asked, err = conf.RequestedIPs(c.Args)
	p.Check(err)
	conf.setEndpoint(c.Args, &p)
	return conf, p.Err()
}

// decodeAdd also refuses what only ADD does: attachments from before it was refused
// are still to be checked and collected.
func decodeAdd(c *cniconf.Call) (*config, error) {
	conf, err := decode(c)
	if err != nil {
		return nil, err
	}
	var p cniconf.Problems
	if !conf.reachesGateway() {
		conf.checkGateway(&p)
		conf.checkRoutes(&p)
	}
	return conf, p.Err()
}

// checkGateway refuses what has the plugin bridge make a gateway of its bridge: of
// a result without one it takes the subnet's first address, which is some other
// container's.
func (conf *config) checkGateway(p *cniconf.Problems) {
	for _, k := range []struct {
		name  string
		value json.RawMessage
	}{{"isGateway", conf.IsGateway}, {"isDefaultGateway", conf.IsDefaultGateway}} {
		if string(k.value) == "true" {
			p.Add("%s: weave-ipam gives %.64q no gateway: the network's is on the bridge of weave-net; leave %s out, or use weave-net", k.name, conf.Type, k.name)
		}
	}
}

// checkRoutes refuses a way out that leads nowhere: a default route without a gw
// goes by the network's gateway, and the main plugin's containers have none.
func (conf *config) checkRoutes(p *cniconf.Problems) {
	for i, r := range conf.IPAM.Routes {
		if r == nil || len(r.GW) > 0 {
			continue
		}
		if ones, bits := r.Dst.Mask.Size(); ones == 0 && bits > 0 {
			p.Add("ipam.routes[%d]: %s has no gw, and weave-ipam gives %.64q no gateway: the network's is on the bridge of weave-net; add a gw that these containers reach, or use weave-net", i, &r.Dst, conf.Type)
		}
	}
}

// network is the ledger's name of the network: the section's, else that which
// weave-net attaches to, else the name of the CNI network.
func (conf *config) network() string {
	switch {
	case conf.IPAM.Network != "":
		return conf.IPAM.Network
	case conf.Type == "weave-net" && conf.Network != "":
		return conf.Network
	default:
		return conf.Name
	}
}

// reachesGateway reports whether the network's gateway, which is an address of its
// bridge, is one for the containers of the main plugin: weave-net puts them on that
// bridge, and ptp puts the gateway's address on its own end of each link; simplebridge
// puts them there where the bridge is one that the router made. On any other bridge
// nobody answers there.
func (conf *config) reachesGateway() bool {
	return conf.Type == "weave-net" || conf.Type == "ptp" || conf.routersBridge() != ""
}

// routersBridge is the bridge of simplebridge where it has the form of those that the
// router makes, for networks of that driver; "" for any other.
func (conf *config) routersBridge() string {
	var name string
	if conf.Type != "simplebridge" || json.Unmarshal(conf.Bridge, &name) != nil || ctl.DeviceID(name, ctl.LocalPrefix) == "" {
		return ""
	}
	return name
}

// checkBridge refuses a bridge that is not the network's: its gateway is elsewhere.
func (conf *config) checkBridge(got ctl.AllocateReply) error {
	if name := conf.routersBridge(); name != "" && name != got.Bridge {
		return cniconf.Errorf(types.ErrInvalidNetworkConfig, "bridge %q is not that of network %q, which is %q on this host", name, conf.network(), got.Bridge)
	}
	return nil
}

// decider says what proves that an address is in use. Our own main plugins leave
// a record in the kernel; of any other nothing is known but the claim.
func (conf *config) decider() ctl.Decider {
	if conf.Type == "weave-net" || conf.Type == "simplebridge" {
		return ctl.DecidedByVeth
	}
	return ctl.DecidedByClaim
}

func add(ctx context.Context, c *cniconf.Call) error {
	conf, err := decodeAdd(c)
	if err != nil {
		return err
	}
	var got ctl.AllocateReply
	request := ctl.AllocateRequest{
		Key: c.Key, Network: conf.network(), Requested: conf.asked, Subnet: conf.IPAM.Subnet,
		Exclude: conf.IPAM.Exclude, Reserve: conf.IPAM.Reserve, Decider: conf.decider(), NetNS: c.NS.ID(), Fixed: conf.fixed,
	}
	if conf.where.Somewhere() {
		request.Endpoint = conf.where.Place()
	}
	router := cniconf.NewRouter(conf.IPAMSocket())
	if err := router.Call(ctx, ctl.PathAllocate, request, &got); err != nil {
		return err
	}
	var undo cniconf.Undo
	defer undo.Run()
	undo.Push(func() {
		ctx, cancel := cniconf.UndoContext()
		defer cancel()
		if err := router.Call(ctx, ctl.PathRelease, ctl.KeyRequest{Key: c.Key}, nil); err != nil {
			fmt.Fprintf(os.Stderr, "take back the addresses of %s: %v\n", c.Key.ContainerID, err)
		}
	})
	if err := conf.checkReply(got); err != nil {
		return err
	}
	if err := conf.checkBridge(got); err != nil {
		return err
	}
	if err := c.Print(conf.result(got)); err != nil {
		return err
	}
	undo.Keep()
	return nil
}

func (conf *config) result(got ctl.AllocateReply) *current.Result {
	r := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: conf.IPAM.Routes}
	for _, a := range got.Addresses {
		r.IPs = append(r.IPs, &current.IPConfig{Address: cniconf.IPNet(a.Address), Gateway: conf.gateway(a).AsSlice()})
	}
	return r
}

// del gives the addresses back. What is not there is given back already. When
// no router runs, our own main plugins have taken the veth away, and a router
// that starts sees that; for other main plugins only the claim file counts, and
// it goes here.
func del(ctx context.Context, c *cniconf.Call) error {
	var conf config
	if err := cniconf.Decode(c.Stdin, &conf); err != nil {
		return err
	}
	socket := conf.IPAMSocket()
	err := cniconf.Tell(ctx, socket, ctl.PathRelease, c.Key)
	if err == nil {
		return nil
	}
	if conf.decider() == ctl.DecidedByVeth {
		fmt.Fprintf(os.Stderr, "the router will see by itself that %s has gone: %v\n", c.Key.ContainerID, err)
		return nil
	}
	if !cniconf.Gone(err) {
		return err
	}
	if err := endClaim(socket, c.Key); err != nil {
		return err
	}
	// A router that was just starting may have read the claim before it went.
	err = cniconf.NewRouter(socket).Call(ctx, ctl.PathRelease, ctl.KeyRequest{Key: c.Key}, nil)
	if cniconf.Gone(err) {
		return nil
	}
	return err
}

func check(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	prev, err := conf.Prev()
	if err != nil {
		return err
	}
	request := ctl.ReservedRequest{Key: c.Key}
	for _, p := range cniconf.Addresses(prev, c.Key.IfName) {
		request.Addresses = append(request.Addresses, p.Addr())
	}
	return cniconf.NewRouter(conf.IPAMSocket()).Call(ctx, ctl.PathReserved, request, nil)
}

func gc(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	return conf.Collect(ctx, cniconf.NewRouter(conf.IPAMSocket()))
}

func status(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	return cniconf.NewImpatientRouter(conf.IPAMSocket()).Ready(ctx)
}
