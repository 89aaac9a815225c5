package ipam_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ipam/claims"
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

// hoarded is a ledger with members and one network, all of which is the first one's.
func hoarded(t testing.TB, members int, subnet string) *theLedger {
	t.Helper()
	l := newLedger()
	l.found(t, members, subnet)
	l.hoard(t, 1, subnet)
	return l
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

// Of a part of a subnet a host has single addresses, each from where it was free.
func TestAHostInNeedOfAPartIsGivenWhatAnotherDoesNotUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 2, "10.32.0.0/24")
		part := func(i int) ctl.AllocateRequest {
			in := request(i)
			in.Subnet = "10.32.0.16/29"
			return in
		}
		first, second := start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir())
		first.provide()
		for i := range 8 {
			first.give(part(i))
		}
		kept := first.give(part(0))[0].Addr()
		for i := 1; i < 8; i++ {
			if err := first.Release(key(i)); err != nil {
				t.Fatal(err)
			}
		}
		second.elsewhere = map[netip.Addr]bool{kept: true}
		for i := range 7 {
			began := time.Now()
			got := second.give(part(100 + i))
			if p := got[0].Addr(); p == kept || !netip.MustParsePrefix("10.32.0.16/29").Contains(p) || time.Since(began) > time.Second {
				t.Errorf("got %v after %v", got, time.Since(began))
			}
		}
		if e := second.refuse(part(200), ctl.CodeNetworkFull); !strings.Contains(e.Details, "of 8 addresses this host holds 7, with 7 in use; other hosts hold 1; 0 belong to nobody") {
			t.Errorf("then: %v", e)
		}
	})
}

// A block can be here before the word that what used it elsewhere has ended.
func TestAnAddressThatAnotherHostSaysItUsesIsGivenLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := hoarded(t, 1, "10.32.0.0/29")
		h := start(t, l, 1, t.TempDir())
		late := netip.MustParseAddr("10.32.0.1")
		h.elsewhere = map[netip.Addr]bool{late: true}
		for i := range 6 {
			if got := h.give(request(i))[0].Addr(); (got == late) != (i == 5) {
				t.Errorf("number %d got %v", i, got)
			}
		}
	})
}

func TestAHostInNeedIsGivenWhatAnotherDoesNotUse(t *testing.T) {
	l := hoarded(t, 2, "10.32.0.0/26")
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
	l := hoarded(t, 2, "10.32.0.0/29") // six addresses
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
	l := hoarded(t, 2, "10.32.0.0/24")
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
	l := hoarded(t, 2, "10.32.0.0/29")
	dir := t.TempDir()
	a := start(t, l, 1, dir)
	want := netip.MustParseAddr("10.32.0.3")
	if r := l.apply(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: 2, Network: "weave", Addr: want}}); r.Code != ledger.CodeTaken {
		t.Fatalf("%+v", r)
	}
	l.setDown(true)
	file := offers.New(notes{l.notes(fmt.Sprint(dir, 1))})
	a.runUntil("an offer is on file", func() bool {
		list, err := file.Load()
		return err == nil && len(list) > 0
	})
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

// runUntil runs the allocator until something holds, and is back when it has ended.
func (h *host) runUntil(what string, cond func() bool) {
	h.t.Helper()
	ctx, stop := context.WithCancel(h.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = h.Run(ctx) }()
	defer func() { stop(); <-ended }()
	for end := time.Now().Add(time.Minute); !cond(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("not in a minute: %s", what)
		}
	}
}

// need is another host's ask for addresses that this cluster's pool has not.
func (l *theLedger) need(t testing.TB, id int, subnet string, want uint64) {
	t.Helper()
	take := &ledger.Take{ID: ledger.MemberID(id), Network: "weave", Subnet: netip.MustParsePrefix(subnet), Want: want}
	if r := l.apply(ledger.Command{Take: take}); r.Code != ledger.CodeEmpty {
		t.Fatalf("%+v", r)
	}
}

// leave is a `weave reset` until the ledger is told. off is what the bridge's address
// was when it was taken off.
func (h *host) leave() (off []netip.Prefix) {
	h.t.Helper()
	bare := func() error {
		for _, c := range h.Claims() {
			off = append(off, c.Addrs...)
		}
		return nil
	}
	if held, err := h.Leave(bare); len(held) > 0 || err != nil {
		h.t.Fatal(held, err)
	}
	return off
}

