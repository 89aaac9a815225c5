package router

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// call calls a router, and gives the answer.
func call[T any](r *lone, path string, in any) (out T, err error) {
	err = ctl.New(r.config.Socket, 0).Call(r.t.Context(), path, in, &out)
	return out, err
}

// cluster3 are three hosts of a cluster with three voters, which know each other.
func cluster3(t *testing.T) (lab *netlab.Lab, all []*lone) {
	t.Helper()
	lab = netlab.New(t, netlab.Options{Hosts: 3})
	for i := range 3 {
		all = append(all, startOn(t, lab.Host(i), func(c *Config) {
			for j := range i {
				c.Peers = append(c.Peers, lab.Host(j).Addr().String())
			}
		}))
		all[i].until("it is ready", ready)
	}
	for i, r := range all {
		r.until("all know all, and all vote", func(s ctl.Status) bool { return len(s.IPAM.Voters) == 3 && len(s.Overlay) == 2 })
		must(t, netlab.Wait(patience, "the firewall knows all", func() error {
			out, err := lab.Host(i).Run("nft", "list", "set", "inet", "weave", "peers4")
			if err == nil && strings.Count(out, ",") != 2 {
				err = fmt.Errorf("%s", out)
			}
			return err
		}))
	}
	return lab, all
}

// create makes a network and waits until it stands on every host that is to have it.
func create(t *testing.T, on *lone, in ctl.NetCreateRequest, everywhere ...*lone) ctl.Net {
	t.Helper()
	n, err := call[ctl.Net](on, ctl.PathNetCreate, in)
	must(t, err)
	for _, r := range everywhere {
		must(t, netlab.Wait(patience, "the network stands", func() error {
			got, err := call[ctl.Net](r, ctl.PathNetInspect, ctl.NetRef{Ref: n.ID})
			if err == nil && got.State != netReady {
				err = fmt.Errorf("%+v", got)
			}
			if err == nil && r == on {
				n = got // a busy host may answer before it stands
			}
			return err
		}))
	}
	return n
}

// watch notes what the hosts look like; what it gives fails the test unless they look so again.
func watch(t *testing.T, lab *netlab.Lab) func() {
	return lab.Watch(t, netlab.WorldOptions{Ignore: []string{"file /var/lib/weave/", "file /run/weave/claims/resting", "file /run/weave/witness"}})
}

// plug makes a veth on a network's bridge, as weave-net would, with its claim.
func plug(t *testing.T, r *lone, h *netlab.Host, n ctl.Net, container string) (attachment.Key, netip.Prefix) {
	t.Helper()
	k := attachment.Key{Network: n.Name, ContainerID: container, IfName: "eth0"}
	got, err := call[ctl.AllocateReply](r, ctl.PathAllocate, ctl.AllocateRequest{Key: k, Network: n.Name, Decider: ctl.DecidedByVeth})
	must(t, err)
	p := got.Addresses[0].Address
	alias, err := attachment.Alias{Hash: k.Hash(), Network: n.Name, MAC: k.MAC([]netip.Prefix{p}), Addrs: []netip.Prefix{p}}.Encode()
	must(t, err)
	h.MustRun(t, "ip", "link", "add", k.Veth(), "type", "veth", "peer", "name", "in"+container)
	h.MustRun(t, "ip", "link", "set", k.Veth(), "alias", alias, "master", n.Bridge)
	_, err = call[struct{}](r, ctl.PathCommit, ctl.CommitRequest{Key: k, Network: n.Name, MAC: k.MAC([]netip.Prefix{p}).String(), Addresses: []netip.Prefix{p}})
	must(t, err)
	return k, p
}

