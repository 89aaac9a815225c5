package router

import (
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip/gossiptest"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/knownhosts"
	"github.com/weave-cni/weave-cni/pkg/identity"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ipam/claims"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/record"
	"github.com/weave-cni/weave-cni/pkg/record/exchange"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

func key(container string) attachment.Key {
	return attachment.Key{Network: "weave", ContainerID: container, IfName: "eth0"}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// noLedger is the ledger of a router that has not joined yet.
type noLedger struct{ ipam.Ledger }

func (noLedger) State() *ledger.State { return ledger.New() }
func (noLedger) Ready() bool          { return false }

type noOffers struct{}

func (noOffers) Load() ([]allot.Offer, error) { return nil, nil }
func (noOffers) Save([]allot.Offer) error     { return nil }

// bare is a router of which only the parts exist that publish, on claims that a
// router before it has left.
func bare(t *testing.T, left ...ipam.Claim) (*Router, *record.Store) {
	t.Helper()
	files, err := claims.Open(t.TempDir())
	must(t, err)
	for _, c := range left {
		must(t, files.Save(c))
	}
	id, err := identity.Open(t.TempDir(), "self", identity.Secret{})
	must(t, err)
	r := &Router{config: Defaults(), log: quiet(), id: id, vtep: netip.MustParseAddr("192.0.2.1"), table: names.NewTable(), codec: wire.New()}
	store := record.New(id.Name(), id.Incarnation(), id.Sign, id.Cert(), id.Verify)
	r.exchange = exchange.New(exchange.Config{Store: store, Net: gossiptest.New(1, "self").Node("self"), Log: quiet()})
	r.ipam, err = ipam.New(ipam.Config{Self: 1, Ledger: noLedger{}, Claims: files, Offers: noOffers{}, BootID: "boot", Log: quiet()})
	must(t, err)
	return r, store
}

func claim(container string, decider ctl.Decider, last byte) ipam.Claim {
	k := key(container)
	addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 32, 0, last}), 12)
	return ipam.Claim{
		Key: k, Hash: k.Hash(), Network: DefaultNetwork, Addrs: []netip.Prefix{addr}, MAC: k.MAC([]netip.Prefix{addr}),
		Names: []string{container}, State: book.Attached, Decider: decider, OnBridge: decider == ctl.DecidedByVeth, BootID: "boot",
	}
}

func TestContainersThatWereDeletedWhileNoRouterRanAreNotAnnouncedAgain(t *testing.T) {
	here, deleted, foreign := claim("here", ctl.DecidedByVeth, 2), claim("deleted", ctl.DecidedByVeth, 3), claim("foreign", ctl.DecidedByClaim, 4)
	r, store := bare(t, here, deleted, foreign)
	alias := attachment.Alias{Hash: here.Hash, Network: here.Key.Network, MAC: here.MAC, Addrs: here.Addrs}
	ports := []port{{ipam.Kernel{Alias: alias, Veth: here.Veth(), Network: DefaultNetwork}, DefaultBridge}}
	must(t, r.ipam.Adopt(kernelOf(ports)))
	must(t, r.publishAll(ports))
	var got []string
	for k := range store.Records("self") {
		got = append(got, k)
	}
	slices.Sort(got)
	want := []string{overlay.HostKey, overlay.EndpointPrefix + here.Hash, overlay.EndpointPrefix + foreign.Hash}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("announced %q, want %q", got, want)
	}
	if len(r.table.All()) != 2 {
		t.Errorf("names %v", r.table.All())
	}
}

// Between the end of a claim and what is withdrawn for it an ADD may have it again.
func TestAnAttachmentThatIsThereAgainIsNotWithdrawn(t *testing.T) {
	again := claim("again", ctl.DecidedByClaim, 2)
	r, store := bare(t, again)
	must(t, r.ipam.Adopt(nil))
	must(t, r.publish(again))
	for round := range 2 {
		must(t, r.ended(again.Hash))
		if _, ok := store.Records("self")[overlay.EndpointPrefix+again.Hash]; ok != (round == 0) || (len(r.table.All()) > 0) != ok {
			t.Errorf("round %d: announced: %v, names %v", round, ok, r.table.All())
		}
		must(t, r.ipam.ReleaseHash(again.Hash))
	}
}

