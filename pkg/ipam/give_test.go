package ipam_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/offers"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// provide runs a host's Run until the test ends.
func (h *host) provide() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.Run(ctx) }()
	h.t.Cleanup(func() { cancel(); <-done })
}

// hoard gives all of a subnet to a member, as one that was alone for long might have it.
func (l *theLedger) hoard(t testing.TB, id int, subnet string) {
	t.Helper()
	p := netip.MustParsePrefix(subnet)
	for l.State().Pool("weave", p) > 0 {
		if err := l.apply(ledger.Command{Take: &ledger.Take{ID: ledger.MemberID(id), Network: "weave", Subnet: p, Want: 1 << 16}}).Error(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAHostInNeedIsGivenWhatAnotherDoesNotUse(t *testing.T) {
	l := newLedger()
	l.found(t, 2, "10.32.0.0/26")
	l.hoard(t, 1, "10.32.0.0/26")
	rich, poor := start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir())
	rich.provide()
	seen := map[netip.Addr]bool{}
	for i := range 40 {
		for _, h := range []*host{rich, poor} {
			if i >= 20 && h == rich {
				continue
			}
			for _, p := range h.give(request(i)) {
				if seen[p.Addr()] {
					t.Fatalf("%s is given twice", p.Addr())
				}
				seen[p.Addr()] = true
			}
		}
	}
	if len(seen) != 60 {
		t.Errorf("%d addresses", len(seen))
	}
}

func TestTheLastAddressIsGivenAndThenTheNetworkIsFull(t *testing.T) {
	l := newLedger()
	l.found(t, 2, "10.32.0.0/29") // six addresses
	l.hoard(t, 1, "10.32.0.0/29")
	rich, poor := start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir())
	rich.provide()
	rich.give(request(1))
	for i := range 5 {
		poor.give(request(i))
	}
	begin := time.Now()
	poor.refuse(request(5), ctl.CodeNetworkFull)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("told after %v", took)
	}
}

func TestARequestedAddressOfAnotherHostIsGivenUpUnlessItIsUsed(t *testing.T) {
	l := newLedger()
	l.found(t, 2, "10.32.0.0/24")
	l.hoard(t, 1, "10.32.0.0/24")
	a, b := start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir())
	a.provide()
	a.give(request(1, "10.32.0.77"))
	if got := text(b.give(request(1, "10.32.0.99"))); got != "10.32.0.99/24" {
		t.Errorf("got %s", got)
	}
	b.refuse(request(2, "10.32.0.77"), ctl.CodeAddressTaken)
	if owner, _ := l.State().Owner("weave", netip.MustParseAddr("10.32.0.77")); owner != 1 {
		t.Errorf("an address in use went to %d", owner)
	}
}

// TestAnOfferIsKeptUntilTheLedgerHasAnswered cuts the giver off after it has offered:
// whatever happens meanwhile, also a restart, it gives nothing of the offer to a
// container of its own, and offers again when the ledger is back.
func TestAnOfferIsKeptUntilTheLedgerHasAnswered(t *testing.T) {
	l := newLedger()
	l.found(t, 2, "10.32.0.0/29")
	l.hoard(t, 1, "10.32.0.0/29")
	dir := t.TempDir()
	a := start(t, l, 1, dir)
	want := netip.MustParseAddr("10.32.0.3")
	if r := l.apply(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: 2, Network: "weave", Addr: want}}); r.Code != ledger.CodeTaken {
		t.Fatalf("%+v", r)
	}
	l.setDown(true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_ = a.Run(ctx)
	file := offers.New(notes{l.notes(fmt.Sprint(dir, 1))})
	if list, err := file.Load(); err != nil || len(list) != 1 || list[0].Ranges[0].First != want {
		t.Fatalf("on file: %+v, %v", list, err)
	}
	a = start(t, l, 1, dir) // the same host, restarted
	for i := range 5 {
		for _, p := range a.give(request(i)) {
			if p.Addr() == want {
				t.Fatal("what was offered is given to a container")
			}
		}
	}
	l.setDown(false)
	a.provide()
	deadline := time.Now().Add(20 * time.Second)
	for {
		owner, _ := l.State().Owner("weave", want)
		list, err := file.Load()
		if owner == 2 && err == nil && len(list) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("owner %d, still on file: %+v, %v", owner, list, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}
