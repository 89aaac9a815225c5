package gossiptest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record keeps what a node hears.
func record(n *Node, into *[]string) {
	n.Handle(gossip.Ledger, func(from gossip.Peer, msg []byte) {
		*into = append(*into, fmt.Sprintf("%s: %s", from, msg))
	})
}

func TestMessagesArriveInOrderWhenNothingIsWrong(t *testing.T) {
	f := New(1, "a", "b")
	var heard []string
	record(f.Node("b"), &heard)
	for i := range 3 {
		if err := f.Node("a").Send("b", gossip.Ledger, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.Deliver(10); n != 3 || !slices.Equal(heard, []string{"a: 0", "a: 1", "a: 2"}) {
		t.Errorf("%d: %v", n, heard)
	}
}

func TestASenderMayUseItsBufferAgainAndAHandlerMayNotKeepIts(t *testing.T) {
	f := New(1, "a", "b")
	var kept []byte
	f.Node("b").Handle(gossip.Ledger, func(_ gossip.Peer, msg []byte) {
		if string(msg) != "good" {
			t.Errorf("heard %q", msg)
		}
		kept = msg
	})
	buf := []byte("good")
	_ = f.Node("a").Send("b", gossip.Ledger, buf)
	copy(buf, "evil")
	f.Deliver(1)
	if string(kept) == "good" {
		t.Error("a kept message was not spoilt")
	}
}

func TestLimitsAreKept(t *testing.T) {
	f := New(1, "a", "b")
	a := f.Node("a")
	if err := a.Send("b", gossip.Ledger, make([]byte, gossip.MaxMessage+1)); !errors.Is(err, gossip.ErrTooLarge) {
		t.Error(err)
	}
	if err := a.Broadcast(gossip.Ledger, make([]byte, gossip.MaxMessage+1)); !errors.Is(err, gossip.ErrTooLarge) {
		t.Error(err)
	}
	if err := a.Send("nobody", gossip.Ledger, nil); !errors.Is(err, gossip.ErrUnreachable) {
		t.Error(err)
	}
	var err error
	for range queueLimit + 1 {
		err = a.Send("b", gossip.Ledger, nil)
	}
	if !errors.Is(err, gossip.ErrBusy) {
		t.Error(err)
	}
}

func TestACutWorksInItsDirectionOnly(t *testing.T) {
	f := New(1, "a", "b")
	var atA, atB []string
	record(f.Node("a"), &atA)
	record(f.Node("b"), &atB)
	f.Cut("a", "b")
	_, _ = f.Node("a").Send("b", gossip.Ledger, []byte("x")), f.Node("b").Send("a", gossip.Ledger, []byte("y"))
	f.Deliver(10)
	if len(atB) != 0 || len(atA) != 1 {
		t.Errorf("a heard %v, b heard %v", atA, atB)
	}
	changed := f.Node("a").Changed()
	f.Split("a")
	select {
	case <-changed:
	default:
		t.Error("the change was not told")
	}
	if p := f.Node("a").Peers(); len(p) != 0 {
		t.Errorf("a still sees %v", p)
	}
	f.Heal()
	if p := f.Node("a").Peers(); !slices.Equal(p, []gossip.Peer{"b"}) {
		t.Errorf("a sees %v", p)
	}
}

func TestFaultsHappenAndTheSameSeedRepeatsThem(t *testing.T) {
	run := func(seed uint64) (heard []string, s Stats) {
		f := New(seed, "a", "b")
		f.Set(Faults{Loss: 0.2, Repeat: 0.2, Reorder: 0.3})
		record(f.Node("b"), &heard)
		for i := range 200 {
			_ = f.Node("a").Send("b", gossip.Ledger, fmt.Append(nil, i))
		}
		f.Deliver(1000)
		return heard, f.Stats()
	}
	a, s := run(7)
	b, _ := run(7)
	c, _ := run(8)
	if !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Error("the seed does not decide")
	}
	if s.Lost == 0 || s.Repeated == 0 || slices.IsSorted(a) {
		t.Errorf("%+v", s)
	}
}

func TestAPanicInAHandlerIsCounted(t *testing.T) {
	f := New(1, "a", "b")
	f.Node("b").Handle(gossip.Ledger, func(gossip.Peer, []byte) { panic("bad message") })
	_ = f.Node("a").Send("b", gossip.Ledger, nil)
	f.Deliver(1)
	if n := f.Stats().Panics; n != 1 {
		t.Errorf("%d", n)
	}
}

func TestLiveDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(1, "a", "b", "c")
		var mu sync.Mutex
		heard := make(map[gossip.Peer]int)
		for _, name := range []gossip.Peer{"a", "b", "c"} {
			f.Node(name).Handle(gossip.Records, func(gossip.Peer, []byte) {
				mu.Lock()
				defer mu.Unlock()
				heard[name]++
			})
		}
		_ = f.Node("a").Send("b", gossip.Records, nil) // before Run: kept
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := make(chan struct{})
		go func() { f.Run(ctx); close(done) }()
		synctest.Wait()
		for range 10 {
			_ = f.Node("a").Broadcast(gossip.Records, []byte("x"))
		}
		_ = f.Node("a").Send("a", gossip.Records, nil) // to oneself
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if heard["a"] != 1 || heard["b"] != 11 || heard["c"] != 10 {
			t.Errorf("%v", heard)
		}
		cancel()
		<-done
	})
}
