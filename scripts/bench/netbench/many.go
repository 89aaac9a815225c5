package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/weave-cni/weave-cni/pkg/conflist"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// dweller is a container with the network that it is on.
type dweller struct {
	*netlab.Container
	network ctl.Net
}

func (d dweller) add() error {
	return cni(filepath.Join("/etc/cni/net.d", conflist.FileName(d.network.Name)), d.Container, add)
}

// end is the container's end after its network: DEL, by the list that libcni has kept.
func (d dweller) end() error {
	lib, rt := caller(d.Container)
	kept, rt, err := lib.GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: d.network.Name}, rt)
	if err != nil {
		return err
	}
	l, err := libcni.ConfListFromBytes(kept)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return errors.Join(lib.DelNetworkList(ctx, l, rt), d.Delete())
}

// measureMany fills the cluster, measures what it then costs, and empties it again.
func (c *cluster) measureMany() error {
	if c.networks == 0 {
		return c.measureCommands(nil)
	}
	title("%d networks on %d hosts, %d containers each", c.networks, c.hosts, c.each)
	start := time.Now()
	nets, took, err := c.makeNetworks(c.networks)
	if err != nil {
		return err
	}
	table("create ms\tmin\tp50\tp99\tmax", fmt.Sprintf("%d at once\t%s", c.hosts, took.row()))
	fmt.Printf("\n%d networks stand on every host after %v\n\n", c.networks, time.Since(start).Round(time.Second/10))
	list, err := c.fill(nets)
	if err == nil {
		err = c.full(nets, &list)
	}
	if err == nil {
		err = c.measureCommands(list)
	}
	if err == nil {
		err = c.empty(nets, list)
	}
	return err
}

// fill adds the containers of each network, spread over the hosts, one at a time on each.
func (c *cluster) fill(nets []ctl.Net) (list []dweller, err error) {
	start := time.Now()
	hosts := make([][]dweller, c.hosts)
	for i := range c.networks * c.each {
		host := i % c.hosts
		ct, err := c.lab.Host(host).NewContainer(fmt.Sprintf("c-%d", i))
		if err != nil {
			return nil, fmt.Errorf("this machine holds no more than %d containers: %w", i, err)
		}
		d := dweller{ct, nets[i/c.each]}
		hosts[host], list = append(hosts[host], d), append(list, d)
	}
	made := time.Now()
	var mu sync.Mutex
	var took times
	err = c.onAll(func(i int) error {
		return c.lab.Host(i).Do(func() error {
			for _, d := range hosts[i] {
				start := time.Now()
				if err := d.add(); err != nil {
					return err
				}
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
			return nil
		})
	})
	all := time.Since(made)
	if err != nil {
		return nil, err
	}
	tenth := max(1, len(took)/10)
	table("ADD ms\tmin\tp50\tp99\tmax", fmt.Sprintf("all %d, %d at once\t%s", len(took), c.hosts, took.row()),
		fmt.Sprintf("the first %d\t%s", tenth, took[:tenth].row()), fmt.Sprintf("the last %d\t%s", tenth, took[len(took)-tenth:].row()))
	fmt.Printf("\n%d containers in %v: %.0f a second (their namespaces took %v more)\n\n",
		len(took), all.Round(time.Second/10), float64(len(took))/all.Seconds(), made.Sub(start).Round(time.Second/10))
	return list, nil
}

// full measures the cluster with everything there.
func (c *cluster) full(nets []ctl.Net, list *[]dweller) error {
	start := time.Now()
	if err := c.everywhere("knows every endpoint", func(i int) error {
		all, err := ask[ctl.NetList](c, i, ctl.PathNets, nil)
		n := 0
		for _, x := range all.Networks {
			n += len(x.Endpoints)
		}
		if err == nil && n != len(*list) {
			err = fmt.Errorf("%d of %d", n, len(*list))
		}
		return err
	}); err != nil {
		return err
	}
	fmt.Printf("every host knew every endpoint %v after the last ADD\n", time.Since(start).Round(time.Millisecond))
	if err := c.addMore(nets, list); err != nil {
		return err
	}
	if err := c.pings(*list); err != nil {
		return err
	}
	return c.cost(fmt.Sprintf("The routers with %d networks and %d containers", len(nets), len(*list)))
}

// addMore adds containers to the full cluster, one at a time.
func (c *cluster) addMore(nets []ctl.Net, list *[]dweller) error {
	var took times
	for i := range c.sample {
		ct, err := c.lab.Host(i % c.hosts).NewContainer(fmt.Sprintf("more-%d", i))
		if err != nil {
			return err
		}
		d := dweller{ct, nets[rand.IntN(len(nets))]}
		if err := ct.Host().Do(func() error {
			start := time.Now()
			err := d.add()
			took = append(took, time.Since(start))
			return err
		}); err != nil {
			return err
		}
		*list = append(*list, d)
	}
	title("ADD on the full cluster, one at a time")
	table("ms\tmin\tp50\tp99\tmax", fmt.Sprintf("%d more\t%s", c.sample, took.row()))
	return nil
}

// pings has containers of one network and two hosts reach each other, a sample of them.
func (c *cluster) pings(list []dweller) error {
	all, err := ask[ctl.NetList](c, 0, ctl.PathNets, nil)
	if err != nil {
		return err
	}
	addrs := map[string]map[string]netip.Addr{} // by network and container name
	for _, n := range all.Networks {
		addrs[n.ID] = map[string]netip.Addr{}
		for _, e := range n.Endpoints {
			if len(e.Names) > 0 {
				addrs[n.ID][e.Names[0]] = e.Addresses[0].Addr()
			}
		}
	}
	reached, asked := 0, 0
	for asked < c.sample {
		a, b := list[rand.IntN(len(list))], list[rand.IntN(len(list))]
		if a.network.ID != b.network.ID || a.Host() == b.Host() {
			continue
		}
		asked++
		if _, err := a.Run("ping", "-c1", "-W2", addrs[b.network.ID][b.Name()].String()); err == nil {
			reached++
		}
	}
	fmt.Printf("\n%d of %d pairs of one network on two hosts reach each other, by one ping\n", reached, asked)
	if reached < asked {
		return errors.New("some containers do not reach others of their network")
	}
	return nil
}

// empty removes all networks with the containers on them.
func (c *cluster) empty(nets []ctl.Net, list []dweller) error {
	title("Removing %d networks by force, with %d containers", len(nets), len(list))
	start := time.Now()
	took, err := c.removeNetworks(nets, true)
	if err != nil {
		return err
	}
	table("remove ms\tmin\tp50\tp99\tmax", fmt.Sprintf("%d at once\t%s", c.hosts, took.row()))
	fmt.Printf("\nall are gone from every host after %v\n", time.Since(start).Round(time.Second/10))
	var errs []error
	for _, d := range list {
		errs = append(errs, d.Host().Do(d.end))
	}
	return errors.Join(errs...)
}
