package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// patience bounds whatever is waited for: what takes longer has failed.
const patience = 3 * time.Minute

const weave = "/opt/cni/bin/weave"

// cluster is a lab with a router on each host.
type cluster struct {
	plan
	lab *netlab.Lab
}

func (p plan) withCluster(f func(*cluster) error) error {
	const secretFile = "/run/secret"
	lab, err := netlab.Open(netlab.Options{
		Hosts: p.hosts, Bin: p.bin, PluginDirs: []string{p.plugins}, Timeout: patience, RouterArgs: []string{"--secret-file", secretFile},
	})
	if err != nil {
		return err
	}
	c := &cluster{p, lab}
	secret, err := exec.Command(filepath.Join(p.bin, "weave"), "secret", "new").Output()
	if err == nil {
		err = c.furnish(map[string]string{secretFile: string(secret)})
	}
	if err == nil {
		err = c.start()
	}
	if err == nil {
		err = f(c)
	}
	return errors.Join(err, lab.Close())
}

// furnish writes these files, and the default network's list, on each host.
func (c *cluster) furnish(files map[string]string) error {
	list, err := os.ReadFile(c.conflist)
	if err != nil {
		return err
	}
	files["/etc/cni/net.d/10-weave.conflist"] = string(list)
	for _, h := range c.lab.Hosts() {
		for path, text := range files {
			if err := h.WriteFile(path, text, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// start starts the routers: the first founds the cluster, the others join it.
func (c *cluster) start() error {
	for i, h := range c.lab.Hosts() {
		args := []string{"--init", "new"}
		if i > 0 {
			args = []string{c.lab.Host(0).Addr().String()}
		}
		if _, err := h.StartRouter(args...); err != nil {
			return err
		}
		if err := c.ready(i); err != nil {
			return err
		}
	}
	return c.everywhere("every host has all others in its kernel", c.allPeers)
}

func (c *cluster) allPeers(i int) error {
	s, err := ask[ctl.Status](c, i, ctl.PathStatus, nil)
	others := map[string]bool{} // s.Overlay has each once for every network
	for _, r := range s.Overlay {
		others[r.Host] = true
	}
	if err == nil && len(others) != c.hosts-1 {
		err = fmt.Errorf("%d others", len(others))
	}
	return err
}

func (c *cluster) ready(i int) error {
	r := c.lab.Host(i).Router()
	err := r.WaitFor(patience, "ADD can be served", func() error {
		s, err := ask[ctl.Status](c, i, ctl.PathStatus, nil)
		if err == nil && s.Error != nil {
			err = s.Error
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(r.Log()))
	}
	return nil
}

// everywhere waits until a condition holds on every host.
func (c *cluster) everywhere(what string, cond func(i int) error) error {
	for i := range c.hosts {
		if err := netlab.Wait(patience, fmt.Sprintf("host %d: %s", i, what), func() error { return cond(i) }); err != nil {
			return err
		}
	}
	return nil
}

// onAll runs f for every host, at the same time.
func (c *cluster) onAll(f func(i int) error) error {
	errs := make([]error, c.hosts)
	var all sync.WaitGroup
	for i := range c.hosts {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// ask calls host i's router.
func ask[T any](c *cluster, i int, path string, in any) (out T, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = c.lab.Host(i).Do(func() error { return ctl.New("", 0).Call(ctx, path, in, &out) })
	return out, err
}

// waitNetworks waits until the networks of host i, but for the default one, are as they should be.
func (c *cluster) waitNetworks(i int, what string, ok func([]ctl.Net) error) error {
	return netlab.Wait(patience, fmt.Sprintf("host %d: %s", i, what), func() error {
		all, err := ask[ctl.NetList](c, i, ctl.PathNets, nil)
		if err != nil {
			return err
		}
		return ok(slices.DeleteFunc(all.Networks, func(n ctl.Net) bool { return n.Name == "weave" }))
	})
}

// stand waits until so many networks are ready on every host.
func (c *cluster) stand(want int) error {
	return c.onAll(func(i int) error {
		return c.waitNetworks(i, "the networks stand", func(all []ctl.Net) error {
			ready := slices.DeleteFunc(all, func(n ctl.Net) bool { return n.State != "ready" || n.Conflist == "" })
			if len(ready) != want {
				return fmt.Errorf("%d of %d", len(ready), want)
			}
			return nil
		})
	})
}

// vanished waits until no host has a network but the default one.
func (c *cluster) vanished() error {
	return c.onAll(func(i int) error {
		return c.waitNetworks(i, "the networks are gone", func(all []ctl.Net) error {
			if len(all) > 0 {
				return fmt.Errorf("%d networks; %s %s waits for %s", len(all), all[0].Name, all[0].State, all[0].Waiting)
			}
			return nil
		})
	})
}

// makeNetworks has all hosts create networks, so many together, and waits until they stand.
func (c *cluster) makeNetworks(n int) (out []ctl.Net, took times, err error) {
	var mu sync.Mutex
	err = c.onAll(func(host int) error {
		for k := host; k < n; k += c.hosts {
			start := time.Now()
			got, err := ask[ctl.Net](c, host, ctl.PathNetCreate, ctl.NetCreateRequest{})
			if err != nil {
				return err
			}
			mu.Lock()
			out, took = append(out, got), append(took, time.Since(start))
			mu.Unlock()
		}
		return nil
	})
	if err == nil {
		err = c.stand(n)
	}
	return out, took, err
}

// removeNetworks has all hosts remove them, and waits until they are gone.
func (c *cluster) removeNetworks(nets []ctl.Net, force bool) (took times, err error) {
	var mu sync.Mutex
	err = c.onAll(func(host int) error {
		for k := host; k < len(nets); k += c.hosts {
			start := time.Now()
			if _, err := ask[ctl.NetRemoved](c, host, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: nets[k].ID, Force: force}); err != nil {
				return err
			}
			mu.Lock()
			took = append(took, time.Since(start))
			mu.Unlock()
		}
		return nil
	})
	if err == nil {
		err = c.vanished()
	}
	return took, err
}
