package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const weaveCmd = "/opt/cni/bin/weave"

// owned is how many addresses of the default network's IPv4 subnet a host has, as
// host i sees it; "" asks for the pool.
func (c *cluster) owned(i int, host string) (n uint64, err error) {
	s, err := c.status(i)
	if err != nil || len(s.IPAM.Subnets) == 0 {
		return 0, fmt.Errorf("no subnet: %v", err)
	}
	if host == "" {
		return s.IPAM.Subnets[0].Pool, nil
	}
	for _, h := range s.IPAM.Subnets[0].Hosts {
		if h.Host == host {
			n += h.Owned
		}
	}
	return n, nil
}

func (c *cluster) waitOwned(i int, host string, right func(uint64) bool) {
	c.t.Helper()
	c.wait("blocks of "+host, func() error {
		n, err := c.owned(i, host)
		if err == nil && !right(n) {
			err = fmt.Errorf("host %d says %s owns %d addresses", i, host, n)
		}
		return err
	})
}

func none(n uint64) bool { return n == 0 }
func some(n uint64) bool { return n > 0 }

// An even number of them lasts a minute before one loses its vote.
func (c *cluster) waitVoters(n int) {
	c.t.Helper()
	err := netlab.Wait(2*patience, fmt.Sprintf("%d voters", n), func() error {
		s, err := c.status(0)
		if err == nil && len(s.IPAM.Voters) != n {
			err = fmt.Errorf("voters: %v", s.IPAM.Voters)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// refused runs the command on a host, which must fail and say that.
func (c *cluster) refused(i int, why string, args ...string) {
	c.t.Helper()
	if out, err := c.lab.Host(i).Run(weaveCmd, args...); err == nil || !strings.Contains(err.Error(), why) {
		c.t.Errorf("weave %v: %q, %v; want %q", args, out, err, why)
	}
}

// distinct adds containers on hosts and fails when an address is given that is in use.
func (c *cluster) distinct(have []*container, each int, hosts ...int) {
	c.t.Helper()
	seen := map[netip.Addr]string{}
	for _, ct := range have {
		seen[ct.result.addr()] = ct.Name()
	}
	for n := range each {
		for _, i := range hosts {
			ct := c.add(i, fmt.Sprintf("d%d-%d", i, n))
			if other, twice := seen[ct.result.addr()]; twice {
				c.t.Fatalf("%s has the address %s of %s", ct.Name(), ct.result.addr(), other)
			}
			seen[ct.result.addr()] = ct.Name()
		}
	}
}

func TestADestroyedHostsAddressesComeBackAndOneThatLivesKeepsItsContainers(t *testing.T) {
	c := newCluster(t, 3, netlab.Options{})
	c.waitVoters(3)
	a, lone := c.add(0, "a"), c.add(2, "lone")
	c.waitOwned(0, "h2", some)
	c.refused(0, "--destroyed", "rmpeer", "h2")
	c.refused(0, "is alive", "rmpeer", "--destroyed", "h2")
	c.refused(0, "no other host", "rmpeer", "--destroyed", "nobody")
	if err := c.lab.Host(2).Router().Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait("h2 is retired", func() error {
		_, err := c.lab.Host(0).Run(weaveCmd, "rmpeer", "--destroyed", "h2")
		return err
	})
	c.waitOwned(1, "h2", none)

	// The word was wrong: the host lives.
	if err := c.lab.Host(2).Router().Restart(); err != nil {
		t.Fatal(err)
	}
	c.waitReady(2)
	c.waitPeers()
	if log := c.lab.Host(2).Router().Log(); !strings.Contains(log, "joins again as a new member") {
		t.Errorf("it does not say what happened:\n%s", log)
	}
	c.wait("its container is reached", func() error { return c.ping(a, lone.result.addr()) })
	c.distinct([]*container{a, lone}, 10, 0, 1, 2)
}

func TestWhenTheMajorityIsLostForGoodOneHostGoesOn(t *testing.T) {
	c := newCluster(t, 3, netlab.Options{})
	c.waitVoters(3)
	c.add(1, "b")
	gone := c.add(2, "c").result.addr()
	for _, i := range []int{1, 2} {
		if err := c.lab.Host(i).Router().Kill(); err != nil {
			t.Fatal(err)
		}
	}
	c.wait("the loss is noticed", func() error {
		if _, err := c.lab.Host(0).Run(weaveCmd, "rmpeer", "--destroyed", "h1"); err == nil || !strings.Contains(err.Error(), "--majority-lost") {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
	c.lab.Host(0).MustRun(t, weaveCmd, "rmpeer", "--destroyed", "--majority-lost", "h1")
	c.lab.Host(0).MustRun(t, weaveCmd, "rmpeer", "--destroyed", "h2")
	c.waitOwned(0, "h1", none)
	c.waitOwned(0, "h2", none)
	if got := c.add(0, "again", "CNI_ARGS=IgnoreUnknown=1;IP="+gone.String()); got.result.addr() != gone {
		t.Errorf("got %s", got.result.addr())
	}
}

func TestAHostThatLeavesGivesItsAddressesBack(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	a, b := c.add(0, "a"), c.add(1, "b")
	c.waitOwned(0, "h1", some)
	c.refused(1, "containers are attached", "reset")
	c.del(b)
	before, err := c.status(1)
	if err != nil {
		t.Fatal(err)
	}
	c.lab.Host(1).MustRun(t, weaveCmd, "reset")
	c.wait("it has joined anew", func() error {
		s, err := c.status(1)
		if err == nil && (s.Error != nil || s.IPAM.Index <= before.IPAM.Index) {
			err = fmt.Errorf("not yet: %v, entry %d", s.Error, s.IPAM.Index)
		}
		return err
	})
	b = c.add(1, "b2")
	c.wait("a reaches b", func() error { return c.ping(a, b.result.addr()) })
	c.distinct([]*container{a, b}, 5, 0, 1)
}

func TestAnOldCopyOfTheStateDirectoryIsNoState(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	h := c.lab.Host(1)
	h.MustRun(t, "cp", "-a", "/var/lib/weave", "/run/weave-backup")
	a, b := c.add(0, "a"), c.add(1, "b", "CNI_ARGS=IgnoreUnknown=1;IP=10.40.0.5") // of which the ledger hears
	if err := h.Router().Stop(); err != nil {
		t.Fatal(err)
	}
	h.MustRun(t, "sh", "-c", "rm -rf /var/lib/weave/* && cp -a /run/weave-backup/. /var/lib/weave/")
	if err := h.Router().Restart(); err != nil {
		t.Fatal(err)
	}
	c.waitReady(1)
	if log := h.Router().Log(); !strings.Contains(log, "put back from a copy") {
		t.Errorf("it does not say so:\n%s", log)
	}
	c.distinct([]*container{a, b}, 10, 0, 1)
}

// TestARebootWithoutItsStateNeedsNoHand reboots a host: no containers, no run
// directory, no state, another boot. It gets the blocks that it had.
func TestARebootWithoutItsStateNeedsNoHand(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{RouterArgs: []string{"--machine-id", "rack 7"}})
	h := c.lab.Host(1)
	b := c.add(1, "b")
	c.waitOwned(0, "h1", some)
	had, err := c.owned(0, "h1")
	if err != nil {
		t.Fatal(err)
	}
	c.del(b)
	if err := h.Router().Kill(); err != nil {
		t.Fatal(err)
	}
	h.MustRun(t, "sh", "-c", "ip link del weave; ip link del weave-vx; rm -rf /run/weave/* /var/lib/weave/*; "+
		"cat /proc/sys/kernel/random/uuid > /run/boot && mount --bind /run/boot /proc/sys/kernel/random/boot_id")
	if err := h.Router().Restart(); err != nil {
		t.Fatal(err)
	}
	c.waitReady(1)
	c.waitOwned(0, "h1", func(n uint64) bool { return n >= had })
	if log := c.lab.Host(1).Router().Log(); strings.Contains(log, "panic") {
		t.Errorf("%s", log)
	}
	s, err := c.status(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range s.IPAM.Subnets[0].Hosts {
		if u.Host == "h1" && u.Owned > 2*had {
			t.Errorf("h1 owns %d, it had %d: the old ones are somebody else's", u.Owned, had)
		}
	}
}

// TestHostsFoundTheirClusterTogether starts every host with the same flags, one of
// them late, and kills two while they agree.
func TestHostsFoundTheirClusterTogether(t *testing.T) {
	c := newCluster(t, 0, netlab.Options{Hosts: 3, RouterArgs: []string{"--bootstrap", "h0,h1,h2"}})
	c.n = 3
	var all []string
	for _, h := range c.lab.Hosts() {
		all = append(all, h.Addr().String())
	}
	for _, i := range []int{0, 1} {
		if _, err := c.lab.Host(i).StartRouter(all...); err != nil {
			t.Fatal(err)
		}
	}
	c.wait("it says what it waits for", func() error {
		s, err := c.status(0)
		if err == nil && !strings.Contains(s.IPAM.Waiting, "h2 has not been met") {
			err = fmt.Errorf("waits for %q", s.IPAM.Waiting)
		}
		return err
	})
	if _, err := c.lab.Host(2).StartRouter(all...); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1} {
		if err := c.lab.Host(i).Router().Kill(); err != nil {
			t.Fatal(err)
		}
		if err := c.lab.Host(i).Router().Restart(); err != nil {
			t.Fatal(err)
		}
	}
	clusters := map[string]bool{}
	for i := range 3 {
		c.waitReady(i)
		s, err := c.status(i)
		if err != nil {
			t.Fatal(err)
		}
		clusters[s.Cluster] = true
	}
	if len(clusters) != 1 {
		t.Fatalf("%d clusters: %v", len(clusters), clusters)
	}
	c.waitPeers()
	a, b := c.add(0, "a"), c.add(2, "b")
	c.wait("a reaches b", func() error { return c.ping(a, b.result.addr()) })
}
