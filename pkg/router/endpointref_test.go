package router

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func networkOfID(name, id string, subnets ...string) ledger.Network {
	n := ledger.Network{Name: name, ID: id + strings.Repeat("0", 64-len(id)), Driver: "weave"}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	return n
}

func TestAnEndpointIsOnTheNetworkThatItNamesOrLiesIn(t *testing.T) {
	networks := []ledger.Network{
		networkOfID("weave", "0123456789ab0", "10.32.0.0/12", "fd00::/48"),
		networkOfID("net1", "0123456789ab1", "10.2.0.0/16", "fd01::/64"),
		networkOfID("0123456789", "feedfeedfeed", "10.3.0.0/24"),
		networkOfID("halves", "aaaaaaaaaaaa", "10.4.0.0/25", "10.4.0.128/25"),
	}
	for text, want := range map[string]string{
		"net1": "net1", "weave": "weave", "0123456789": "0123456789",
		"0123456789ab1": "net1", "0123456789AB1": "net1", "feedfeedfeed": "0123456789", networks[0].ID: "weave",
		"10.2.45.3/24": "net1", "10.2.45.0/24": "net1", "10.2.0.0/16": "net1", "10.2.3.4/16": "net1", "10.2.3.4/32": "net1",
		"10.33.0.0/16": "weave", "fd00:0:0:7::/64": "weave", "fd01::5/64": "net1", "[fd01::5]/128": "net1", "10.4.0.128/26": "halves",
	} {
		e, err := endpoint.ParseBare(text)
		must(t, err)
		if got, err := placeOf(networks, e); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]struct {
		code  uint
		words []string
	}{
		"10.99.45.3/24": {ctl.CodeInvalidConfig, []string{"no network holds 10.99.45.0/24: weave net create --subnet 10.99.45.0/24"}},
		"10.99.45.3/32": {ctl.CodeInvalidConfig, []string{"no network holds 10.99.45.3/32"}},
		"10.0.0.0/8":    {ctl.CodeInvalidConfig, []string{"no network holds 10.0.0.0/8: network ", " has a part of it, 10.", "give a prefix inside that"}},
		"10.4.0.0/24":   {ctl.CodeInvalidConfig, []string{"network halves has a part of it"}},
		"fd02::/64":     {ctl.CodeInvalidConfig, []string{"no network holds fd02::/64"}},
		"net2":          {ctl.CodeInvalidConfig, []string{`no network is called "net2"`, "there are 0123456789 (feedfeedfeed), halves", "net1 (", "weave ("}},
		"feed":          {ctl.CodeInvalidConfig, []string{`no network is called "feed"`}}, // too short for an id
		"0123456789ab":  {ctl.CodeAmbiguous, []string{"2 networks have an id that begins", "net1 (0123456789ab), weave (0123456789ab)"}},
	} {
		e, err := endpoint.ParseBare(text)
		must(t, err)
		got, err := placeOf(networks, e)
		var coded *ctl.Error
		if !errors.As(err, &coded) || coded.Code != want.code {
			t.Errorf("%s: got %q, %v", text, got, err)
			continue
		}
		for _, w := range want.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", text, err, w)
			}
		}
	}
}

// caller calls a router.
type caller func(path string, in, out any) error

func callerOf(r *lone) caller {
	return func(path string, in, out any) error {
		return ctl.New(r.config.Socket, 0).Call(r.t.Context(), path, in, out)
	}
}

// withNet1 starts a router with a network net1 of two families besides weave.
func withNet1(t *testing.T, h *netlab.Host) (r *lone, call caller, id string) {
	t.Helper()
	r = startOn(t, h, func(*Config) {})
	r.until("it is ready", ready)
	call = callerOf(r)
	var made ctl.Net
	must(t, call(ctl.PathNetCreate, ctl.NetCreateRequest{Name: "net1", Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("fd01::/64")}}, &made))
	r.until("both networks stand", func(s ctl.Status) bool { return s.Error == nil && len(s.Networks) == 2 })
	return r, call, made.ID
}

