package router

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
	"github.com/weave-cni/weave-cni/pkg/netlab"
	"github.com/weave-cni/weave-cni/pkg/place"
)

// copied starts a router with a copy of another host's state directory.
func copied(t *testing.T, from, to *netlab.Host, change func(*Config)) *lone {
	t.Helper()
	dir, err := os.MkdirTemp("", "state")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	all := filepath.Join(dir, "all.tar")
	from.MustRun(t, "tar", "-C", "/var/lib/weave", "-cf", all, ".")
	to.MustRun(t, "sh", "-c", "mkdir -p /var/lib/weave && tar -C /var/lib/weave -xf "+all)
	return startOn(t, to, change)
}

// trio founds a cluster of the first three hosts of a lab, a, b and c.
func trio(t *testing.T, lab *netlab.Lab, machine string) (rs []*lone, addrs []string) {
	t.Helper()
	for i := range 3 {
		addrs = append(addrs, lab.Host(i).Addr().String())
	}
	for i, name := range []string{"a", "b", "c"} {
		rs = append(rs, startOn(t, lab.Host(i), func(c *Config) {
			c.Name, c.Bootstrap, c.Peers, c.Machine = name, []string{"a", "b", "c"}, addrs, machine
		}))
	}
	for _, r := range rs {
		r.until("three voters, and ready", func(s ctl.Status) bool { return ready(s) && len(s.IPAM.Voters) == 3 })
	}
	return rs, addrs
}

// stays checks for a while that a router has, or has not, what ADD needs.
func (r *lone) stays(while time.Duration, want bool) {
	r.t.Helper()
	for end := time.Now().Add(while); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if s, err := r.status(); err == nil && ready(s) != want {
			r.t.Fatalf("%s: ready %v: %v, %q", r.config.Name, !want, s.Error, s.Problems)
		}
	}
}

func (r *lone) allocate(container string) error {
	in := ctl.AllocateRequest{Key: key(container), Network: DefaultNetwork, Decider: ctl.DecidedByClaim}
	var out ctl.AllocateReply
	return ctl.New(r.config.Socket, 0).Call(r.t.Context(), ctl.PathAllocate, in, &out)
}

// The machine is the same to all of them: nothing but the original's life speaks
// against its copy.
func TestACopyOfTheStateOfAHostThatLivesIsNeverReady(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 4})
	rs, addrs := trio(t, lab, "one for all")
	a, b := rs[0], rs[1]
	for _, peers := range [][]string{addrs, {addrs[0], addrs[2]}} {
		d := copied(t, lab.Host(1), lab.Host(3), func(c *Config) { c.Name, c.Machine, c.Peers = "b", "one for all", peers })
		d.until("it says that it may be a copy", func(s ctl.Status) bool {
			return s.Error != nil && strings.Contains(s.Error.Details, "may be a copy")
		})
		d.stays(10*time.Second, false)
		if err := d.allocate("x"); err == nil {
			t.Error("the copy gives an address")
		}
		b.stays(time.Second, true)
		if err := b.allocate(fmt.Sprint("y", len(peers))); err != nil {
			t.Errorf("the original: %v", err)
		}
		a.until("a shows it", func(s ctl.Status) bool {
			return peer("connected", "b", "")(s) && peer("refused", "b", "one state directory")(s) && problem("1 host is refused here: b")(s)
		})
		must(t, d.Kill())
		lab.Host(3).MustRun(t, "sh", "-c", "rm -rf /var/lib/weave/* /run/weave/*")
	}
}

