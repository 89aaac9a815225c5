package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// ask calls host i's router.
func ask[T any](c *cluster, i int, path string, in any) (out T, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = c.lab.Host(i).Do(func() error { return ctl.New("", 0).Call(ctx, path, in, &out) })
	return out, err
}

// inspect is a network as host i has it.
func (c *cluster) inspect(i int, ref string) (ctl.Net, error) {
	return ask[ctl.Net](c, i, ctl.PathNetInspect, ctl.NetRef{Ref: ref})
}

// create makes a network on a host and waits until it stands on these.
func (c *cluster) create(on int, in ctl.NetCreateRequest, hosts ...int) ctl.Net {
	c.t.Helper()
	n, err := ask[ctl.Net](c, on, ctl.PathNetCreate, in)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, i := range hosts {
		c.wait(fmt.Sprintf("%s stands on host %d", n.Name, i), func() error {
			got, err := c.inspect(i, n.ID)
			if err == nil && got.State != "ready" {
				err = fmt.Errorf("%+v", got)
			}
			return err
		})
	}
	return n
}

// vanished waits until no host knows a network.
func (c *cluster) vanished(n ctl.Net) {
	c.t.Helper()
	for i := range c.n {
		c.wait(fmt.Sprintf("%s is gone from host %d", n.Name, i), func() error {
			all, err := ask[ctl.NetList](c, i, ctl.PathNets, nil)
			if err == nil && slices.ContainsFunc(all.Networks, func(o ctl.Net) bool { return o.ID == n.ID }) {
				err = fmt.Errorf("%+v", all.Networks)
			}
			return err
		})
	}
}

// conflist installs one for a network, whose first plugin is as given, and answers with its name.
func (c *cluster) conflist(n ctl.Net, plugin map[string]any, hosts ...int) string {
	c.t.Helper()
	name := "e2e-" + n.Name
	b, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": name, "plugins": []any{plugin, map[string]any{"type": "weavedns", "network": n.Name}}})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, i := range hosts {
		if err := c.lab.Host(i).WriteFile("/etc/cni/net.d/30-"+name+".conflist", string(b), 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	return name
}

func (c *cluster) addOn(host int, name, network string) *container {
	c.t.Helper()
	got, err := c.tryAdd(c.ns(host, name), network, named(name))
	if err != nil {
		c.t.Fatalf("ADD %s on host %d: %v", name, host, err)
	}
	return got
}

func refusedWith(t *testing.T, err error, code uint, words ...string) {
	t.Helper()
	var e *ctl.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want code %d", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Msg+e.Details, w) {
			t.Errorf("%q, %q: without %q", e.Msg, e.Details, w)
		}
	}
}

func weaveNet(n ctl.Net) map[string]any {
	return map[string]any{"type": "weave-net", "network": n.Name, "isDefaultGateway": !n.Internal, "ipam": map[string]any{"type": "weave-ipam"}}
}

func TestANetworkMadeOnOneHostIsUsedOnTheOthersAndRemovedByForce(t *testing.T) {
	c := newCluster(t, 3, netlab.Options{})
	c.waitVoters(3)
	unchanged := c.watch()
	began := time.Now()
	n := c.create(0, ctl.NetCreateRequest{Name: "net1"}, 0, 1, 2)
	c.promised("from create on one host to the bridge on all", time.Second, time.Since(began))
	conf := c.conflist(n, weaveNet(n), 1, 2)
	a, b := c.addOn(1, "a", conf), c.addOn(2, "b", conf)
	if !n.Subnets[0].Contains(a.result.addr()) || !n.Subnets[0].Contains(b.result.addr()) {
		t.Errorf("%v and %v are not of %v", a.result.IPs, b.result.IPs, n.Subnets)
	}
	c.wait("they reach each other, by name too", func() error {
		names, err := c.resolve(a, "b.net1.weave.local")
		if err == nil && !slices.Contains(names, b.result.addr().String()) {
			err = fmt.Errorf("b is %v", names)
		}
		return errors.Join(err, c.ping(a, b.result.addr()))
	})
	c.wait("host 0 shows both endpoints", func() error {
		got, err := c.inspect(0, n.ID[:6])
		if err == nil && (len(got.Endpoints) != 2 || got.Endpoints[0].Host != "h1" || !slices.Equal(got.Endpoints[1].Names, []string{"b"})) {
			err = fmt.Errorf("%+v", got)
		}
		return err
	})
	_, err := ask[ctl.NetRemoved](c, 0, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "net1"})
	refusedWith(t, err, ctl.CodeInUse, "container a on host h1", "container b on host h2")
	if err := c.ping(a, b.result.addr()); err != nil {
		t.Errorf("after the refusal: %v", err)
	}
	if _, err := ask[ctl.NetRemoved](c, 0, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "net1", Force: true}); err != nil {
		t.Error(err)
	}
	c.vanished(n)
	for _, x := range []*container{a, b} {
		if out, err := x.Run("ip", "-o", "link", "show", "eth0"); err == nil {
			t.Errorf("it still is attached: %s", out)
		}
		if out, err := c.cni(x.Host(), "del", conf, x.Path()); err != nil {
			t.Errorf("DEL afterwards: %v %s", err, out)
		}
		if _, err := c.tryAdd(x.Container, conf); err == nil || !strings.Contains(err.Error(), "no network is called") {
			t.Errorf("ADD afterwards: %v", err)
		}
		if err := x.Delete(); err != nil {
			t.Error(err)
		}
		x.Host().MustRun(t, "rm", "/etc/cni/net.d/30-"+conf+".conflist")
	}
	unchanged()
}

