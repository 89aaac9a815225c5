package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const volatileDir = "the state directory /var/lib/weave is lost at each reboot, and a cluster founded here with it"

// waitsToBeFound waits until `weave status` and `weave status ipam` of a host say that
// it founds no cluster, and why.
func (c *cluster) waitsToBeFound(i int, words string) {
	c.t.Helper()
	c.wait(fmt.Sprintf("router %d says why it founds no cluster", i), func() error {
		for _, page := range []string{"", "ipam"} {
			out, err := c.lab.Host(i).Run("sh", "-c", "/opt/cni/bin/weave status "+page+" || [ $? = 4 ]")
			if err != nil {
				return err
			}
			if !strings.Contains(out, words) || !strings.Contains(out, "--init new") {
				return fmt.Errorf("weave status %s:\n%s", page, out)
			}
		}
		return nil
	})
	if s, err := c.status(i); err != nil || s.Cluster != "" || s.Error == nil {
		c.t.Errorf("router %d: %v, cluster %q, %v", i, err, s.Cluster, s.Error)
	}
}

func (c *cluster) clusterOf(i int) string {
	c.t.Helper()
	s, err := c.status(i)
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Cluster
}

// restartWith ends host i's router and starts it with these arguments.
func (c *cluster) restartWith(i int, args ...string) {
	c.t.Helper()
	if r := c.lab.Host(i).Router(); r != nil {
		if err := r.Stop(); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.lab.Host(i).StartRouter(args...); err != nil {
		c.t.Fatal(err)
	}
}

func TestOnAVolatileStateDirectoryARouterFoundsOnlyWhenTold(t *testing.T) {
	c := newCluster(t, 0, netlab.Options{Hosts: 1})
	h := c.lab.Host(0)
	var fs unix.Statfs_t
	if err := h.Do(func() error { return unix.Statfs("/var/lib/weave", &fs) }); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Fatalf("this is about a tmpfs: %x, %v", fs.Type, err)
	}
	c.restartWith(0)
	c.waitsToBeFound(0, volatileDir)
	c.mustFail(h, call{"ADD", "a", c.ns(0, "a").Path(), "eth0", nil}, volatileDir)
	c.restartWith(0) // it has waited before
	c.waitsToBeFound(0, volatileDir)
	c.restartWith(0, founder...)
	c.waitReady(0)
	id := c.clusterOf(0)
	for _, args := range [][]string{nil, founder} {
		c.restartWith(0, args...)
		c.waitReady(0)
		if got := c.clusterOf(0); got != id || id == "" {
			t.Errorf("with %q cluster %q became %q", args, id, got)
		}
	}
	if err := h.Router().Stop(); err != nil {
		t.Fatal(err)
	}
	h.MustRun(t, "sh", "-c", "rm -rf /var/lib/weave/* /run/weave; ip link del weave-vx; ip link del weave") // as a reboot does
	c.restartWith(0)
	c.waitsToBeFound(0, volatileDir)
}

func TestARouterThatWaitsIsJoinedByWhoeverConnects(t *testing.T) {
	c := newCluster(t, 0, netlab.Options{Hosts: 2})
	c.restartWith(0)
	c.waitsToBeFound(0, volatileDir)
	c.restartWith(1, founder...)
	c.waitReady(1)
	c.restartWith(1, c.lab.Host(0).Addr().String()) // it has state, so it only dials
	c.n = 2
	c.waitReady(0)
	c.waitPeers()
	if a, b := c.clusterOf(0), c.clusterOf(1); a != b {
		t.Errorf("clusters %q and %q", a, b)
	}
	c.restartWith(0) // without PEERs, as it is
	c.waitReady(0)
	a, b := c.add(0, "a"), c.add(1, "b")
	c.wait("a reaches b", func() error { return c.ping(a, b.result.addr()) })
}

// Who is connected to one that waits likewise is no member of anything yet.
func TestTwoRoutersThatWaitForEachOtherAreHelpedByTellingOne(t *testing.T) {
	c := newCluster(t, 0, netlab.Options{Hosts: 2})
	c.restartWith(0)
	c.waitsToBeFound(0, volatileDir) // so that it looks around before host 1 does
	c.restartWith(1, c.lab.Host(0).Addr().String())
	c.waitsToBeFound(0, "if no host there has a cluster either: "+volatileDir)
	c.wait("host 1 has written down where it reached host 0", func() error {
		_, err := c.lab.Host(1).Run("ls", "/var/lib/weave/known-hosts")
		return err
	})
	c.restartWith(0, founder...) // it has not: it would have to join then
	c.n = 2
	c.waitReady(0)
	c.waitReady(1)
	c.waitPeers()
}

func TestOnADiskARouterFoundsByItself(t *testing.T) {
	dir, err := os.MkdirTemp("", "state")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		t.Skipf("%s is in memory: no disk for a state directory (set TMPDIR)", dir)
	}
	c := newCluster(t, 0, netlab.Options{Hosts: 1})
	c.restartWith(0, "--state-dir", dir)
	c.waitReady(0)
}