func TestTheRouterTellsTheNetworkOfAnEndpoint(t *testing.T) {
	_, call, id := withNet1(t, netlab.New(t, netlab.Options{}).Host(0))
	for _, text := range []string{"weave://net1", id, id[:12], "10.2.45.0/24", "weave://[fd01::7]/64"} {
		var n ctl.Network
		if err := call(ctl.PathNetwork, ctl.NetworkRequest{Name: "weave", Endpoint: text}, &n); err != nil || n.Name != "net1" || n.ID != id || n.Driver != "weave" || n.Bridge != "wv-"+id[:12] {
			t.Errorf("%s: got %+v, %v", text, n, err)
		}
	}
	k := attachment.Key{Network: "weave", ContainerID: "c", IfName: "eth0"}
	for _, in := range []ctl.NetworkRequest{{Name: "weave"}, {Name: "weave", Endpoint: "weave://"}, {Name: "net1", Endpoint: "weave"}, {Name: "weave", Key: k}, {Name: "none", Endpoint: "10.32.0.0/13"}} {
		var n ctl.Network
		if err := call(ctl.PathNetwork, in, &n); err != nil || n.Name != "weave" {
			t.Errorf("%+v: got %+v, %v", in, n, err)
		}
	}
}

func TestTheRouterAttachesToTheNetworkOfAnEndpoint(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	r, call, id := withNet1(t, h)
	k := attachment.Key{Network: "weave", ContainerID: "c", IfName: "eth0"}
	var got ctl.AllocateReply
	in := ctl.AllocateRequest{Key: k, Network: "weave", Endpoint: "10.2.45.0/24", Subnet: "10.32.4.0/24", Exclude: []string{"10.32.4.7"}, Decider: ctl.DecidedByVeth}
	fixed := in
	fixed.Fixed = true
	if err := call(ctl.PathAllocate, fixed, &got); err == nil || !strings.Contains(err.Error(), `10.2.45.0/24 is on network "net1": and this container's interface is on network "weave"`) {
		t.Errorf("an interface that is elsewhere: %v", err)
	}
	must(t, call(ctl.PathAllocate, in, &got))
	if a := got.Addresses; got.Network != "net1" || len(a) != 2 || a[0].Address.String() != "10.2.45.1/24" || !netip.MustParsePrefix("10.2.0.0/16").Contains(a[0].Gateway) || a[1].Address.Bits() != 64 {
		t.Fatalf("got %+v", got)
	}
	addrs := []netip.Prefix{got.Addresses[0].Address, got.Addresses[1].Address}
	mac := k.MAC(addrs)
	alias, err := attachment.Alias{Hash: k.Hash(), Network: "weave", MAC: mac, Addrs: addrs}.Encode()
	must(t, err)
	h.MustRun(t, "ip", "link", "add", k.Veth(), "type", "veth", "peer", "name", "inside")
	h.MustRun(t, "ip", "link", "set", k.Veth(), "alias", alias, "master", "wv-"+id[:12])
	must(t, call(ctl.PathCommit, ctl.CommitRequest{Key: k, Network: "net1", MAC: mac.String(), Addresses: addrs}, nil))

	// Whatever the endpoint says by then, the attachment is where it is.
	for range 2 {
		for _, text := range []string{"", "weave://weave", "weave://none", "not://one"} {
			var n ctl.Network
			if err := call(ctl.PathNetwork, ctl.NetworkRequest{Name: "weave", Endpoint: text, Key: k}, &n); err != nil || n.Name != "net1" {
				t.Errorf("%q: got %+v, %v", text, n, err)
			}
		}
		must(t, r.Kill())
		r = startOn(t, h, func(c *Config) { c.Name = r.config.Name })
		call = callerOf(r)
		r.until("it is back, with the length", func(s ctl.Status) bool {
			return s.Error == nil && len(s.Networks) == 2 && len(s.Attachments) == 1 && s.Attachments[0].Addresses[0] == addrs[0]
		})
	}
	must(t, call(ctl.PathDetach, ctl.KeyRequest{Key: k}, nil))
	must(t, call(ctl.PathRelease, ctl.KeyRequest{Key: k}, nil))
}
