package ipam_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ipam/offers"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// extra adds network "n" of one host, or of all for "".
func (l *theLedger) extra(t testing.TB, host string) (id string) {
	t.Helper()
	n := ledger.Network{Name: "n", Driver: "weave", Host: host, Subnets: []netip.Prefix{netip.MustParsePrefix("10.48.0.0/24")}}
	if err := l.apply(ledger.Command{AddNetwork: &ledger.AddNetwork{Network: n}}).Error(); err != nil {
		t.Fatal(err)
	}
	n, _ = l.State().Network("n")
	return n.ID
}

func onN(i int) ctl.AllocateRequest {
	k := attachment.Key{Network: "n", ContainerID: fmt.Sprint("c", i), IfName: "eth0"}
	return ctl.AllocateRequest{Key: k, Network: "n", Decider: ctl.DecidedByVeth}
}

func (l *theLedger) close(t testing.TB, id string) {
	t.Helper()
	if err := l.apply(ledger.Command{CloseNetwork: &ledger.CloseNetwork{Name: "n", ID: id}}).Error(); err != nil {
		t.Fatal(err)
	}
}

func TestANetworkThatIsBeingRemovedIsGivenBackOnceItsContainersAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 2, "10.32.0.0/24")
		id := l.extra(t, "")
		dir := t.TempDir()
		h := start(t, l, 1, dir)
		bridge, err := h.HostAddr(t.Context(), "n", nil)
		if err != nil {
			t.Fatal(err)
		}
		h.give(onN(1))
		h.provide()
		synctest.Wait()
		l.close(t, id)
		if e := h.refuse(onN(2), ctl.CodeInvalidConfig); !strings.Contains(e.Msg, "network n is being removed") {
			t.Errorf("%v", e)
		}
		h.refuse(onN(1), ctl.CodeInvalidConfig)
		if again, err := h.HostAddr(t.Context(), "n", bridge); err != nil || !slices.Equal(again, bridge) {
			t.Errorf("the bridge that a container is on gets %v, %v, and had %v", again, err, bridge)
		}
		if v, d := h.Vacant(), h.Dwellers("n"); len(v) > 0 || len(d) != 1 || d[0].Key.ContainerID != "c1" {
			t.Errorf("vacant %v, on it %v", v, d)
		}
		if held, err := h.Vacate("n"); err != nil || !slices.Equal(held, []string{"c1"}) {
			t.Errorf("%v, %v", held, err)
		}
		if err := h.Release(onN(1).Key); err != nil {
			t.Fatal(err)
		}
		if v := h.Vacant(); !slices.Equal(v, []string{"n"}) {
			t.Errorf("vacant: %v", v)
		}
		l.setDown(true)
		if held, err := h.Vacate("n"); err != nil || len(held) > 0 {
			t.Fatal(held, err)
		}
		if kept, err := offers.New(notes{l.notes(fmt.Sprint(dir, 1))}).Load(); err != nil || len(kept) != 1 || kept[0].Network != "n" {
			t.Errorf("on file: %v, %v", kept, err)
		}
		if _, claimed := h.Claim(ipam.HostKey("n").Hash()); claimed || len(h.Vacant()) > 0 {
			t.Errorf("claimed %v, vacant %v", claimed, h.Vacant())
		}
		if owners := l.State().Holders("n"); len(owners) != 1 {
			t.Errorf("owners %v although the ledger was down", owners)
		}
		l.setDown(false)
		for len(l.State().Holders("n")) > 0 { // Run goes on asking; synctest ends a wait for nothing
			<-l.Changed()
		}
		if err := l.apply(ledger.Command{DelNetwork: &ledger.DelNetwork{Name: "n", ID: id}}).Error(); err != nil {
			t.Error(err)
		}
	})
}

// A container of a network that went while its host was away holds an address that is of a
// later network's block here: that network can go all the same.
func TestAContainerOfAFormerNetworkDoesNotKeepALaterOneFromBeingRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 2, "10.32.0.0/24")
		first := l.extra(t, "")
		h := start(t, l, 1, t.TempDir())
		got := h.give(onN(1))
		l.close(t, first)
		for _, c := range []ledger.Command{
			{Give: &ledger.Give{ID: 1, Network: "n", Ranges: l.State().Owned("n", netip.MustParsePrefix("10.48.0.0/24"), 1)}},
			{DelNetwork: &ledger.DelNetwork{Name: "n", ID: first}},
		} {
			if err := l.apply(c).Error(); err != nil {
				t.Fatal(err)
			}
		}
		id := l.extra(t, "")
		if _, err := h.HostAddr(t.Context(), "n", nil); err != nil {
			t.Fatal(err)
		}
		if own := l.State().Owned("n", netip.MustParsePrefix("10.48.0.0/24"), 1); !slices.ContainsFunc(own, func(r addr.Range) bool { return r.Contains(got[0].Addr()) }) {
			t.Fatalf("%v is not of %v: this tests nothing", got, own)
		}
		h.provide()
		synctest.Wait()
		l.close(t, id)
		if held, err := h.Vacate("n"); err != nil || len(held) > 0 {
			t.Fatal(held, err)
		}
		time.Sleep(time.Minute) // of the bubble's time
		if owners := l.State().Holders("n"); len(owners) > 0 {
			t.Errorf("it is kept by %v", owners)
		}
	})
}

func TestANetworkOfAnotherHostIsRefusedHere(t *testing.T) {
	l := newLedger()
	l.found(t, 2, "10.32.0.0/24")
	l.extra(t, "host2")
	h, other := start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir())
	if e := h.refuse(onN(1), ctl.CodeWrongHost); !strings.Contains(e.Msg, "host2") {
		t.Errorf("%v", e)
	}
	other.give(onN(1))
}
