package plugins_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// acts are the system calls that a plugin does anything with. Those with which Go's
// runtime waits are left out: its watching thread makes them by the hundred.
var acts = []string{"sendto", "sendmsg", "recvfrom", "read", "write", "pread64", "pwrite64", "connect", "socket",
	"bind", "setns", "ioctl", "openat", "close", "clone", "clone3", "execve", "waitid"}

// killed runs a plugin that gets SIGKILL at its k-th system call of one kind (of
// one thread), and reports whether it came that far.
func (b *bench) killed(verb, netns, act string, k int) bool {
	b.t.Helper()
	cmd := exec.Command("strace", "-f", "-qq", "-o", filepath.Join(b.dir, "trace"),
		"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", act, k), filepath.Join(bin, b.plugin))
	cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_PATH=" + bin, "CNI_NETNS=" + netns}
	cmd.Stdin = strings.NewReader(conf("1.0.0", b.plugin, b.keys))
	var err error
	b.do(func() { err = cmd.Start() })
	if err != nil {
		b.t.Fatal(err)
	}
	return cmd.Wait() != nil
}

var killStep = flag.Int("kill-step", 11, "system calls between two kills; 1 tries every one")

// TestACallKilledAnywhereLeavesNothingThatDELDoesNotFind kills ADD, and then DEL,
// at system calls spread over the whole run. What it leaves must go with the next DEL, and the next ADD must work.
func TestACallKilledAnywhereLeavesNothingThatDELDoesNotFind(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace (apt-get install strace)")
	}
	for _, name := range []string{"weave-net with weave-ipam", "simplebridge with weave-ipam"} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			b := &bench{machine: m, variant: variants[name], r: m.startRouter()}
			b.keys = map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
			c := newNetNS(t)
			b.call("ADD", c.path).result(t) // the first makes the bridge, which stays
			b.call("DEL", c.path)
			before := m.world(t) + c.world(t)
			kills, halves := 0, 0
			for _, act := range acts {
				first := 1 + rand.IntN(*killStep)
				for k, alive := first, true; alive; k += *killStep {
					what := fmt.Sprintf("ADD killed at %s %d", act, k)
					if alive = b.killed("ADD", c.path, act, k); alive {
						kills++
					}
					if m.world(t)+c.world(t) != before || b.held() != 0 {
						halves++
					}
					clean(t, b, c, before, what)
					b.call("ADD", c.path).result(t)
					what = fmt.Sprintf("DEL killed at %s %d", act, k)
					if b.killed("DEL", c.path, act, k) {
						alive = true
						kills++
					}
					clean(t, b, c, before, what)
				}
			}
			t.Logf("killed %d times, %d ADDs of them with something done", kills, halves)
		})
	}
}

func clean(t *testing.T, b *bench, c *netNS, before, what string) {
	t.Helper()
	if a := b.call("DEL", c.path); a.rc != 0 {
		t.Errorf("DEL after %s: %v", what, a.err())
	}
	if after := b.world(t) + c.world(t); after != before || b.held() != 0 {
		t.Errorf("%s left, after DEL: %s\nreserved: %d", what, after, b.held())
	}
}
