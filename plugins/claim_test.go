package plugins_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ipam/claims"
)

// gone is a router that is not there any more: what it left of a claim of c1.
type gone struct {
	t      *testing.T
	m      *machine
	dir    *claims.Dir
	socket string // as the plugin's configuration has it
}

// leave makes a claim in the machine's run directory, as a router with that socket does.
func leave(t *testing.T, socket func(m *machine) string) *gone {
	t.Helper()
	m := newMachine(t)
	dir, err := claims.Open(filepath.Join(filepath.Dir(m.socket()), "claims"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	key := attachment.Key{Network: "net1", ContainerID: "c1", IfName: "eth0"}
	if err := dir.Save(book.Claim{Hash: key.Hash(), Key: key, Network: "net1", Decider: ctl.DecidedByClaim, State: book.Attached}); err != nil {
		t.Fatal(err)
	}
	return &gone{t, m, dir, socket(m)}
}

// del is DEL by a main plugin.
func (g *gone) del(plugin string) answer {
	return g.m.run("weave-ipam", conf("1.0.0", plugin, map[string]any{"ipam": map[string]any{"type": "weave-ipam", "socket": g.socket}}), "CNI_COMMAND=DEL")
}

// restarted is how many claims a router finds that starts now. What it does not find
// must have left an address that rests.
func (g *gone) restarted() int {
	live, resting, bad, err := g.dir.Load()
	if err != nil || len(bad) != 0 {
		g.t.Fatal(err, bad)
	}
	if len(live)+len(resting) != 1 {
		g.t.Errorf("live %+v, resting %+v", live, resting)
	}
	return len(live)
}

func inRunDir(m *machine) string  { return m.socket() }
func elsewhere(m *machine) string { return filepath.Join(m.dir, "elsewhere", "s") }

func TestWeaveIPAMReleasesForAForeignMainPluginWithoutARouter(t *testing.T) {
	t.Parallel()
	for plugin, stays := range map[string]int{"weave-net": 1, "macvlan": 0} {
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			g := leave(t, inRunDir)
			for range 2 {
				if a := g.del(plugin); a.rc != 0 || a.stdout != "" {
					t.Errorf("DEL: %v", a.err())
				}
			}
			if n := g.restarted(); n != stays {
				t.Errorf("a new router finds %d claims, want %d", n, stays)
			}
		})
	}
}

// TestWeaveIPAMFindsTheClaimsWhereverTheSocketIs: an address that is left behind
// here is left behind for good.
func TestWeaveIPAMFindsTheClaimsWhereverTheSocketIs(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(*gone){
		"announced, the router killed":  func(g *gone) { g.announce(); g.deadSocket() },
		"announced, the router stopped": func(g *gone) { g.announce() },
		"a link to a socket that has gone": func(g *gone) {
			g.must(os.Mkdir(filepath.Dir(g.socket), 0o700))
			g.must(os.Symlink("../run/weave.sock", g.socket))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := leave(t, elsewhere)
			prepare(g)
			for range 2 {
				if a := g.del("macvlan"); a.rc != 0 || a.stdout != "" {
					t.Errorf("DEL: %v", a.err())
				}
			}
			if n := g.restarted(); n != 0 {
				t.Errorf("a new router finds %d claims", n)
			}
		})
	}
}

func TestWeaveIPAMSaysWhenItFindsNoClaimsAndReleasesOnceThereIsARouter(t *testing.T) {
	t.Parallel()
	g := leave(t, elsewhere)
	g.must(os.Mkdir(filepath.Dir(g.socket), 0o700))
	g.deadSocket()
	if a := g.del("macvlan"); a.rc != 1 || a.err().Code != ctl.CodeTryAgain || g.restarted() != 1 {
		t.Errorf("with a socket and no claims: got %+v, %d claims", a, g.restarted())
	}
	g.must(os.Remove(g.socket))
	if a := g.del("macvlan"); a.rc != 0 { // after a reboot, say
		t.Errorf("where no router has been: %v", a.err())
	}
	g.must(os.WriteFile(g.socket+ctl.ClaimsLink, nil, 0o600))
	if a := g.del("macvlan"); a.rc != 1 || a.err().Code != 5 {
		t.Errorf("claims that cannot be removed: got %+v", a)
	}
	g.socket = g.m.socket()
	r := g.m.startRouter()
	if a := g.del("macvlan"); a.rc != 0 || len(r.requests[ctl.PathRelease]) != 1 {
		t.Errorf("with a router: %v", a.err())
	}
}

func (g *gone) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *gone) announce() { g.t.Helper(); g.must(g.dir.Announce(g.socket)) }

// deadSocket is what a killed router leaves.
func (g *gone) deadSocket() {
	g.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: g.socket, Net: "unix"})
	g.must(err)
	l.SetUnlinkOnClose(false)
	l.Close()
}
