package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// ended waits for the end of host i's router and gives its exit code.
func (c *cluster) ended(i int) int {
	c.t.Helper()
	r := c.lab.Host(i).Router()
	select {
	case <-r.Done():
	case <-time.After(patience):
		c.t.Fatalf("router %d runs", i)
	}
	return r.State().ExitCode()
}

// A reset has the router start itself again: what is sent meanwhile is for the next one.
func TestASIGTERMThatComesWhileTheRouterStartsItselfAgainEndsIt(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	h := c.lab.Host(1)
	for _, pause := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond} {
		h.MustRun(t, weaveCmd, "reset")
		time.Sleep(pause) // where in the restart it comes, not how long anything takes
		if err := h.Router().Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		c.ended(1)
		if err := h.Router().Restart(); err != nil {
			t.Fatal(err)
		}
		c.waitReady(1)
	}
}

func TestAHostThatIsResetToStopIsOutOfTheCluster(t *testing.T) {
	c := newCluster(t, 3, netlab.Options{})
	c.waitVoters(3)
	c.waitOwned(0, "h2", some)
	h := c.lab.Host(2)
	out := h.MustRun(t, weaveCmd, "reset", "--stop")
	if !strings.Contains(out, "does not start again") {
		t.Errorf("it says %q", out)
	}
	if links := h.MustRun(t, "ip", "-o", "link"); strings.Contains(links, "weave") {
		t.Errorf("the command does not wait for its end:\n%s", links)
	}
	if code := c.ended(2); code != 10 {
		t.Errorf("exit code %d: the unit would start it again", code)
	}
	if _, err := h.Run("sh", "-c", "ls /var/lib/weave/identity || ls /var/lib/weave/ledger.db"); err == nil {
		t.Error("its state is there")
	}
	for i := range 2 {
		c.waitOwned(i, "h2", none)
		c.wait(fmt.Sprintf("host %d misses nobody", i), func() error {
			s, err := c.status(i)
			if err == nil && (len(s.Problems) != 0 || slices.Contains(s.IPAM.Voters, "h2")) {
				err = fmt.Errorf("problems %q, voters %q, peers %+v", s.Problems, s.IPAM.Voters, s.Peers)
			}
			return err
		})
	}
	c.wait("host 1, which names it as a PEER, says so", func() error {
		out, err := c.lab.Host(1).Run(weaveCmd, "status", "peers")
		if err == nil && !strings.Contains(out, "has left the cluster, and is named as a PEER here") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	c.wait("host 0, which does not, forgets it", func() error {
		out, err := c.lab.Host(0).Run(weaveCmd, "status", "peers")
		if err == nil && strings.Contains(out, "h2") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	c.waitVoters(1)
}
