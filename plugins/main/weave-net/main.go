// Command weave-net is the CNI plugin that attaches a container to a weave
// network, which spans hosts. It makes the veth itself; the network's bridge is
// the router's, addresses come from the IPAM plugin of the configuration.
package main

import (
	"context"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func main() {
	cniconf.Main(cniconf.Plugin{Name: "weave-net", Add: add, Check: check, Del: del, GC: gc, Status: status})
}

func add(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	release, err := c.Alone()
	if err != nil {
		return err
	}
	defer release()
	router := cniconf.NewRouter(conf.Socket)
	network, err := conf.askNetwork(ctx, router, attachment.Key{})
	if err != nil {
		return err
	}
	link, err := conf.link(network)
	if err != nil {
		return err
	}

	var undo cniconf.Undo
	defer undo.Run()
	r, err := c.AddAddresses(ctx, conf.IPAM.Type, &undo)
	if err != nil {
		return err
	}
	if *conf.IsDefaultGateway {
		cniconf.AddDefaultRoutes(r)
	}
	mac, addrs, err := c.Attach(link, r, &undo)
	if err != nil {
		return err
	}
	commit := ctl.CommitRequest{Key: c.Key, Network: network.Name, MAC: mac.String(), Addresses: addrs, NetNS: c.NS.ID()}
	if err := router.Call(ctx, ctl.PathCommit, commit, nil); err != nil {
		return err
	}
	if err := c.Print(r); err != nil {
		return err
	}
	undo.Keep()
	return nil
}

// del takes the link away first and then the address, so that no address in use
// is ever free. The router deletes links many at a time; without it, or when it
// cannot, the plugin does it alone.
func del(ctx context.Context, c *cniconf.Call) error {
	var conf config
	if err := cniconf.Decode(c.Stdin, &conf); err != nil {
		return err
	}
	if cniconf.Tell(ctx, conf.Socket, ctl.PathDetach, c.Key) != nil {
		if err := c.Detach(); err != nil {
			return err
		}
	}
	return c.DelegateDel(ctx, conf.IPAM.Type)
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
	network, err := conf.askNetwork(ctx, cniconf.NewRouter(conf.Socket), c.Key)
	if err != nil {
		return err
	}
	link, err := conf.link(network)
	if err != nil {
		return err
	}
	if err := c.CheckLink(prev, link.Bridge, link.MTU); err != nil || conf.IPAM.Type == "" {
		return err
	}
	_, err = c.Delegate(ctx, conf.IPAM.Type, "CHECK")
	return err
}

func gc(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	collected := conf.Collect(ctx, cniconf.NewRouter(conf.Socket))
	if conf.IPAM.Type == "" {
		return collected
	}
	_, err = c.Delegate(ctx, conf.IPAM.Type, "GC")
	return cniconf.Join(collected, err)
}

func status(ctx context.Context, c *cniconf.Call) error {
	conf, err := decode(c)
	if err != nil {
		return err
	}
	if err := cniconf.NewImpatientRouter(conf.Socket).Ready(ctx); err != nil || conf.IPAM.Type == "" {
		return err
	}
	_, err = c.Delegate(ctx, conf.IPAM.Type, "STATUS")
	return err
}