func TestANetworkComesToEveryHostAndGoesFromAllOfThem(t *testing.T) {
	lab, all := cluster3(t)
	six := create(t, all[0], ctl.NetCreateRequest{IPv6: true}, all...) // with the first of IPv6 each host begins to forward that
	_, err := call[ctl.NetRemoved](all[1], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: six.ID[:10]})
	must(t, err)
	vanishes(t, six, all...)
	unchanged := watch(t, lab)
	began := time.Now()
	n := create(t, all[0], ctl.NetCreateRequest{IPv6: true, Labels: map[string]string{"team": "a"}}, all...)
	t.Logf("%s stands on three hosts after %v", n.Name, time.Since(began))
	if n.State != netReady || len(n.ID) != 64 || len(n.Subnets) != 2 || n.Driver != ctl.DriverWeave || n.Labels["team"] != "a" || n.Bridge != "wv-"+n.ID[:12] {
		t.Errorf("%+v", n)
	}
	_, err = call[ctl.Net](all[1], ctl.PathNetCreate, ctl.NetCreateRequest{Name: n.Name})
	coded(t, err, ctl.CodeInvalidConfig, n.Name)
	_, p := plug(t, all[1], lab.Host(1), n, "c1")
	for _, r := range all {
		must(t, netlab.Wait(patience, "every host shows the endpoint", func() error {
			got, err := call[ctl.NetList](r, ctl.PathNets, nil)
			if err == nil && (len(got.Networks) != 2 || !hasEndpoint(got.Networks, n.Name, "h1", p)) {
				err = fmt.Errorf("%+v", got)
			}
			return err
		}))
	}
	_, err = call[ctl.NetRemoved](all[0], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: n.Name})
	coded(t, err, ctl.CodeInUse, "host h1", p.String(), "--force")
	_, err = call[ctl.NetRemoved](all[1], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: n.Name})
	coded(t, err, ctl.CodeInUse, "container c1 on host h1")
	relabelled, err := call[ctl.Net](all[2], ctl.PathNetLabel, ctl.NetLabelRequest{Ref: n.ID[:8], Set: map[string]string{"x": "y"}, Drop: []string{"team"}})
	if err != nil || len(relabelled.Labels) != 1 || relabelled.Labels["x"] != "y" {
		t.Errorf("%+v, %v", relabelled, err)
	}
	lab.Host(1).MustRun(t, "ip", "link", "del", "inc1")
	must(t, netlab.Wait(patience, "it can be removed", func() error {
		_, err := call[ctl.NetRemoved](all[0], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: n.ID})
		return err
	}))
	vanishes(t, n, all...)
	unchanged()
}

// vanishes waits until no host knows a network.
func vanishes(t *testing.T, n ctl.Net, all ...*lone) {
	t.Helper()
	for _, r := range all {
		must(t, netlab.Wait(patience, "the network is gone", func() error {
			got, err := call[ctl.NetList](r, ctl.PathNets, nil)
			if err == nil && slices.ContainsFunc(got.Networks, func(o ctl.Net) bool { return o.ID == n.ID }) {
				err = fmt.Errorf("%+v", got)
			}
			return err
		}))
	}
}

func hasEndpoint(all []ctl.Net, network, host string, p netip.Prefix) bool {
	return slices.ContainsFunc(all, func(n ctl.Net) bool {
		return n.Name == network && slices.ContainsFunc(n.Endpoints, func(e ctl.NetEndpoint) bool {
			return e.Host == host && slices.Contains(e.Addresses, p) && e.MAC != "" && (e.ContainerID == "") == (e.ID == "")
		})
	})
}

