package router

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// peers calls PathConnect or PathForgetPeer.
func (r *lone) peers(path string, names ...string) ([]ctl.Target, error) {
	var out ctl.PeersReply
	err := ctl.New(r.config.Socket, 0).Call(r.t.Context(), path, ctl.PeersRequest{Peers: names}, &out)
	return out.Peers, err
}

func (r *lone) targets() []ctl.Target {
	r.t.Helper()
	s, err := r.status()
	must(r.t, err)
	return s.Targets
}

func TestAPeerThatIsNamedToARunningRouterIsDialledAndKeptUntilItIsForgotten(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	const nobody = "198.51.100.1" // of the start
	a := startOn(t, lab.Host(0), func(*Config) {})
	a.until("a is ready", ready)
	h, at := lab.Host(1), lab.Host(0).Addr().String()
	b := startOn(t, h, func(c *Config) { c.Peers = []string{nobody} })
	b.until("b waits", func(s ctl.Status) bool { return s.Error != nil })

	got, err := b.peers(ctl.PathConnect, at, at+":6783")
	if want := []ctl.Target{{Peer: at + ":6783"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	b.until("b has joined through the one that was named", ready)
	if got, err := b.peers(ctl.PathConnect, at); err != nil || !got[0].Unchanged {
		t.Errorf("named again: %+v, %v", got, err)
	}
	all := []ctl.Target{{Peer: nobody + ":6783", AtStart: true}, {Peer: at + ":6783"}}
	if got := b.targets(); !reflect.DeepEqual(got, all) {
		t.Errorf("targets %+v, want %+v", got, all)
	}

	must(t, b.Stop())
	h.MustRun(t, "sh", "-c", "cd /var/lib/weave && rm identity ledger.db && rm -f known-hosts")
	must(t, b.Restart())
	b.until("b has joined again, with that alone", ready)

	got, err = b.peers(ctl.PathForgetPeer, at, nobody)
	if want := []ctl.Target{{Peer: at + ":6783", Forgotten: true}, {Peer: nobody + ":6783", AtStart: true, Forgotten: true}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, want := b.targets(), []ctl.Target{{Peer: nobody + ":6783", AtStart: true, Forgotten: true}}; !reflect.DeepEqual(got, want) {
		t.Errorf("targets %+v, want %+v", got, want)
	}
	if out, err := h.Run("cat", "/var/lib/weave/"+targetsFile); err == nil {
		t.Errorf("on disk is %s", out)
	}
	b.until("what was forgotten is not shown as dialled", func(s ctl.Status) bool { return !strings.Contains(fmt.Sprint(s.Peers), nobody) })
	if s, err := b.status(); err != nil || s.Error != nil || !peer("connected", "h0", "")(s) {
		t.Errorf("the connection that stood is gone: %+v, %v", s.Peers, err)
	}
	must(t, b.Stop())
	must(t, b.Restart())
	b.until("that of the start is back", func(s ctl.Status) bool { return s.Error == nil && reflect.DeepEqual(s.Targets, all[:1]) })

	if _, err := b.peers(ctl.PathConnect, at); err != nil {
		t.Fatal(err)
	}
	h.MustRun(t, "test", "-s", "/var/lib/weave/"+targetsFile)
	must(t, ctl.New(b.config.Socket, 0).Call(t.Context(), ctl.PathReset, ctl.ResetRequest{Stop: true}, nil))
	b.ends()
	if out, err := h.Run("cat", "/var/lib/weave/"+targetsFile); err == nil {
		t.Errorf("a reset leaves %s", out)
	}
}

func TestAPeerThatWillNotDoIsRefusedAndThenNoneIsNamed(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 1})
	a := startOn(t, lab.Host(0), func(*Config) {})
	a.until("a is ready", ready)
	own := lab.Host(0).Addr().String()
	for _, c := range []struct {
		path, name, words string
	}{
		{ctl.PathConnect, own, "is this host itself"},
		{ctl.PathConnect, own + ":6783", "is this host itself"},
		{ctl.PathConnect, "localhost", "is this host itself"},
		{ctl.PathConnect, "no-such-host.invalid", "look up no-such-host.invalid"},
		{ctl.PathConnect, "b,c", "several with blanks"},
		{ctl.PathConnect, "b:port", "want HOST or HOST:PORT"},
		{ctl.PathConnect, "", "want HOST or HOST:PORT"},
		{ctl.PathForgetPeer, "198.51.100.7", "198.51.100.7:6783 is no PEER of this router: this router was told of none"},
	} {
		names := []string{c.name}
		if c.path == ctl.PathConnect {
			names = []string{"198.51.100.1", c.name}
		}
		if got, err := a.peers(c.path, names...); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s %q: %+v, %v, want %q", c.path, names, got, err, c.words)
		}
	}
	if _, err := a.peers(ctl.PathConnect); err == nil {
		t.Error("nobody named, and that is no error")
	}
	if got := a.targets(); len(got) != 0 {
		t.Errorf("named all the same: %+v", got)
	}
	var many []string
	for i := range ctl.MaxTargets + 1 {
		many = append(many, fmt.Sprintf("198.51.100.%d", i+1))
	}
	if _, err := a.peers(ctl.PathConnect, many...); err == nil || !strings.Contains(err.Error(), "at most 64") {
		t.Errorf("so many are too many: %v", err)
	}
	if _, err := a.peers(ctl.PathConnect, own+":7000"); err != nil {
		t.Errorf("another port of this host is another router's: %v", err)
	}
}