// Of other main plugins' containers there may be more than a host may have records.
func TestWhatIsNeitherOnTheBridgeNorNamedIsNotAnnounced(t *testing.T) {
	foreign := claim("foreign", ctl.DecidedByClaim, 4)
	named := foreign.Names
	foreign.Names = nil
	r, store := bare(t, foreign)
	must(t, r.ipam.Adopt(nil))
	must(t, r.publishAll(nil))
	announced := func() bool { _, ok := store.Records("self")[overlay.EndpointPrefix+foreign.Hash]; return ok }
	if announced() {
		t.Error("without a name it is announced")
	}
	for _, names := range [][]string{named, nil} {
		c, err := r.ipam.SetNames(foreign.Key, ipam.Naming{Names: names})
		must(t, err)
		must(t, r.publish(c))
		if announced() != (names != nil) || len(r.table.All()) != len(names) {
			t.Errorf("named %q: announced: %v, names %v", names, announced(), r.table.All())
		}
	}
}

func TestAnAttachmentWhoseNetworkIsGoneIsWithdrawn(t *testing.T) {
	c := claim("c", ctl.DecidedByClaim, 2)
	r, store := bare(t, c)
	r.withheld = map[string]bool{}
	must(t, r.ipam.Adopt(nil))
	must(t, r.publish(c))
	c.Network, c.NetID = "", "0123456789ab"
	must(t, r.publish(c))
	if _, ok := store.Records("self")[overlay.EndpointPrefix+c.Hash]; ok || len(r.table.All()) > 0 || !r.withheld[c.Hash] {
		t.Errorf("announced: %v, names %v, withheld %v", ok, r.table.All(), r.withheld)
	}
}