func (h *host) bridge(has ...netip.Prefix) []netip.Prefix {
	h.t.Helper()
	got, err := h.HostAddr(h.t.Context(), "weave", has)
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

// TestAfterARefusedResetTheBridgeHasNoAddressThatIsGivenBack: the ledger may take all
// that was offered though it did not answer in time.
func TestAfterARefusedResetTheBridgeHasNoAddressThatIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = "10.32.0.0/24"
		l := hoarded(t, 2, all)
		a, b := start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir())
		before := a.bridge()
		l.need(t, 2, all, 16)
		l.setDown(true)
		if off := a.leave(); !slices.Equal(off, before) {
			t.Fatalf("taken off the bridge while it holds %v: %v", off, before)
		}
		a.Stay()
		if e := a.refuse(request(1), ctl.CodeTryAgain); !strings.Contains(e.Details, "is being given back") {
			t.Errorf("until the ledger has answered: %v", e)
		}
		if a.Usage()[0].Full {
			t.Error("full, it says, of a network of which it knows no numbers")
		}
		if _, err := a.HostAddr(t.Context(), "weave", before); err == nil {
			t.Error("the bridge has an address before the ledger has answered")
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = a.Run(ctx) }()
		time.Sleep(10 * time.Second)
		l.setDown(false)
		time.Sleep(10 * time.Second)
		has := append(a.bridge(before...), a.give(request(2))...)
		for i := range 60 {
			if got := b.give(request(i)); slices.Contains(has, got[0]) {
				t.Fatalf("%v is given to a container of another host", got)
			}
		}
		for _, p := range has {
			if owner, _ := l.State().Owner("weave", p.Addr()); owner != 1 {
				t.Errorf("%v is used and belongs to %d", p, owner)
			}
		}
	})
}

func TestLeaveOffersNothingWhileTheBridgeCannotBeBared(t *testing.T) {
	l := newLedger()
	l.found(t, 1, "10.32.0.0/24")
	dir := t.TempDir()
	a := start(t, l, 1, dir)
	before := a.bridge()
	if _, err := a.Leave(func() error { return errors.New("busy") }); err == nil || err.Error() != "busy" {
		t.Fatalf("got %v", err)
	}
	list, err := offers.New(notes{l.notes(fmt.Sprint(dir, 1))}).Load()
	if err != nil || len(list) != 0 {
		t.Errorf("offered: %+v, %v", list, err)
	}
	a.give(request(1)) // it stays
	if held, err := a.Leave(func() error { t.Error("containers are here"); return nil }); err != nil || !slices.Equal(held, []string{"c1"}) {
		t.Errorf("held %v, %v", held, err)
	}
	if after := a.bridge(before...); !slices.Equal(after, before) {
		t.Errorf("the bridge gets %v, had %v", after, before)
	}
}

func TestWhatSomebodyHoldsIsNotGivenBackWhateverWasOffered(t *testing.T) {
	l := hoarded(t, 2, "10.32.0.0/24")
	dir := t.TempDir()
	p := netip.MustParsePrefix("10.32.0.9/24")
	var own []ipam.Offer
	for _, last := range []string{p.Addr().String(), "10.32.0.77"} {
		x := netip.MustParseAddr(last)
		own = append(own, ipam.Offer{Network: "weave", Ranges: []addr.Range{{First: x, Last: x}}})
	}
	if err := offers.New(notes{l.notes(fmt.Sprint(dir, 1))}).Save(own); err != nil { // by a router that knew nothing of the container
		t.Fatal(err)
	}
	a := start(t, l, 1, dir, veth(1, p))
	l.apply(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: 2, Network: "weave", Addr: p.Addr()}}) // it gets all that comes back
	a.runUntil("what nobody holds is given back", func() bool {
		_, owned := l.State().Owner("weave", own[1].Ranges[0].First)
		return !owned
	})
	if owner, _ := l.State().Owner("weave", p.Addr()); owner != 1 {
		t.Errorf("a container's address went to %d", owner)
	}
}

// TestAnAnswerEndsTheOfferThatItIsForAndNoOther: a reset may add offers while one is
// under way.
func TestAnAnswerEndsTheOfferThatItIsForAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = "10.32.0.0/24"
		l := hoarded(t, 2, all)
		l.slow = 300 * time.Millisecond
		dir := t.TempDir()
		a := start(t, l, 1, dir)
		l.need(t, 2, all, 4)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = a.Run(ctx) }()
		time.Sleep(100 * time.Millisecond)
		a.leave()
		l.setDown(true) // of what is proposed from now on nothing is answered
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		a.Stay()
		a.refuse(request(1), ctl.CodeTryAgain)
		list, err := offers.New(notes{l.notes(fmt.Sprint(dir, 1))}).Load()
		if err != nil {
			t.Fatal(err)
		}
		var left uint64
		for _, o := range list {
			for _, r := range o.Ranges {
				left += r.Size()
			}
		}
		if own := l.State().Owned("weave", netip.MustParsePrefix(all), 1); left != 252 || len(own) == 0 {
			t.Errorf("%d addresses are on file as offered, want the 252 of %v", left, own)
		}
	})
}

// slowDisk is a state directory that takes long to be written, and says when it is asked to.
type slowDisk struct {
	notes
	asked, done chan struct{}
}

func (s slowDisk) Put(name string, b []byte) error {
	s.asked <- struct{}{}
	<-s.done
	return s.notes.Put(name, b)
}

