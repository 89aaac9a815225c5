package router

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/overlay"
)

func addrOf(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 32, 0, last}) }

// owned is a ledger of the network in which member 2, "b", owns 10.32.0.4.
func owned(t *testing.T) *ledger.State {
	t.Helper()
	s := ledger.New()
	n := ledger.Network{Name: DefaultNetwork, Driver: "weave", MTU: 1400, Subnets: []netip.Prefix{netip.MustParsePrefix(DefaultRange)}}
	for i, c := range []ledger.Command{
		{Found: &ledger.Found{Cluster: "c", Network: n}},
		{Join: &ledger.Join{Member: ledger.Member{ID: 1, Name: "self"}}},
		{Join: &ledger.Join{Member: ledger.Member{ID: 2, Name: "b"}}},
		{TakeAddr: &ledger.TakeAddr{ID: 1, Network: DefaultNetwork, Addr: addrOf(3)}},
		{TakeAddr: &ledger.TakeAddr{ID: 2, Network: DefaultNetwork, Addr: addrOf(4)}},
	} {
		must(t, s.Apply(uint64(i+1), c).Error())
	}
	return s
}

func TestAnAddressInAnothersBlockOrInUseElsewhereIsContested(t *testing.T) {
	state := owned(t)
	elsewhere := map[netip.Addr]gossip.Peer{addrOf(3): "b"}
	for last, want := range map[byte][]ctl.Contested{
		3: {{Address: addrOf(3), UsedBy: "b"}},
		4: {{Address: addrOf(4), Owner: "b"}},
		5: nil, // of the pool: it is asked for at once
	} {
		if got := contested(claim("c", ctl.DecidedByVeth, last), 1, state, elsewhere); !slices.Equal(got, want) {
			t.Errorf("10.32.0.%d: %+v, want %+v", last, got, want)
		}
	}
	borrowed := claim("c", ctl.DecidedByVeth, 4)
	borrowed.Network = ""
	if got := contested(borrowed, 1, state, nil); got != nil {
		t.Errorf("on no network of the ledger: %+v", got)
	}
}

func TestTheHostThatHasAnAddressTooIsFoundByItsRecord(t *testing.T) {
	v := overlay.NewView()
	e := func(network string, last byte) *overlay.Endpoint {
		return &overlay.Endpoint{Network: network, Addrs: []netip.Addr{addrOf(last)}}
	}
	v.SetEndpoint("c", "ep/1", e("weave", 4))
	v.SetEndpoint("b", "ep/2", e("weave", 4))
	v.SetEndpoint("b", "ep/3", e("weave", 5))
	v.SetEndpoint("b", "ep/4", e("other", 6))
	got := v.HoldersOf("weave", map[netip.Addr]bool{addrOf(4): true, addrOf(6): true})
	if len(got) != 1 || got[addrOf(4)] != "b" {
		t.Errorf("got %v", got)
	}
}

// A list without weavedns gives no name: once another host has told so, nobody waits for one.
func TestNamesAreLostOnlyWhereNobodyHasToldThatThereWereNone(t *testing.T) {
	nameless := claim("nameless", ctl.DecidedByVeth, 2)
	nameless.Names = nil
	r, _ := bare(t)
	alias := attachment.Alias{Hash: nameless.Hash, Network: nameless.Key.Network, MAC: nameless.MAC, Addrs: nameless.Addrs}
	must(t, r.ipam.Adopt([]ipam.Kernel{{Alias: alias, Veth: nameless.Veth(), Network: DefaultNetwork}}))
	c, _ := r.ipam.Claim(nameless.Hash)
	if !r.namesLost(c) {
		t.Error("before another host has told what it had: not lost")
	}
	b, err := r.codec.Encode(overlay.Endpoint{Network: DefaultNetwork, MAC: nameless.MAC, Addrs: []netip.Addr{addrOf(2)}})
	must(t, err)
	r.former(map[string][]byte{overlay.EndpointPrefix + nameless.Hash: b})
	if r.namesLost(c) {
		t.Error("another host has told that it had no name: lost")
	}
	if r.namesLost(claim("named", ctl.DecidedByVeth, 3)) {
		t.Error("with a claim file: lost")
	}
}

func TestTheHostEndIsNamedWhereItIsOurs(t *testing.T) {
	ours, theirs := claim("ours", ctl.DecidedByVeth, 2), claim("macvlan", ctl.DecidedByClaim, 3)
	if got := describe(ours).Veth; got != ours.Veth() {
		t.Errorf("ours: %q", got)
	}
	if got := describe(theirs).Veth; got != "" {
		t.Errorf("another main plugin's: %q, and nobody made that", got)
	}
}

func TestAnAddressInAnothersBlockIsLoggedOnceUntilItIsSoAgain(t *testing.T) {
	theirs := claim("theirs", ctl.DecidedByClaim, 4)
	r, _ := bare(t, theirs)
	var log strings.Builder
	r.log = slog.New(slog.NewTextHandler(&log, nil))
	must(t, r.ipam.Adopt(nil))
	state := owned(t)
	for range 2 {
		r.sayContested(state)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "container=theirs") || !strings.Contains(got, "address=10.32.0.4 owner=b") {
		t.Errorf("logged %s", got)
	}
	r.sayContested(ledger.New())
	r.sayContested(state)
	if got := log.String(); strings.Count(got, "\n") != 2 {
		t.Errorf("it came back and was logged %s", got)
	}
}