func TestANetworkThatIsRemovedByForceDetachesItsContainersEverywhere(t *testing.T) {
	lab, all := cluster3(t)
	unchanged := watch(t, lab)
	n := create(t, all[0], ctl.NetCreateRequest{Name: "n"}, all...)
	plug(t, all[1], lab.Host(1), n, "c1")
	plug(t, all[2], lab.Host(2), n, "c2")
	must(t, all[2].Kill())
	out, err := call[ctl.NetRemoved](all[0], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n", Force: true})
	if err != nil || !slices.Contains(out.Waiting, "h2") { // h1 may still be at it
		t.Errorf("with h2 away: %+v, %v", out, err)
	}
	must(t, netlab.Wait(patience, "h1 has nothing of it and waits for h2 alone", func() error {
		got, err := call[ctl.Net](all[1], ctl.PathNetInspect, ctl.NetRef{Ref: "n"})
		if err == nil && (got.State != netRemoving || !strings.HasPrefix(got.Waiting, "h2:") || !strings.Contains(got.Waiting, "weave rmpeer --destroyed h2")) {
			err = fmt.Errorf("%+v", got)
		}
		if links := lab.Host(1).MustRun(t, "ip", "-o", "link"); err == nil && (strings.Contains(links, "inc1") || strings.Contains(links, n.Bridge)) {
			err = fmt.Errorf("on h1 there still is\n%s", links)
		}
		return err
	}))
	must(t, all[2].Restart())
	vanishes(t, n, all...)
	unchanged()
}

func TestWithoutAMajorityAChangeIsRefusedAtOnceAndTheRestGoesOn(t *testing.T) {
	lab, all := cluster3(t)
	n := create(t, all[0], ctl.NetCreateRequest{Name: "n"}, all...)
	must(t, all[1].Kill())
	must(t, all[2].Kill())
	all[0].until("it knows that it is alone", func(s ctl.Status) bool { return strings.Contains(s.IPAM.Waiting, "no majority") })
	began := time.Now()
	_, err := call[ctl.Net](all[0], ctl.PathNetCreate, ctl.NetCreateRequest{Name: "m"})
	coded(t, err, ctl.CodeNoMajority, "h1", "h2", "no majority")
	_, err = call[ctl.NetRemoved](all[0], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n"})
	coded(t, err, ctl.CodeNoMajority)
	t.Logf("refused within %v", time.Since(began))
	plug(t, all[0], lab.Host(0), n, "c1")
	got, err := call[ctl.Net](all[0], ctl.PathNetInspect, ctl.NetRef{Ref: "n"})
	if err != nil || got.State != netReady || len(got.Endpoints) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestANetworkOfOneHostIsOnThatHostAlone(t *testing.T) {
	lab, all := cluster3(t)
	unchanged := watch(t, lab)
	n := create(t, all[0], ctl.NetCreateRequest{Name: "local", Driver: ctl.DriverSimpleBridge, Internal: true}, all[0])
	if n.Host != "h0" || n.Bridge != "sb-"+n.ID[:12] {
		t.Errorf("%+v", n)
	}
	must(t, netlab.Wait(patience, "the others have heard of it", func() error {
		got, err := call[ctl.Net](all[1], ctl.PathNetInspect, ctl.NetRef{Ref: "local"})
		if err == nil && (got.State != netElsewhere || got.Bridge != "") {
			err = fmt.Errorf("%+v", got)
		}
		return err
	}))
	k := attachment.Key{Network: "x", ContainerID: "c", IfName: "eth0"}
	in := ctl.AllocateRequest{Key: k, Network: "local", Decider: ctl.DecidedByVeth}
	_, err := call[ctl.AllocateReply](all[1], ctl.PathAllocate, in)
	coded(t, err, ctl.CodeWrongHost, "host h0")
	got, err := call[ctl.AllocateReply](all[0], ctl.PathAllocate, in)
	if err != nil || len(got.Addresses) != 1 || got.Addresses[0].Gateway.IsValid() {
		t.Errorf("of an internal network: %+v, %v", got, err)
	}
	_, err = call[struct{}](all[0], ctl.PathCommit, ctl.CommitRequest{Key: k, MAC: "02:00:00:00:00:09", Addresses: []netip.Prefix{got.Addresses[0].Address}})
	must(t, err)
	if all, err := call[ctl.NetList](all[0], ctl.PathNets, nil); err != nil || !hasEndpoint(all.Networks, "local", "h0", got.Addresses[0].Address) {
		t.Errorf("%+v, %v", all, err)
	}
	_, err = call[struct{}](all[0], ctl.PathRelease, ctl.KeyRequest{Key: k})
	must(t, err)
	links, rules := lab.Host(0).MustRun(t, "ip", "-o", "link"), lab.Host(0).MustRun(t, "nft", "list", "table", "inet", "weave")
	if strings.Contains(links, "wx-") || strings.Contains(lab.Host(1).MustRun(t, "ip", "-o", "link"), "sb-") || strings.Count(rules, n.Bridge) < 3 {
		t.Errorf("links\n%s\nrules\n%s", links, rules)
	}
	s := all[0].until("its status has the network", func(s ctl.Status) bool { return len(s.Networks) == 2 })
	for _, n := range s.Networks {
		if (n.Device == "") != (n.Name == "local") {
			t.Errorf("network %s has the tunnel %q", n.Name, n.Device)
		}
	}
	if i := slices.IndexFunc(s.IPAM.Subnets, func(u ctl.SubnetUse) bool { return u.Network == "local" }); i < 0 || s.IPAM.Subnets[i].Host != "h0" || len(s.IPAM.Subnets[i].Hosts) != 1 {
		t.Errorf("its addresses are %+v", s.IPAM.Subnets)
	}
	if slices.ContainsFunc(s.Overlay, func(o ctl.Remote) bool { return o.Network == "local" }) {
		t.Errorf("another host has a part of it: %+v", s.Overlay)
	}
	_, err = call[ctl.NetRemoved](all[2], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "local"})
	must(t, err)
	vanishes(t, n, all...)
	unchanged()
}

func TestADefinitionThatCannotBeIsRefusedBeforeTheLedgerIsAsked(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	r := startOn(t, h, func(*Config) {})
	r.until("it is ready", ready)
	h.MustRun(t, "ip", "route", "add", "10.48.0.0/13", "dev", "eth0")
	h.MustRun(t, "mkdir", "-p", "/etc/cni/net.d")
	must(t, h.WriteFile("/etc/cni/net.d/87-podman.conflist", `{"name":"podman","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.88.0.0/16"}]]}}]}`, 0o644))
	for _, c := range []struct {
		in    ctl.NetCreateRequest
		code  uint
		words string
	}{
		{ctl.NetCreateRequest{MTU: 9000}, ctl.CodeNotSupported, "--mtu"},
		{ctl.NetCreateRequest{Encrypt: true}, ctl.CodeNotSupported, "encrypted"},
		{ctl.NetCreateRequest{Driver: "macvlan"}, ctl.CodeNotSupported, "simplebridge"},
		{ctl.NetCreateRequest{Name: "0123456789abcdef"}, ctl.CodeInvalidConfig, "taken for an id"},
		{ctl.NetCreateRequest{Name: "10.2.45.3"}, ctl.CodeInvalidConfig, "taken for an address"},
		{ctl.NetCreateRequest{Name: "podman"}, ctl.CodeInvalidConfig, "runtimes have for themselves"},
		{ctl.NetCreateRequest{Name: "n", Labels: map[string]string{"x y": ""}}, ctl.CodeInvalidConfig, "without blanks"},
		{ctl.NetCreateRequest{Name: "weave"}, ctl.CodeInvalidConfig, "weave already"},
		{ctl.NetCreateRequest{Name: "n", Subnets: []netip.Prefix{netip.MustParsePrefix("10.32.4.0/24")}}, ctl.CodeInvalidConfig, "10.32.0.0/12 of network weave: choose another --subnet"},
		{ctl.NetCreateRequest{Name: "n", Subnets: []netip.Prefix{netip.MustParsePrefix("10.49.4.0/24")}}, ctl.CodeInvalidConfig, "device eth0"},
		{ctl.NetCreateRequest{Name: "n", Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.4.0/24")}}, ctl.CodeInvalidConfig, "10.88.0.0/16 of network \"podman\" in /etc/cni/net.d/87-podman.conflist"},
		{ctl.NetCreateRequest{Name: "n", Subnets: []netip.Prefix{netip.MustParsePrefix("10.99.4.1/24")}}, ctl.CodeInvalidConfig, "10.99.4.0/24"},
		{ctl.NetCreateRequest{Name: "n", Subnets: []netip.Prefix{netip.MustParsePrefix("10.99.4.0/30")}}, ctl.CodeInvalidConfig, "too small"},
		{ctl.NetCreateRequest{Name: "n", Subnets: []netip.Prefix{netip.MustParsePrefix("224.0.0.0/24")}}, ctl.CodeInvalidConfig, "overlaps 224.0.0.0/4"},
		{ctl.NetCreateRequest{Name: "n", Labels: map[string]string{"a\n": ""}}, ctl.CodeInvalidConfig, "label"},
	} {
		_, err := call[ctl.Net](r, ctl.PathNetCreate, c.in)
		coded(t, err, c.code, c.words)
	}
	_, err := call[ctl.NetRemoved](r, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "weave", Force: true})
	coded(t, err, ctl.CodeInvalidConfig, "default network")
	n := create(t, r, ctl.NetCreateRequest{Name: "n"}, r)
	if len(n.Subnets) != 1 || n.Subnets[0] != netip.MustParsePrefix("10.56.0.0/20") {
		t.Errorf("chosen beside the route: %v", n.Subnets)
	}
	if b, _ := json.Marshal(n); !strings.Contains(string(b), `"endpoints":[]`) {
		t.Errorf("%s", b)
	}
	must(t, r.Signal(unix.SIGKILL))
	must(t, r.Kill())
	must(t, r.Restart())
	r.until("it is ready", ready)
	if again := create(t, r, ctl.NetCreateRequest{}, r); again.Subnets[0] != netip.MustParsePrefix("10.56.16.0/20") {
		t.Errorf("%v", again.Subnets)
	}
	got, err := call[ctl.Net](r, ctl.PathNetInspect, ctl.NetRef{Ref: "n"})
	if err != nil || got.ID != n.ID {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestANetworkThatWaitsForADestroyedHostGoesWhenThatIsRetired(t *testing.T) {
	_, all := cluster3(t)
	n := create(t, all[0], ctl.NetCreateRequest{Name: "n"}, all...)
	must(t, all[2].Kill())
	all[0].until("it misses h2", problem("unreachable"))
	out, err := call[ctl.NetRemoved](all[0], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n"})
	if err != nil || !slices.Equal(out.Waiting, []string{"h2"}) {
		t.Errorf("with h2 away: %+v, %v", out, err)
	}
	_, err = call[ctl.Net](all[1], ctl.PathNetCreate, ctl.NetCreateRequest{Name: "m", Subnets: n.Subnets})
	coded(t, err, ctl.CodeInvalidConfig, "network n")
	_, err = call[ctl.Retired](all[0], ctl.PathRetire, ctl.RetireRequest{Name: "h2"})
	must(t, err)
	vanishes(t, n, all[:2]...)
	if m := create(t, all[1], ctl.NetCreateRequest{Name: "n", Subnets: n.Subnets}, all[:2]...); m.ID == n.ID {
		t.Errorf("%+v", m)
	}
}
