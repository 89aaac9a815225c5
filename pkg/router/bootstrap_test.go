package router

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// waitsFor waits until a host in no cluster has said for so long what it waits for.
func (r *lone) waitsFor(words string, uptime time.Duration) {
	r.t.Helper()
	r.until("it waits", func(s ctl.Status) bool {
		if s.Cluster != "" {
			r.t.Fatalf("it is in cluster %s, founded or joined", s.Cluster)
		}
		return s.Uptime >= uptime && strings.Contains(s.IPAM.Waiting, words)
	})
}

// b is a member whose cluster has no majority; then it has lost its state, and only its
// kernel knows. Either way it would be half of the two that a needs for a second one.
func TestAHostOfAClusterHasNoPartInFoundingAnother(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 3})
	var all []string
	for _, h := range lab.Hosts() {
		all = append(all, h.Addr().String())
	}
	together := func(name string) func(*Config) {
		return func(c *Config) { c.Name, c.Bootstrap, c.Peers = name, []string{"a", "b"}, all }
	}
	c := startOn(t, lab.Host(2), as("c"))
	c.until("c founds", ready)
	b := startOn(t, lab.Host(1), func(c *Config) { c.Name, c.Peers = "b", all[2:] })
	first := b.until("b joins, and its kernel leads to c", func(s ctl.Status) bool {
		return ready(s) && len(s.Overlay) == 1 && slices.ContainsFunc(s.DNS.Names, func(n ctl.NameEntry) bool { return n.Host == "c" })
	}).Cluster
	must(t, netlab.Wait(patience, "b's kernel leads to c", func() error {
		out, err := lab.Host(1).Run("bridge", "fdb", "show", "dev", DefaultDevice)
		if err == nil && !strings.Contains(out, "dst "+all[2]) {
			err = errors.New(out)
		}
		return err
	}))
	must(t, c.Kill())
	must(t, b.Signal(unix.SIGTERM))
	b.ends()

	b = startOn(t, lab.Host(1), together("b"))
	b.until("b is back", ready)
	a := startOn(t, lab.Host(0), together("a"))
	a.until("a reaches b", peer("connected", "b", ""))
	a.waitsFor("if a cluster stands already", 5*time.Second)

	must(t, b.Kill())
	lab.Host(1).MustRun(t, "sh", "-c", "rm -rf /var/lib/weave/*")
	b = startOn(t, lab.Host(1), together("b"))
	b.waitsFor("this host takes no part in founding", 5*time.Second)
	a.waitsFor("host b has not been met yet", 0)

	must(t, c.Restart())
	for _, r := range []*lone{a, b, c} {
		if s := r.until("it is ready", ready); s.Cluster != first {
			t.Errorf("%s is in cluster %s, and %s stands", r.config.Name, s.Cluster, first)
		}
	}
}

func TestHostsThatFoundTogetherLookAtTheirRoutesFirst(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	h.MustRun(t, "ip", "route", "add", "10.40.0.0/16", "dev", "eth0")
	for range 2 { // the next start is no first one
		r := startOn(t, h, func(c *Config) { c.Name, c.Bootstrap = "a", []string{"a", "b"} })
		r.ends()
		if !strings.Contains(r.Log(), "range 10.32.0.0/12 overlaps route 10.40.0.0/16") {
			t.Errorf("it does not say why it ends:\n%s", r.Log())
		}
	}
}

func TestAListOfOneHostFoundsNothing(t *testing.T) {
	c := Defaults()
	for names, refused := range map[string]bool{"a": true, "a a": true, "a b": false} {
		c.Bootstrap = strings.Fields(names)
		if err := c.Validate(); (err != nil) != refused || refused && !strings.Contains(err.Error(), "without --bootstrap and PEERs") {
			t.Errorf("%q: %v", names, err)
		}
	}
}
