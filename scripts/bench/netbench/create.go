package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/weave-cni/weave-cni/pkg/conflist"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// promisedCreate is from create on one host to a working ADD on another, p99.
const promisedCreate = time.Second

// stages are how long after `weave net create` was started each was there.
type stages struct {
	created time.Duration // the command has ended
	listed  time.Duration // a runtime of the other host could see the network's list
	added   time.Duration // a container there was added
	reached time.Duration // it had an answer from the first host
}

// measureCreate creates networks on one host for a container on another, one after the
// other, the hosts drawn anew each time.
func (c *cluster) measureCreate() error {
	if c.rounds == 0 {
		return nil
	}
	title("From create on one host to a container on another, %d rounds on %d hosts", c.rounds, c.hosts)
	var created, listed, added, reached, call times
	for i := range c.rounds {
		from := rand.IntN(c.hosts)
		to := (from + 1 + rand.IntN(c.hosts-1)) % c.hosts
		s, err := c.round(fmt.Sprintf("round-%d", i), from, to)
		if err != nil {
			return err
		}
		created, listed = append(created, s.created), append(listed, s.listed)
		added, reached = append(added, s.added), append(reached, s.reached)
		call = append(call, s.added-max(s.created, s.listed))
	}
	table("ms\tmin\tp50\tp99\tmax", "weave net create\t"+created.row(), "list on the other host\t"+listed.row(),
		"ADD there has succeeded\t"+added.row(), "it reaches the first host\t"+reached.row(), "the ADD alone\t"+call.row())
	bar("create to ADD, p99", added.quantile(.99), promisedCreate)
	return nil
}

// round creates a network on one host and adds a container on another, as a person with
// a runtime would, then takes both away again.
func (c *cluster) round(name string, from, to int) (s stages, err error) {
	ct, err := c.lab.Host(to).NewContainer(name)
	if err != nil {
		return s, err
	}
	start := time.Now()
	id, err := c.lab.Host(from).Run(weave, "net", "create", name)
	if err != nil {
		return s, err
	}
	s.created = time.Since(start)
	list := filepath.Join("/etc/cni/net.d", conflist.FileName(name))
	err = ct.Host().Do(func() error {
		if err := appears(list); err != nil {
			return err
		}
		s.listed = time.Since(start)
		err := cni(list, ct, add)
		s.added = time.Since(start)
		return err
	})
	if err != nil {
		return s, err
	}
	gateway, err := bridgeAddr(c.lab.Host(from), ctl.DeviceName(ctl.BridgePrefix, strings.TrimSpace(id)))
	if err == nil {
		err = reach(ct, gateway)
	}
	s.reached = time.Since(start)
	if err == nil {
		err = ct.Host().Do(func() error { return cni(list, ct, del) })
	}
	if err = errors.Join(err, ct.Delete()); err != nil {
		return s, err
	}
	err = c.waitNetworks(from, "the container is gone", func(all []ctl.Net) error { // else the network is in use
		for _, n := range all {
			if len(n.Endpoints) > 0 {
				return fmt.Errorf("%s has %v", n.Name, n.Endpoints)
			}
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	if _, err = c.lab.Host(from).Run(weave, "net", "rm", name); err != nil {
		return s, err
	}
	return s, c.vanished()
}

// appears waits for a file, on a thread that is on its host.
func appears(path string) error {
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil || time.Now().After(end) {
			return err
		}
	}
}

func bridgeAddr(h *netlab.Host, bridge string) (out netip.Addr, err error) {
	err = h.Do(func() error {
		i, err := net.InterfaceByName(bridge)
		if err != nil {
			return err
		}
		all, err := i.Addrs()
		for _, a := range all {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				out = p.Addr()
			}
		}
		if err == nil && !out.IsValid() {
			err = fmt.Errorf("bridge %s has no address", bridge)
		}
		return err
	})
	return out, err
}

// reach pings until there is an answer.
func reach(ct *netlab.Container, to netip.Addr) error {
	for end := time.Now().Add(patience); ; {
		_, err := ct.Run("ping", "-c1", "-W0.1", to.String())
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// verb is ADD or DEL of a list.
type verb func(ctx context.Context, lib *libcni.CNIConfig, l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error

func add(ctx context.Context, lib *libcni.CNIConfig, l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	_, err := lib.AddNetworkList(ctx, l, rt)
	return err
}

func del(ctx context.Context, lib *libcni.CNIConfig, l *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	return lib.DelNetworkList(ctx, l, rt)
}

// cni calls a network's list through libcni, on a thread that is on the container's host.
func cni(path string, ct *netlab.Container, do verb) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := libcni.NetworkConfFromFile(path)
	if err != nil {
		return err
	}
	lib, rt := caller(ct)
	return do(ctx, lib, l, rt)
}

// caller is libcni as a runtime has it, for one container.
func caller(ct *netlab.Container) (*libcni.CNIConfig, *libcni.RuntimeConf) {
	return libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, "/var/lib/cni", nil), &libcni.RuntimeConf{
		ContainerID: ct.Name(), NetNS: ct.Path(), IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", ct.Name()}},
	}
}
