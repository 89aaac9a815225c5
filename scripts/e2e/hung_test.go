package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// away has each command end with the reason while no router answers: with 3 and some words.
func (c *cluster) away(words string) {
	c.t.Helper()
	for _, line := range []string{
		"status", "ps", "net list", "net inspect weave", "trace", "report --json", "top --once",
		"net create blue", "net label weave tier=db", "net rm blue", "connect 192.0.2.99", "forget 192.0.2.99", "reset",
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		began := time.Now()
		out, err := c.lab.Host(0).Command(ctx, "/opt/cni/bin/weave", strings.Fields(line)...).CombinedOutput()
		cancel()
		c.promised("weave "+line+", "+words, 2*time.Second, time.Since(began))
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), words) {
			c.t.Errorf("weave %s: %v, %s", line, err, out)
		}
	}
}

func TestEveryCommandSaysWhyARouterThatIsStoppedOrGoneDoesNotAnswer(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	r := c.lab.Host(0).Router()
	if err := r.Pause(); err != nil {
		t.Fatal(err)
	}
	c.away("does not answer at /run/weave/weave.sock, though it runs")
	if err := r.Resume(); err != nil {
		t.Fatal(err)
	}
	c.waitReady(0)
	if s, err := c.status(0); err != nil || len(s.Networks) != 1 {
		t.Errorf("an order that was refused was done all the same: %+v, %v", s.Networks, err)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	c.away("start it with: weaver")
}

// fds is how many files and sockets a router has open.
func (c *cluster) fds(i int) int {
	c.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.lab.Host(i).Router().PID()))
	if err != nil {
		c.t.Fatal(err)
	}
	return len(all)
}