func TestNothingLeavesAnInternalNetwork(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	n := c.create(0, ctl.NetCreateRequest{Name: "inner", Internal: true}, 0, 1)
	conf := c.conflist(n, weaveNet(n), 0, 1)
	a, b, other := c.addOn(0, "a", conf), c.addOn(1, "b", conf), c.add(0, "c")
	if a.result.IPs[0].Gateway.IsValid() || slices.ContainsFunc(a.result.Routes, func(r struct{ Dst, GW string }) bool { return r.Dst == "0.0.0.0/0" }) {
		t.Errorf("it is given a way out: %+v", a.result)
	}
	c.wait("containers of two hosts reach each other", func() error { return c.ping(a, b.result.addr()) })
	for _, out := range [][]string{{"ip", "route", "add", "default", "via", c.hostAddr(0, n)}, {"ping", "-c1", "-W2", a.result.addr().String()}} {
		if _, err := a.Run(out[0], out[1:]...); err != nil {
			t.Fatal(err) // it helps itself to a route, and reaches itself
		}
	}
	if err := c.ping(a, other.result.addr()); err == nil {
		t.Error("it reaches another network")
	}
	if err := c.ping(a, c.lab.Gateway()); err == nil {
		t.Error("it reaches the world")
	}
	if err := c.ping(other, a.result.addr()); err == nil {
		t.Error("another network reaches it")
	}
}

// hostAddr is the address of a network's bridge on a host.
func (c *cluster) hostAddr(i int, n ctl.Net) string {
	c.t.Helper()
	out := strings.Fields(c.lab.Host(i).MustRun(c.t, "ip", "-4", "-o", "addr", "show", "dev", n.Bridge))
	addr, _, _ := strings.Cut(out[slices.Index(out, "inet")+1], "/")
	return addr
}

// refusesADD looks that no container of a host comes onto a network, and is told so.
func (c *cluster) refusesADD(host int, network, words string) {
	c.t.Helper()
	ns := c.ns(host, "refused")
	if _, err := c.tryAdd(ns, network); err == nil || !strings.Contains(err.Error(), words) {
		c.t.Errorf("ADD to %s on host %d: %v, want %q", network, host, err, words)
	}
	if err := ns.Delete(); err != nil {
		c.t.Error(err)
	}
}

func TestANetworkOfDriverSimplebridgeWorksOnItsHostAlone(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	unchanged := c.watch()
	n := c.create(0, ctl.NetCreateRequest{Name: "local", Driver: ctl.DriverSimpleBridge}, 0)
	plugin := map[string]any{"type": "simplebridge", "bridge": n.Bridge, "isGateway": true,
		"ipam": map[string]any{"type": "weave-ipam", "network": "local", "routes": []any{map[string]any{"dst": "0.0.0.0/0"}}}}
	conf := c.conflist(n, plugin, 0, 1)
	a, b := c.addOn(0, "a", conf), c.addOn(0, "b", conf)
	if gw := a.result.IPs[0].Gateway.String(); gw != c.hostAddr(0, n) {
		t.Errorf("gateway %s, the bridge has %s", gw, c.hostAddr(0, n))
	}
	c.wait("they reach each other, by name, and the world", func() error {
		names, err := c.resolve(a, "b.local.weave.local")
		if err == nil && !slices.Contains(names, b.result.addr().String()) {
			err = fmt.Errorf("b is %v", names)
		}
		return errors.Join(err, c.ping(a, b.result.addr()), c.ping(a, c.lab.Gateway()))
	})
	got, err := c.inspect(0, "local")
	if err != nil || len(got.Endpoints) != 2 || got.Endpoints[0].MAC == "" || got.Endpoints[0].ContainerID == "" {
		t.Errorf("%+v, %v", got, err)
	}
	plugin["bridge"] = "sb-000000000000"
	c.refusesADD(0, c.conflist(n, plugin, 0), "is not that of network")
	plugin["bridge"] = n.Bridge
	c.conflist(n, plugin, 0)
	c.restart(0)
	c.wait("a restart changes nothing", func() error {
		again, err := c.inspect(0, "local")
		if err == nil && fmt.Sprint(again.Endpoints) != fmt.Sprint(got.Endpoints) {
			err = fmt.Errorf("%+v", again)
		}
		return errors.Join(err, c.ping(a, b.result.addr()))
	})
	c.refusesADD(1, conf, "of host h0 alone")
	for _, x := range []*container{a, b} {
		if out, err := c.cni(x.Host(), "del", conf, x.Path(), named("a")); err != nil {
			t.Errorf("DEL: %v %s", err, out)
		}
		if err := x.Delete(); err != nil {
			t.Error(err)
		}
	}
	c.wait("another host has heard that it is not in use any more", func() error {
		_, err := ask[ctl.NetRemoved](c, 1, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "local"})
		return err
	})
	c.vanished(n)
	for i := range 2 {
		c.lab.Host(i).MustRun(t, "rm", "/etc/cni/net.d/30-"+conf+".conflist")
	}
	unchanged()
}

