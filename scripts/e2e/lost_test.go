package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestAFounderThatLostItsStateFoundsNoSecondCluster(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	a, b := c.add(0, "a"), c.add(1, "b")
	c.wait("a reaches b", func() error { return c.ping(a, b.result.addr()) })
	h := c.lab.Host(0)
	if err := h.Router().Kill(); err != nil {
		t.Fatal(err)
	}
	h.MustRun(t, "sh", "-c", "rm -rf /var/lib/weave/*")
	flow := c.startTraffic(a, b)
	if err := h.Router().Restart(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-h.Router().Done():
	case <-time.After(patience):
		t.Fatal("the router runs")
	}
	if log := h.Router().Log(); !strings.Contains(log, "this host was in a cluster") {
		t.Errorf("it does not say why:\n%s", log)
	}
	if sent, lost := flow.stop(); lost != 0 {
		t.Errorf("%d of %d packets lost", lost, sent)
	}
}

func TestARequestedMACOfAnotherHostsContainerIsRefused(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	const mac = "CNI_ARGS=IgnoreUnknown=1;MAC=02:aa:bb:cc:dd:01"
	c.add(0, "a", mac)
	var err error
	for i := range 50 { // the other host hears of it within a second
		ns := c.ns(1, "b"+strings.Repeat("x", i))
		if _, err = c.tryAdd(ns, "weave", mac); err != nil {
			break
		}
		c.cni(ns.Host(), "del", "weave", ns.Path(), mac)
	}
	if err == nil || !strings.Contains(err.Error(), "02:aa:bb:cc:dd:01") {
		t.Errorf("got %v", err)
	}
}

func TestAHostThatChangesItsClusterChangesItsBridgesAddress(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{Hosts: 2})
	lone := c.lab.Host(1)
	if _, err := lone.StartRouter(founder...); err != nil { // founds one of its own
		t.Fatal(err)
	}
	c.waitReady(1)
	if err := lone.Router().Stop(); err != nil {
		t.Fatal(err)
	}
	lone.MustRun(t, "sh", "-c", "rm -rf /var/lib/weave/*")
	c.n = 2
	c.start(1)
	c.waitReady(1)
	c.waitPeers()
	first, second := c.bridgeAddr(0), c.bridgeAddr(1)
	if first == second || strings.Count(second, "inet ") != 1 {
		t.Errorf("bridges have %q and %q", first, second)
	}
	a, b := c.add(0, "a"), c.add(1, "b")
	c.wait("a reaches b", func() error { return c.ping(a, b.result.addr()) })
}

func (c *cluster) bridgeAddr(i int) string {
	c.t.Helper()
	return c.lab.Host(i).MustRun(c.t, "ip", "-4", "-o", "addr", "show", "dev", "weave")
}

func TestPortsAreBackInTheirBridgeWhenItWasLostWithTheClaims(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	h := c.lab.Host(0)
	a, b := c.add(0, "a", named("alpha")), c.add(1, "b")
	local := func(id, bridge string, ipam map[string]any) (veth string, addr netip.Addr) {
		conf := map[string]any{"name": id, "type": "simplebridge", "bridge": bridge, "ipam": ipam}
		r := c.must(h, call{"ADD", id, c.ns(0, id).Path(), "eth0", conf})
		return r.Interfaces[1].Name, r.addr()
	}
	ours, oursAddr := local("ours", "sb0", map[string]any{"type": "weave-ipam", "network": "weave"})
	_, theirsAddr := local("theirs", "sb1", map[string]any{"type": "host-local", "subnet": "10.1.0.0/24"})
	if err := h.Router().Kill(); err != nil {
		t.Fatal(err)
	}
	h.MustRun(t, "sh", "-c", "ip link del weave; ip link del sb0; rm -rf /run/weave/*")
	if err := h.Router().Restart(); err != nil {
		t.Fatal(err)
	}
	c.wait("b reaches a", func() error { return c.ping(b, a.result.addr()) })
	c.wait("b finds a by name", func() error {
		if got, err := c.resolve(b, "alpha"); err != nil || len(got) != 1 {
			return fmt.Errorf("%v, %w", got, err)
		}
		return nil
	})
	if out := h.MustRun(t, "ip", "link", "show", "dev", ours); strings.Contains(out, "master") {
		t.Errorf("simplebridge's port is in another's bridge:\n%s", out)
	}
	time.Sleep(6 * time.Second) // three reconciliations
	s, err := c.status(0)
	if err != nil {
		t.Fatal(err)
	}
	have := map[netip.Addr]bool{}
	for _, at := range s.Attachments {
		have[at.Addresses[0].Addr()] = true
	}
	if !have[a.result.addr()] || !have[oursAddr] || have[theirsAddr] {
		t.Errorf("attachments %+v", s.Attachments)
	}
}