func TestRoutersThatCannotWorkTogetherAreKeptApartInWordsForBoth(t *testing.T) {
	own := meshlink.Hello{Name: "own", Cluster: "one", VXLAN: 6784}
	for words, h := range map[string]meshlink.Hello{
		"":            {Name: "b", Cluster: "one", VXLAN: 6784},
		"never merge": {Name: "c", Cluster: "two", VXLAN: 6784},
		"c has its overlay on UDP port 7784 and own on 6784": {Name: "c", VXLAN: 7784},
	} {
		err := compatible(own, h)
		if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
			t.Errorf("%+v: %v", h, err)
		}
	}
	for _, h := range []meshlink.Hello{{Name: "new", VXLAN: 6784}, {Name: "older", Cluster: "one"}} {
		if err := compatible(own, h); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func TestEachProblemIsOneLineAndAHealthyHostHasNone(t *testing.T) {
	now := time.Unix(1e9, 0)
	healthy := ctl.Status{
		Peers:       []ctl.Peer{{Name: "a", State: "connected"}, {Name: "b", State: "relayed"}},
		Overlay:     []ctl.Remote{{Host: "a", Path: pathVXLAN}},
		Attachments: []ctl.Attachment{{Key: key("c")}, {Names: []string{"restored"}}, {Veth: "kernelonly"}},
	}
	healthy.Peers = append(healthy.Peers, ctl.Peer{Name: "left", State: "dialling", Former: true})
	if got := problems(healthy, now); len(got) != 0 {
		t.Errorf("a healthy host: %q", got)
	}
	ill := healthy
	ill.Peers = append(slices.Clone(healthy.Peers),
		ctl.Peer{Name: "c", State: "dialling"},
		ctl.Peer{Name: "d", State: "refused", RefusesUs: true}, ctl.Peer{Address: "192.0.2.9:6783", State: "refused", RefusesUs: true},
		ctl.Peer{Name: "a", Address: "192.0.2.8", State: "refused", Count: 3, Last: now.Add(-30 * time.Second)},
		ctl.Peer{Address: "192.0.2.7", State: "refused", Count: 3, Last: now.Add(-5 * time.Minute)},
		ctl.Peer{Name: "own", Address: "192.0.2.6:6783", State: "refused", RefusesUs: true, Detail: "two are called so"})
	ill.Overlay = append(slices.Clone(healthy.Overlay), ctl.Remote{Host: "d", Path: "none: it is reached by the other address family"})
	ill.DNS.Errors = []string{"network weave at 10.32.0.1: taken"}
	ill.Name = "own"
	ill.IPAM.Subnets = []ctl.SubnetUse{{Network: "weave", Subnet: netip.MustParsePrefix("10.32.0.0/29"), Full: true}}
	ill.Networks = []ctl.NetStatus{{Contested: []ctl.Contested{{Address: addrOf(1), Owner: "b"}}}}
	ill.Attachments = []ctl.Attachment{{NamesLost: true}, {NamesLost: true}, {NamesLost: true},
		{Contested: []ctl.Contested{{Address: addrOf(4), Owner: "a", UsedBy: "a"}, {Address: addrOf(5), Owner: "own"}}},
		{Contested: []ctl.Contested{{Address: addrOf(6), UsedBy: "a"}}}}
	want := []string{
		"another router, at 192.0.2.6:6783, has this host's name: two are called so",
		"2 peers refuse us: d, 192.0.2.9:6783; see `weave status peers`",
		"1 host is refused here: a; see `weave status peers`",
		"1 of 5 peers unreachable: c",
		"network \"weave\" is full: no address of 10.32.0.0/29 is free for this host, so ADD fails with code 100 until one is; see `weave status ipam`",
		"2 addresses here are in other hosts' blocks, where others may have the same: 10.32.0.4 of a, 10.32.0.1 (bridge) of b; " +
			"DEL and ADD give a container another; see `weave ps`",
		"1 address of this host is in use elsewhere too: 10.32.0.6 on a; see `weave ps` there",
		"no packet reaches 1 host; see `weave status overlay`",
		"names are not served at 1 address here; see `weave doctor`, and `weave status dns`",
		"3 attachments may have lost names, known from the kernel only: " +
			"another host's router that remembers them, or DEL and ADD, gives them back; see `weave ps`",
	}
	if got := problems(ill, now); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWhoAnswersAndRefusesIsWhatAJoinWaitsFor(t *testing.T) {
	now := time.Unix(1e9, 0)
	away := ctl.Peer{Address: "192.0.2.1:6783", State: "dialling", Detail: "connection refused"}
	dialled := ctl.Peer{Address: "192.0.2.2:6783", State: "refused", Detail: "it turns us away"}
	caller := ctl.Peer{Name: "c", Address: "192.0.2.3", State: "refused", Detail: "we refuse c: why", Count: 1, Last: now}
	old := caller
	old.Last = now.Add(-time.Hour)
	for _, c := range []struct {
		peers []ctl.Peer
		want  string
	}{
		{[]ctl.Peer{away, old}, ""},
		{[]ctl.Peer{away, caller, dialled}, "waits to join a cluster; 192.0.2.2:6783 is reached, but it turns us away"},
		{[]ctl.Peer{away, old, caller}, "waits to join a cluster; c calls, but we refuse c: why"},
	} {
		if got := unheard(c.peers, false, now); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if got := unheard([]ctl.Peer{dialled}, true, now); !strings.Contains(got, onlySelf) {
		t.Errorf("got %q", got)
	}
}

func TestAMemberThatNoLineIsAboutGetsOneUnlessItMayBeThatOfAnAddress(t *testing.T) {
	up := []ctl.Peer{{Name: "a", State: "connected"}}
	if got := silent(up, []string{"b", "a"}); len(got) != 1 || got[0].Name != "b" || got[0].State != "dialling" {
		t.Errorf("got %v", got)
	}
	if got := silent(append(up, ctl.Peer{Address: "192.0.2.2:6783", State: "dialling"}), []string{"b"}); got != nil {
		t.Errorf("one host has two lines: %v", got)
	}
}

func TestAHostHasLeftOnceItsMembershipIsOver(t *testing.T) {
	state := ledger.New()
	for i, c := range []ledger.Command{
		{Found: &ledger.Found{Cluster: "c", Network: ledger.Network{Name: "weave", Driver: "weave", MTU: 1400, Subnets: Defaults().Ranges}}},
		{Join: &ledger.Join{Member: ledger.Member{ID: 1, Name: "a"}}},
		{Join: &ledger.Join{Member: ledger.Member{ID: 2, Name: "b"}}},
		{Join: &ledger.Join{Member: ledger.Member{ID: 3, Name: "b"}}}, // joined again under a new key
		{Join: &ledger.Join{Member: ledger.Member{ID: 4, Name: "d"}}},
		{Leave: &ledger.Leave{ID: 4}},
	} {
		if res := state.Apply(uint64(i+1), c); res.Code != ledger.OK {
			t.Fatalf("%+v: %s", c, res.Err)
		}
	}
	for _, tc := range []struct {
		host knownhosts.Host
		left bool
	}{
		{knownhosts.Host{Name: "a", Member: 1}, false},
		{knownhosts.Host{Name: "b", Member: 2}, true},
		{knownhosts.Host{Name: "b", Member: 3}, false},
		{knownhosts.Host{Name: "d", Member: 4}, true},
		{knownhosts.Host{Name: "a", Member: 9}, true}, // an earlier life of a
		{knownhosts.Host{Name: "joins", Member: 10}, false},
	} {
		if got := hasLeft(state, tc.host); got != tc.left {
			t.Errorf("%+v: left %v", tc.host, got)
		}
	}
	if hasLeft(ledger.New(), knownhosts.Host{Name: "a", Member: 1}) {
		t.Error("without a ledger everybody has left")
	}
}

func TestAHostThatKnowsOthersFoundsNoCluster(t *testing.T) {
	r := &Router{config: Defaults(), stateless: true, known: []knownhosts.Host{{Name: "b"}}}
	if c, err := r.founding(); c != nil || err != nil {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestAPortWithoutABridgeBelongsWhereItsAddressIs(t *testing.T) {
	state := ledger.New()
	found := ledger.Command{Found: &ledger.Found{Cluster: "c", Network: ledger.Network{Name: "weave", Driver: "weave", MTU: 1400, Subnets: Defaults().Ranges}}}
	if res := state.Apply(1, found); res.Code != ledger.OK {
		t.Fatal(res.Err)
	}
	ours, theirs := []netip.Prefix{netip.MustParsePrefix("10.32.0.5/12")}, []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")}
	for what, c := range map[string]struct {
		alias    attachment.Alias
		home     string
		concerns bool
	}{
		"of weave-net":                         {attachment.Alias{Network: "weave", Addrs: ours}, "weave", true},
		"of weave-net, from another conflist":  {attachment.Alias{Network: "quiet", Addrs: ours}, "weave", true},
		"of weave-net, without an address":     {attachment.Alias{Network: "weave"}, "weave", true},
		"of weave-net, another's address":      {attachment.Alias{Network: "weave", Addrs: theirs}, "weave", true},
		"of simplebridge with weave-ipam":      {attachment.Alias{Network: "weave", Addrs: ours, Local: true}, "", true},
		"of simplebridge with host-local":      {attachment.Alias{Network: "weave", Addrs: theirs, Local: true}, "", false},
		"of simplebridge, of an unknown place": {attachment.Alias{Network: "sb", Addrs: theirs}, "", false},
	} {
		if got := homeOf(state.Networks(), c.alias); got != c.home {
			t.Errorf("%s: home %q", what, got)
		}
		p := port{Kernel: ipam.Kernel{Alias: c.alias}}
		if got := concerns(state, p); got != c.concerns {
			t.Errorf("%s: concerns us: %v", what, got)
		}
		if !concerns(ledger.New(), p) {
			t.Errorf("%s: passed over before the ledger is known", what)
		}
	}
}
