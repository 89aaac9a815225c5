package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestNoPacketIsLostWhileRoutersAreDeadOrStart(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	a, b := c.add(0, "a"), c.add(1, "b")
	c.wait("a reaches b", func() error { return c.ping(a, b.result.addr()) })
	for _, end := range []struct {
		name string
		how  func(*netlab.Daemon) error
	}{{"SIGKILL", (*netlab.Daemon).Kill}, {"SIGTERM", (*netlab.Daemon).Stop}} {
		flow := c.startTraffic(a, b)
		for _, h := range c.lab.Hosts() {
			if err := end.how(h.Router()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(downFor()) // the fault is the time itself
		for i, h := range c.lab.Hosts() {
			if err := h.Router().Restart(); err != nil {
				t.Fatal(err)
			}
			c.waitReady(i)
		}
		c.waitPeers()
		sent, lost := flow.stop()
		t.Logf("%s: %d sent, %d lost", end.name, sent, lost)
		if lost != 0 {
			t.Errorf("%s: %d of %d packets lost", end.name, lost, sent)
		}
	}
}

func TestCallsWhileTheRouterIsDown(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	unchanged := c.watch()
	h := c.lab.Host(0)
	a := c.add(0, "a", named("a"))
	if err := h.Router().Kill(); err != nil {
		t.Fatal(err)
	}
	b, err := h.NewContainer("b")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = c.tryAdd(b, "weave")
	took := time.Since(start)
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("ADD without a router: %v", err)
	}
	if took < 1900*time.Millisecond {
		t.Errorf("ADD without a router took %v, want 2 s", took)
	}
	c.promised("ADD without a router", 2*time.Second, took)
	c.del(a)
	if err := h.Router().Restart(); err != nil {
		t.Fatal(err)
	}
	c.waitReady(0)
	c.wait("the address is free again", func() error {
		s, err := c.status(0)
		if err != nil {
			return err
		}
		for _, at := range s.Attachments {
			if at.Key.IfName == "eth0" {
				return fmt.Errorf("%+v", at)
			}
		}
		return nil
	})
	if err := b.Delete(); err != nil {
		t.Error(err)
	}
	unchanged()
}

func TestAWaitingAddSurvivesARestart(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	other := map[string]any{"name": "other", "type": "bridge", "bridge": "br0", "ipam": ipam(nil)}
	for name, add := range map[string]func(*netlab.Container) error{
		"weave": func(ns *netlab.Container) error { _, err := c.tryAdd(ns, "weave"); return err },
		"bridge": func(ns *netlab.Container) error {
			_, err := c.exec(h, call{"ADD", "a", ns.Path(), "eth0", other})
			return err
		},
	} {
		var err error
		for i := range 5 { // a busy machine may need longer for the router's start than the plugin waits
			if err := h.Router().Kill(); err != nil {
				t.Fatal(err)
			}
			if err = c.addAcrossStart(fmt.Sprint(name, i), add); err == nil || !strings.Contains(err.Error(), "does not answer") {
				break
			}
		}
		if err != nil {
			t.Errorf("of plugin %s: %v", name, err)
		}
	}
}

// addAcrossStart makes an ADD while host 0 has no router, and starts that meanwhile.
func (c *cluster) addAcrossStart(name string, add func(*netlab.Container) error) error {
	c.t.Helper()
	ns := c.ns(0, name)
	var wg sync.WaitGroup
	wg.Go(func() {
		time.Sleep(500 * time.Millisecond) // well inside the plugin's patience
		if err := c.lab.Host(0).Router().Restart(); err != nil {
			c.t.Error(err)
		}
	})
	err := add(ns)
	wg.Wait()
	return err
}

func TestEverythingForgottenIsReadBackFromTheKernel(t *testing.T) {
	const many = 200
	c := newCluster(t, 3, netlab.Options{})
	h := c.lab.Host(1)
	before := map[netip.Addr]string{}
	for i := range many {
		name := fmt.Sprintf("old%d", i)
		before[c.add(1, name, named(name)).result.addr()] = name
	}
	if err := h.Router().Kill(); err != nil {
		t.Fatal(err)
	}
	h.MustRun(t, "sh", "-c", "rm -rf /run/weave/* /var/lib/weave/*")
	if err := h.Router().Restart(); err != nil {
		t.Fatal(err)
	}
	took := c.wait("all addresses are known again", func() error {
		s, err := c.status(1)
		if err != nil {
			return err
		}
		found := 0
		for _, at := range s.Attachments {
			for _, p := range at.Addresses {
				if before[p.Addr()] != "" {
					found++
				}
			}
		}
		if found != many {
			return fmt.Errorf("%d of %d", found, many)
		}
		return nil
	})
	c.promised(fmt.Sprintf("%d addresses are known again", many), 2*time.Second, took)
	c.waitReady(1)
	for i := range many {
		got := c.add(1, fmt.Sprintf("new%d", i)).result.addr()
		if before[got] != "" {
			t.Fatalf("%v was given to new%d and is in use by %s", got, i, before[got])
		}
		before[got] = fmt.Sprintf("new%d", i)
	}
}