func TestAMinorityRefusesToChangeTheNetworksAtOnceAndGoesOn(t *testing.T) {
	c := newCluster(t, 3, netlab.Options{})
	c.waitVoters(3)
	n := c.create(0, ctl.NetCreateRequest{Name: "net1"}, 0, 1, 2)
	conf := c.conflist(n, weaveNet(n), 0, 1, 2)
	c.addOn(1, "far", conf)
	if err := c.lab.Partition(0); err != nil {
		t.Fatal(err)
	}
	for _, in := range []func() error{
		func() error {
			_, err := ask[ctl.Net](c, 0, ctl.PathNetCreate, ctl.NetCreateRequest{Name: "net2"})
			return err
		},
		func() error {
			_, err := ask[ctl.NetRemoved](c, 0, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "net1", Force: true})
			return err
		},
	} {
		c.wait("it has noticed", func() error {
			began := time.Now()
			err := in()
			c.promised("an answer, whatever it is", 2*time.Second, time.Since(began))
			if err == nil {
				return errors.New("it was done")
			}
			refusedWith(t, err, ctl.CodeNoMajority)
			return nil
		})
	}
	near, near2 := c.addOn(0, "near", conf), c.addOn(0, "near2", conf)
	if err := c.ping(near, near2.result.addr()); err != nil {
		t.Error(err)
	}
	m := c.create(1, ctl.NetCreateRequest{Name: "net2"}, 1, 2) // the majority goes on
	if err := c.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	c.wait("the same networks are everywhere", func() error {
		got, err := c.inspect(0, m.ID)
		if err == nil && got.State != "ready" {
			err = fmt.Errorf("%+v", got)
		}
		if all, _ := ask[ctl.NetList](c, 0, ctl.PathNets, nil); err == nil && len(all.Networks) != 3 {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
}

// manyNetworks is how many come and go at once: 200, or what WEAVE_E2E_NETWORKS says.
func manyNetworks() int {
	if n, err := strconv.Atoi(os.Getenv("WEAVE_E2E_NETWORKS")); err == nil {
		return n
	}
	return 200
}

// fewFiles are what a router has open for a moment, when somebody asks it or it asks the kernel.
const fewFiles = 10

func TestManyNetworksComeAndGoAndLeaveNothing(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	unchanged := c.watch()
	files := c.fds(0)
	rounds, at := manyNetworks(), 50
	for done := 0; done < rounds; done += at {
		var all []ctl.Net
		began := time.Now()
		for i := range min(at, rounds-done) {
			all = append(all, c.create(i%2, ctl.NetCreateRequest{}))
		}
		for _, n := range all {
			for i := range 2 {
				c.wait(n.Name+" stands", func() error {
					got, err := c.inspect(i, n.ID)
					if err == nil && got.State != "ready" {
						err = fmt.Errorf("%+v", got)
					}
					return err
				})
			}
		}
		stood := time.Now()
		for i, n := range all {
			if _, err := ask[ctl.NetRemoved](c, i%2, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: n.ID}); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range all {
			c.vanished(n)
		}
		t.Logf("%d networks: %v to make, %v to remove; the router has %d KiB", len(all), stood.Sub(began), time.Since(stood), c.rss(0))
	}
	unchanged()
	c.wait("the router has no more files and sockets open than before", func() error {
		if now := c.fds(0); now > files+fewFiles {
			return fmt.Errorf("%d, and had %d", now, files)
		}
		return nil
	})
}
