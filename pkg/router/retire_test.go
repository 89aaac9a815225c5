package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netlab"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// retires gives a host up, on this one.
func (r *lone) retires(name string) (out ctl.Retired, err error) {
	err = ctl.New(r.config.Socket, 0).Call(r.t.Context(), ctl.PathRetire, ctl.RetireRequest{Name: name}, &out)
	return out, err
}

// refusesToRetire fails the test unless that is refused in these words.
func (r *lone) refusesToRetire(name, words string) {
	r.t.Helper()
	if out, err := r.retires(name); err == nil || !strings.Contains(err.Error(), words) {
		r.t.Errorf("retire %s on %s: %+v, %v; want %q", name, r.config.Name, out, err, words)
	}
}

// former counts the rows of former lives of a host.
func former(s ctl.Status, name string) (n int) {
	for _, u := range s.IPAM.Subnets {
		for _, h := range u.Hosts {
			if h.Host == name && h.Former {
				n++
			}
		}
	}
	return n
}

// b has lost its state directory and cannot prove it: its containers go on in blocks
// that nobody gives from, and its operator frees them once they have ended.
func TestTheBlocksOfAFormerLifeAreFreedWhileItsHostLives(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a := startOn(t, lab.Host(0), as("a"))
	a.until("a founds", ready)
	start := func(machine string) *lone {
		return startOn(t, lab.Host(1), func(c *Config) { c.Name, c.Peers, c.Machine = "b", []string{lab.Host(0).Addr().String()}, machine })
	}
	b := start("one machine")
	b.until("b joins", ready)
	call := func(path string, in any) {
		t.Helper()
		must(t, ctl.New(b.config.Socket, 0).Call(t.Context(), path, in, nil))
	}
	call(ctl.PathAllocate, ctl.AllocateRequest{Key: key("web"), Network: DefaultNetwork, Decider: ctl.DecidedByClaim})
	call(ctl.PathRegister, ctl.RegisterRequest{Key: key("web"), Names: []string{"web"}})
	a.refusesToRetire("b", "host b is alive")
	b.refusesToRetire("b", "this host is b itself")

	must(t, b.Signal(unix.SIGTERM))
	b.ends()
	lab.Host(1).MustRun(t, "sh", "-c", "rm -rf /var/lib/weave/*")
	b = start("another, as far as anybody knows")
	b.until("b has joined anew", ready)
	named := func(s ctl.Status) bool {
		return slices.ContainsFunc(s.DNS.Names, func(n ctl.NameEntry) bool { return n.Name == "web" })
	}
	a.until("a sees both lives, and the container of the first", func(s ctl.Status) bool { return former(s, "b") == 1 && named(s) })
	for _, r := range []*lone{a, b} {
		r.refusesToRetire("b", "1 address is of host b's former life still in use there (10.")
	}
	call(ctl.PathRelease, ctl.KeyRequest{Key: key("web")})
	a.until("a hears that it has ended", func(s ctl.Status) bool { return !named(s) })
	if out, err := a.retires("b"); err != nil || !out.Former || out.Members != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	for _, r := range []*lone{a, b} {
		r.until("the former life owns nothing, and b lives", func(s ctl.Status) bool { return ready(s) && former(s, "b") == 0 && len(s.IPAM.Subnets[0].Hosts) == 2 })
	}
	a.refusesToRetire("b", "host b is alive")
	b.refusesToRetire("b", "this host is b itself")
}

func TestHoweverManyLivesAreRetiredTheCallerIsToldInTimeWhatWasDone(t *testing.T) {
	slow := func(ctx context.Context, d time.Duration, err error) error {
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", replica.ErrNotReady, ctx.Err())
		}
	}
	nearly := decideWithin - time.Millisecond
	const begun = " were retired, the others not yet: run it again"
	for name, c := range map[string]struct {
		in      ctl.RetireRequest
		lost    bool // until the majority is given up nothing is decided
		force   error
		members int
		words   string
	}{
		"a slow leader":               {ctl.RetireRequest{Name: "b"}, false, nil, 4, "of the 9 lives of host b that are left in the ledger 4" + begun},
		"no majority":                 {ctl.RetireRequest{Name: "b"}, true, nil, 0, "--majority-lost goes on"},
		"a majority that is given up": {ctl.RetireRequest{Name: "b", MajorityLost: true}, true, nil, 1, "the majority was given up before: this host's copy"},
		"one that cannot be given up": {ctl.RetireRequest{Name: "b", MajorityLost: true}, true, errors.New("no"), 0, "no"},
	} {
		synctest.Test(t, func(t *testing.T) {
			lost, begin := c.lost, time.Now()
			retire := func(ctx context.Context, _ ledger.MemberID) error {
				if lost {
					return slow(ctx, decideWithin, replica.ErrNotReady)
				}
				return slow(ctx, nearly, nil)
			}
			force := func(ctx context.Context) error {
				lost = c.force != nil
				return slow(ctx, 2*decideWithin, c.force)
			}
			out, err := retireAll(t.Context(), slices.Repeat([]ledger.MemberID{1}, 9), c.in, retire, force)
			if took := time.Since(begin); took > retireWithin {
				t.Errorf("%s: it takes %v", name, took)
			}
			if out.Members != c.members || out.Forced != (c.lost && c.in.MajorityLost && c.force == nil) {
				t.Errorf("%s: %+v", name, out)
			}
			if err == nil || !strings.Contains(undecided(err, c.in, out, 9).Error(), c.words) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
