package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// says waits until the lines of a command on host i have some words.
func (c *cluster) says(i int, what string, words ...string) {
	c.t.Helper()
	c.wait(what, func() error {
		out, err := c.lab.Host(i).Run(weaveCmd, strings.Fields(what)...)
		for _, w := range words {
			if err == nil && !strings.Contains(out, w) {
				err = fmt.Errorf("no %q in:\n%s", w, out)
			}
		}
		return err
	})
}

func TestAFullNetworkIsAProblemAndTheHostStaysReady(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{RouterArgs: []string{"--range", "10.32.0.0/29"}})
	for i := range 5 { // and the bridge's
		c.add(0, fmt.Sprint("c", i))
	}
	c.says(0, "status", "ready\n", `problem  network "weave" is full: no address of 10.32.0.0/29`)
	c.mustFail(c.lab.Host(0), call{"ADD", "late", c.ns(0, "late").Path(), "eth0", nil}, "no free address")
	c.must(c.lab.Host(0), call{"STATUS", "", "", "", nil})
}

// The word that host h2 is destroyed was wrong, and another host has its container's address.
func TestAnAddressThatTwoHostsHaveIsAProblemOnBoth(t *testing.T) {
	c := newCluster(t, 3, netlab.Options{})
	c.waitVoters(3)
	lone := c.add(2, "lone")
	addr := lone.result.addr().String()
	if err := c.lab.Host(2).Router().Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait("h2 is retired", func() error {
		_, err := c.lab.Host(0).Run(weaveCmd, "rmpeer", "--destroyed", "h2")
		return err
	})
	c.must(c.lab.Host(1), call{"ADD", "dup", c.ns(1, "dup").Path(), "eth0", inArgs(addr)})
	if err := c.lab.Host(2).Router().Restart(); err != nil {
		t.Fatal(err)
	}
	c.waitReady(2)
	c.waitPeers()
	c.says(2, "status", "problem  ", "in other hosts' blocks, where others may have the same: ", addr+" of h1")
	c.says(2, "ps", addr+" is in a block of h1, in use on h1 too")
	c.says(1, "status", "1 address of this host is in use elsewhere too: "+addr+" on h2")
	c.wait("the log names it", func() error {
		if log := c.lab.Host(2).Router().Log(); strings.Count(log, "is in another host's block") < 1 {
			return fmt.Errorf("log:\n%s", log)
		}
		return nil
	})
}