// A founder is the only voter of two hosts: nobody but itself confirms its state.
func TestACopyOfTheOnlyVotersStateIsNeverReadyWhileThatOneLives(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 3})
	machine := func(c *Config) { c.Machine = "one for all" }
	a := startOn(t, lab.Host(0), func(c *Config) { machine(c); c.Name = "a" })
	a.until("a is ready", ready)
	peers := []string{lab.Host(0).Addr().String()}
	b := startOn(t, lab.Host(1), func(c *Config) { machine(c); c.Name, c.Peers = "b", peers })
	b.until("b is ready", ready)
	d := copied(t, lab.Host(0), lab.Host(2), func(c *Config) {
		machine(c)
		c.Name, c.Peers = "a", append(peers, lab.Host(1).Addr().String())
	})
	d.until("it says that it may be a copy", func(s ctl.Status) bool {
		return s.Error != nil && strings.Contains(s.Error.Details, "may be a copy")
	})
	d.stays(8*time.Second, false)
	for _, r := range []*lone{a, b} {
		r.stays(time.Second, true)
	}
	must(t, a.Kill())
	must(t, a.Restart()) // its witness vouches for it
	a.until("the original is back", func(s ctl.Status) bool { return ready(s) && slices.Contains(s.IPAM.Voters, "a") })
}

// Nobody is asked: the state directory itself says where it is at home.
func TestACopyOfTheStateOnAnotherMachineIsNone(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	var hardware string
	must(t, lab.Host(0).Do(func() error { hardware = place.Here("").Machine; return nil }))
	a := startOn(t, lab.Host(0), func(c *Config) {
		if c.Name = "a"; hardware != "" { // which both of the lab's hosts have
			c.Machine = "given to the original"
		}
	})
	a.until("a is ready", ready)
	for _, machine := range []string{"", "given to the copy alone"} {
		d := copied(t, lab.Host(0), lab.Host(1), func(c *Config) { c.Name, c.Machine, c.Peers = "a", machine, []string{"192.0.2.250"} })
		must(t, netlab.Wait(patience, "it says so, and sets the state aside", func() error {
			if log := d.Log(); !strings.Contains(log, "copied from another machine") {
				return fmt.Errorf("%s", log)
			}
			_, err := lab.Host(1).Run("ls", "/var/lib/weave/ledger.db.old")
			return err
		}))
		must(t, d.Kill())
		lab.Host(1).MustRun(t, "sh", "-c", "rm -rf /var/lib/weave/* /run/weave/*")
	}
}

func TestAHostThatStartsAgainIsNotItsOwnCopy(t *testing.T) {
	for _, c := range []struct {
		vouched bool
		age     time.Duration
		want    bool
	}{{true, time.Second, true}, {true, lastSession, false}, {false, time.Second, false}} {
		if got := ofItself(c.vouched, c.age); got != c.want {
			t.Errorf("vouched %v, for %v: %v", c.vouched, c.age, got)
		}
	}
}

func TestWhoMayBeTakenForACopy(t *testing.T) {
	now := time.Now()
	old, lately := now.Add(-2*time.Minute), now.Add(-2*meshlink.FreshFor) // of which a host that is busy may not have called again
	for name, c := range map[string]struct {
		line meshlink.PeerStatus
		want bool
	}{
		"another refuses us for a twin":        {meshlink.PeerStatus{Name: "a", Twin: true, Theirs: true}, true},
		"our own twin":                         {meshlink.PeerStatus{Name: "self", Twin: true}, true},
		"our own twin refuses us":              {meshlink.PeerStatus{Name: "self", Twin: true, Theirs: true}, true},
		"our own twin called long ago":         {meshlink.PeerStatus{Name: "self", Twin: true, Count: 1, Last: old}, false},
		"our own twin called lately":           {meshlink.PeerStatus{Name: "self", Twin: true, Count: 1, Last: lately}, true},
		"a third host did, for a twin":         {meshlink.PeerStatus{Name: "a", Twin: true, Theirs: true, Count: 1, Last: lately}, true},
		"our own twin calls":                   {meshlink.PeerStatus{Name: "self", Twin: true, Count: 1, Last: now}, true},
		"another's twin is refused":            {meshlink.PeerStatus{Name: "a", Twin: true}, false},
		"one of our name that has its own key": {meshlink.PeerStatus{Name: "self"}, false},
	} {
		c.line.Detail = "words"
		if got := twinOf("self", []meshlink.PeerStatus{c.line}, now); (got != "") != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
