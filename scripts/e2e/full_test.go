package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// TestAFullDiskEndsTheRouterAndNoTraffic fills the disk of a state directory, and has
// the ledger grow until it needs some.
func TestAFullDiskEndsTheRouterAndNoTraffic(t *testing.T) {
	c := newCluster(t, 0, netlab.Options{Hosts: 2})
	h := c.lab.Host(1)
	h.MustRun(t, "mount", "-t", "tmpfs", "-o", "size=1m", "small", "/var/lib/weave")
	c.restartWith(0, founder...)
	c.waitReady(0)
	c.restartWith(1, c.lab.Host(0).Addr().String())
	c.n = 2
	c.waitReady(1)
	c.waitPeers()
	a, b := c.add(0, "a"), c.add(1, "b")
	c.wait("a reaches b", func() error { return c.ping(a, b.result.addr()) })

	flow, changes := c.startTraffic(a, b), 0
	h.MustRun(t, "sh", "-c", "dd if=/dev/zero of=/var/lib/weave/fill bs=4k 2>/dev/null || true")
	router := h.Router()
	c.wait("the ledger needs some of it", func() error {
		changes++
		c.del(c.add(0, fmt.Sprint("x", changes), fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;IP=10.40.%d.5", changes)))
		return hasEnded(router)
	})
	if log := router.Log(); !strings.Contains(log, "write /var/lib/weave/ledger.db: no space left on device: make room there") {
		t.Errorf("it does not say why it ends:\n%s", log)
	}
	if err := router.Restart(); err != nil {
		t.Fatal(err)
	}
	c.wait("it ends again", func() error { return hasEnded(router) })
	if log := router.Log(); strings.Count(log, "no space left on device: make room there") != 2 {
		t.Errorf("the next start does not say why it ends:\n%s", log)
	}
	if out := h.MustRun(t, "ls", "/var/lib/weave"); strings.Contains(out, "new-") {
		t.Errorf("each start leaves a file:\n%s", out)
	}
	if sent, lost := flow.stop(); lost != 0 {
		t.Errorf("%d of %d packets lost", lost, sent)
	}
	c.mustFail(h, call{"ADD", "late", c.ns(1, "late").Path(), "eth0", nil}, "does not answer")
	c.del(b)
	h.MustRun(t, "rm", "/var/lib/weave/fill")
	if err := router.Restart(); err != nil {
		t.Fatal(err)
	}
	c.waitReady(1)
	again := c.add(1, "again")
	c.wait("a reaches it", func() error { return c.ping(a, again.result.addr()) })
}

func hasEnded(d *netlab.Daemon) error {
	select {
	case <-d.Done():
		return nil
	default:
		return errors.New("it runs")
	}
}