// onSlowDisk is a host that has all of a network of two, and such a disk.
func onSlowDisk(t *testing.T, all string) (*theLedger, slowDisk, *host) {
	t.Helper()
	l := hoarded(t, 2, all)
	files, err := claims.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	disk := slowDisk{notes{l.notes("slow")}, make(chan struct{}), make(chan struct{})}
	al, err := ipam.New(ipam.Config{Self: 1, Ledger: l, Claims: files, Offers: offers.New(disk), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return l, disk, &host{Allocator: al, t: t}
}

func TestNobodyWaitsForTheDiskThatAnOfferIsWrittenTo(t *testing.T) {
	const all = "10.32.0.0/24"
	l, disk, a := onSlowDisk(t, all)
	l.need(t, 2, all, 128)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); _ = a.Run(ctx) }()
	next := 0
	serves := func(during string) {
		t.Helper()
		next++
		served := make(chan []netip.Prefix, 1)
		go func() { got, _ := a.Allocate(ctx, request(next)); a.Claims(); served <- got }()
		select {
		case got := <-served:
			if len(got) != 1 || !netip.MustParsePrefix("10.32.0.0/25").Contains(got[0].Addr()) {
				t.Errorf("%s an ADD gets %v", during, got)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s an ADD waits for the disk", during)
		}
	}
	for _, during := range []string{"before it is proposed", "after its answer"} {
		select {
		case <-disk.asked:
		case <-ctx.Done():
			t.Fatal("nothing is written")
		}
		if _, owned := l.State().Owner("weave", netip.MustParseAddr("10.32.0.200")); during == "before it is proposed" && !owned {
			t.Error("the ledger has heard of an offer that is not on file")
		}
		serves(during)
		disk.done <- struct{}{}
	}
	stop()
	<-ended
	left := make(chan error, 1)
	b := a
	for i := range next {
		if err := b.Release(key(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, err := b.Leave(func() error { return nil }); left <- err }()
	<-disk.asked
	b.Claims() // or this blocks, until the test's time is over
	disk.done <- struct{}{}
	if err := <-left; err != nil {
		t.Error(err)
	}
}

// TestAnADDThatWaitsForAnOfferToEndIsServedThen: nothing else changes at that moment, and
// to take the same addresses again before would help nothing.
func TestAnADDThatWaitsForAnOfferToEndIsServedThen(t *testing.T) {
	for _, all := range []string{"10.32.0.0/28", "10.32.0.0/31"} { // of the second nobody asks early
		t.Run(all, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { anADDWaitsForAnOffer(t, all) }) })
	}
}

func anADDWaitsForAnOffer(t *testing.T, all string) {
	l, disk, a := onSlowDisk(t, all)
	go func() { <-disk.asked; disk.done <- struct{}{} }()
	a.leave()
	a.Stay()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = a.Run(ctx) }()
	<-disk.asked // the ledger has answered
	asked := l.asked
	go func() { time.Sleep(time.Second); disk.done <- struct{}{} }()
	began := time.Now()
	a.give(request(1))
	if took := time.Since(began); took != time.Second || l.asked > asked+2 {
		t.Errorf("served after %v, and %d more proposals", took, l.asked-asked)
	}
	stop()
	<-ended
}

func TestARestingAddressIsGivenToAHostThatFindsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = "10.32.0.0/29"
		l := hoarded(t, 2, all)
		a, b := start(t, l, 1, t.TempDir()), start(t, l, 2, t.TempDir())
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = a.Run(ctx) }()
		var had []netip.Prefix
		for i := range 6 {
			had = append(had, a.give(request(i))[0])
		}
		for i := range 3 {
			synctest.Wait() // Run reads the clock
			a.now += time.Second
			if err := a.Release(key(i)); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if got := b.give(request(20, had[2].Addr().String())); got[0] != had[2] {
			t.Errorf("asked for %v, which rests: got %v", had[2], got)
		}
		if got := b.give(request(21)); got[0] != had[0] {
			t.Errorf("got %v; %v has rested longest", got, had[0])
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("after %v", took)
		}
		if got := a.give(request(30)); got[0] != had[1] {
			t.Errorf("the host itself gets %v", got)
		}
	})
}

func TestWithoutAnAnswerOfTheLedgerNobodyWaitsForBetterThanWhatRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 3, "10.32.0.0/20")
		a := start(t, l, 1, t.TempDir())
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = a.Run(ctx) }()
		a.give(request(0))
		synctest.Wait()
		l.setDown(true)
		waits := 0
		for i := 1; i < 1200; i++ {
			began := time.Now()
			a.give(request(i))
			if err := a.Release(key(i)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > time.Second {
				t.Fatalf("container %d waited %v", i, took)
			} else if took > 0 {
				waits++
			}
		}
		if waits > 1 { // by the first one it is found out
			t.Errorf("%d containers waited for the ledger, with own addresses free", waits)
		}
		before := a.Usage()[0].Hosts[0].Owned
		l.setDown(false)
		time.Sleep(10 * time.Second)
		if after := a.Usage()[0].Hosts[0].Owned; after <= before {
			t.Errorf("once the ledger answers this host has %d addresses, had %d", after, before)
		}
	})
}
