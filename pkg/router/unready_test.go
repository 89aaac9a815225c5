package router

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestANetworkThatIsNotReadyOnAHostIsAProblemOfThatHostUntilItIsCured(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	a := startOn(t, lab.Host(0), func(*Config) {})
	a.until("it is ready", ready)
	b := startOn(t, lab.Host(1), func(c *Config) { c.Peers = []string{lab.Host(0).Addr().String()} })
	b.until("it is ready", ready)
	lab.Host(1).MustRun(t, "ip", "route", "add", "10.88.0.0/16", "dev", "eth0")
	create(t, a, ctl.NetCreateRequest{Name: "pods", Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.4.0/24")}}, a)
	about := func(s ctl.Status) (out []string) {
		return slices.DeleteFunc(slices.Clone(s.Problems), func(p string) bool { return !strings.Contains(p, `"pods"`) })
	}
	s := b.until("it says that the network is not ready", func(s ctl.Status) bool { return len(about(s)) > 0 })
	for _, words := range []string{"is not ready on this host", "overlaps route 10.88.0.0/16 of this host (device eth0)", "weave net rm pods", "another --subnet"} {
		if got := about(s); len(got) != 1 || !strings.Contains(got[0], words) || strings.Contains(got[0], "another --range") {
			t.Errorf("want %q in %q", words, got)
		}
	}
	if s.Error != nil {
		t.Errorf("the other network is no worse for it: %v", s.Error)
	}
	if s, err := a.status(); err != nil || len(about(s)) > 0 {
		t.Errorf("where it stands: %q, %v", about(s), err)
	}
	lab.Host(1).MustRun(t, "ip", "route", "del", "10.88.0.0/16")
	b.until("nothing is wrong with it any more", func(s ctl.Status) bool { return len(about(s)) == 0 && len(s.Networks) == 2 })
}

func TestManyNetworksThatAreNotReadyAreFewLines(t *testing.T) {
	if got := ailingProblems(nil); len(got) != 0 {
		t.Errorf("got %q", got)
	}
	all := make([]ailing, 300)
	all[0] = ailing{"blue", true, "no device"}
	got := ailingProblems(all)
	if len(got) != 4 || got[0] != `network "blue" is not as it should be on this host: no device` || !strings.HasPrefix(got[3], "297 networks more are likewise") {
		t.Errorf("got %q", got)
	}
}

func TestOnlyARouteThatLeadsElsewhereOverlaps(t *testing.T) {
	want := []netip.Prefix{netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("10.2.0.0/16")}
	for route, at := range map[string]string{"0.0.0.0/0": "eth0", "10.3.0.0/16": "eth0", "10.2.0.0/16": "wv-1", "fd00:1::/64": "eth0"} {
		if e := overlap([]netdev.HostRoute{{Dst: netip.MustParsePrefix(route), Device: at}}, want, "wv-1"); e != nil {
			t.Errorf("%s: %v", route, e)
		}
	}
	for _, route := range []string{"10.2.3.0/24", "10.0.0.0/8", "fd00::1/128"} {
		if e := overlap([]netdev.HostRoute{{Dst: netip.MustParsePrefix(route), Device: "eth0"}}, want, "wv-1"); e == nil || !strings.Contains(e.Error(), route) {
			t.Errorf("%s: %v", route, e)
		}
	}
	if (&Router{config: Config{ForceRange: true}}).checkHere(ledger.Network{Name: DefaultNetwork, Subnets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}) != nil {
		t.Error("with --force-range")
	}
}
