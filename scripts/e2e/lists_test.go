package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// lists waits until the network lists on a host, besides those of the operator, are these.
func (c *cluster) lists(i int, want string) {
	c.t.Helper()
	c.wait(fmt.Sprintf("the lists on host %d are %q", i, want), func() error {
		out, err := c.lab.Host(i).Run("sh", "-c", "cd /etc/cni/net.d && ls -A")
		var have []string
		for name := range strings.FieldsSeq(out) {
			if !strings.HasPrefix(name, "10-") && !strings.HasPrefix(name, "20-") {
				have = append(have, name)
			}
		}
		if got := strings.Join(have, " "); err == nil && got != want {
			err = fmt.Errorf("they are %q", got)
		}
		return err
	})
}

func TestNetworkListsFollowTheNetworksOnEveryHostThatHasThem(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	h0, h1 := c.lab.Host(0), c.lab.Host(1)
	pattern, err := h1.ReadFile("/etc/cni/net.d/10-weave.conflist")
	if err != nil {
		t.Fatal(err)
	}
	h1.MustRun(t, "rm", "/etc/cni/net.d/10-weave.conflist")
	h0.MustRun(t, weaveCmd, "net", "create", "blue")
	if _, err := h0.ReadFile("/etc/cni/net.d/weave-blue.conflist"); err != nil {
		t.Errorf("create has answered before it was there: %v", err)
	}
	h0.MustRun(t, weaveCmd, "net", "create", "--driver", "simplebridge", "local")
	c.lists(0, "weave-blue.conflist weave-local.conflist")
	c.wait("host 1, which has no pattern, says what to run", func() error {
		out, err := h1.Run(weaveCmd, "status")
		if err == nil && !strings.Contains(out, "weave conflist --out /etc/cni/net.d conflist/10-weave.conflist") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	c.lists(1, "")
	if err := h1.WriteFile("/etc/cni/net.d/10-weave.conflist", pattern, 0o644); err != nil {
		t.Fatal(err)
	}
	c.lists(1, "weave-blue.conflist") // local is host 0's alone

	h1.MustRun(t, weaveCmd, "reset", "--stop")
	c.ended(1)
	c.lists(1, "")
	c.lists(0, "weave-blue.conflist weave-local.conflist")
	h0.MustRun(t, weaveCmd, "net", "rm", "blue", "local")
	c.lists(0, "")
}

func TestANetworkWhoseNameAnotherListHasGetsItsOwnOnceThatIsGone(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	const other = "/etc/cni/net.d/nerdctl-blue.conflist"
	if err := h.WriteFile(other, `{"cniVersion":"1.0.0","name":"blue","plugins":[{"type":"bridge"}]}`, 0o644); err != nil {
		t.Fatal(err)
	}
	const words = other + ` is not the router's, and has the name of network "blue"`
	for _, command := range []string{"net create blue", "status", "doctor"} {
		if out := h.MustRun(t, "sh", "-c", weaveCmd+" "+command+" 2>&1 || true"); !strings.Contains(out, words) {
			t.Errorf("weave %s:\n%s", command, out)
		}
	}
	c.lists(0, "nerdctl-blue.conflist")
	h.MustRun(t, "rm", other)
	c.lists(0, "weave-blue.conflist")
	if out := h.MustRun(t, weaveCmd, "status"); strings.Contains(out, words) {
		t.Errorf("it still complains:\n%s", out)
	}
}
