package replica_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/gossiptest"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
	"github.com/weave-cni/weave-cni/pkg/replica/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var subnet = netip.MustParsePrefix("10.32.0.0/12")

func founding() *ledger.Command {
	return &ledger.Command{Found: &ledger.Found{Cluster: "live", Network: ledger.Network{Name: "weave", Driver: "weave", MTU: 1400, Subnets: []netip.Prefix{subnet}}}}
}

// bench runs replicas for a test, live.
type bench struct {
	t      *testing.T
	fabric *gossiptest.Fabric
	ctx    context.Context
	wg     sync.WaitGroup
}

func newBench(t *testing.T, names ...gossip.Peer) *bench {
	ctx, cancel := context.WithCancel(t.Context())
	b := &bench{t: t, fabric: gossiptest.New(1, names...), ctx: ctx}
	b.wg.Go(func() { b.fabric.Run(ctx) })
	t.Cleanup(func() { cancel(); b.wg.Wait() })
	return b
}

// start runs a replica until stop is called; stop gives what Run returned.
func (b *bench) start(name gossip.Peer, id ledger.MemberID, s replica.Store, found *ledger.Command) (r *replica.Replica, stop func() error) {
	b.t.Helper()
	r, err := replica.New(replica.Config{Self: ledger.Member{ID: id, Name: string(name)}, Net: b.fabric.Node(name), Store: s, Found: found})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	b.wg.Go(func() { ended <- r.Run(ctx) })
	return r, func() error { cancel(); err := <-ended; ended <- err; return err }
}

func take(id ledger.MemberID, want uint64) ledger.Command {
	return ledger.Command{Take: &ledger.Take{ID: id, Network: "weave", Subnet: subnet, Want: want}}
}

// within proposes with a deadline.
func within(t *testing.T, r *replica.Replica, d time.Duration, c ledger.Command) (ledger.Result, error) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return r.Propose(ctx, c)
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 30 seconds: %s", what)
		}
	}
}

func TestHostsJoinAndEachIsServedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b", "c")
		for i, name := range []gossip.Peer{"a", "b", "c"} {
			found := founding()
			if i > 0 {
				found = nil
			}
			id, begin := ledger.MemberID(i+1), time.Now()
			r, _ := b.start(name, id, new(replica.MemStore), found)
			changed := r.Changed()
			res, err := within(t, r, 2*time.Second, take(id, 256))
			if err != nil || res.Code != ledger.OK || len(r.State().Owned("weave", subnet, id)) == 0 {
				t.Fatalf("%s: %+v, %v", name, res, err)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("%s was served after %v", name, took)
			}
			select {
			case <-changed:
			default:
				t.Errorf("%s: Changed did not tell", name)
			}
		}
	})
}

func TestAProposalWithoutAMajorityEndsWithItsContextInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b", "c")
		a, _ := b.start("a", 1, new(replica.MemStore), founding())
		b.start("b", 2, new(replica.MemStore), nil)
		b.start("c", 3, new(replica.MemStore), nil)
		until(t, "three voters", func() bool { return len(a.Status().Voters) == 3 })
		b.fabric.Split("a")
		time.Sleep(5 * time.Second)
		begin := time.Now()
		_, err := within(t, a, 5*time.Second, take(1, 16))
		if !errors.Is(err, replica.ErrNotReady) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 of the 3 voters cannot be reached (b; c)") || strings.Contains(err.Error(), "context") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("it took %v", took)
		}
		b.fabric.Heal()
		if res, err := within(t, a, 5*time.Second, take(1, 16)); err != nil || res.Code != ledger.OK {
			t.Errorf("after the healing: %+v, %v", res, err)
		}
	})
}

func TestALoneNewcomerSaysWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		r, _ := b.start("b", 2, new(replica.MemStore), nil)
		b.fabric.SetDown("a", true)
		time.Sleep(time.Second)
		if s := r.Status(); !strings.Contains(s.Waiting, "no other host can be reached") || !s.Alone {
			t.Errorf("it says %+v", s)
		}
	})
}

func TestManyProposersOfOneHostAreAllServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		b.start("a", 1, new(replica.MemStore), founding())
		r, _ := b.start("b", 2, new(replica.MemStore), nil)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if res, err := within(t, r, 20*time.Second, take(2, 4)); err != nil || res.Code != ledger.OK {
					t.Errorf("%+v, %v", res, err)
				}
			})
		}
		wg.Wait()
		if own := r.State().Owned("weave", subnet, 2); len(own) != 1 || own[0].Size() != 400 {
			t.Errorf("owned: %v", own)
		}
	})
}

func TestAFullDiskStopsTheReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a")
		s := new(replica.MemStore)
		r, stop := b.start("a", 1, s, founding())
		if _, err := within(t, r, time.Second, take(1, 16)); err != nil {
			t.Fatal(err)
		}
		full := errors.New("no space left on device")
		s.FailWith(full)
		if _, err := within(t, r, time.Second, take(1, 16)); !errors.Is(err, replica.ErrStopped) {
			t.Errorf("propose: %v", err)
		}
		if err := stop(); !errors.Is(err, full) {
			t.Errorf("run: %v", err)
		}
		if _, err := within(t, r, time.Second, take(1, 16)); !errors.Is(err, replica.ErrStopped) {
			t.Errorf("propose afterwards: %v", err)
		}
	})
}

func TestTheLedgerIsOnDiskWhenProposeReturns(t *testing.T) {
	dir := t.TempDir()
	names := []gossip.Peer{"a", "b", "c"}
	b := newBench(t, names...)
	for round := range 3 {
		var stops []func() error
		var rs []*replica.Replica
		for i, name := range names {
			f, err := store.Open(filepath.Join(dir, string(name)))
			if err != nil {
				t.Fatal(err)
			}
			var found *ledger.Command
			if i == 0 {
				found = founding()
			}
			r, stop := b.start(name, ledger.MemberID(i+1), f, found)
			if got := owned(r, ledger.MemberID(i+1)); got != uint64(round)*64 {
				t.Errorf("round %d: %s owns %d addresses at its start", round, name, got)
			}
			rs = append(rs, r)
			stops = append(stops, func() error { return errors.Join(stop(), f.Close()) })
		}
		for i, r := range rs {
			if res, err := within(t, r, 20*time.Second, take(ledger.MemberID(i+1), 64)); err != nil || res.Code != ledger.OK {
				t.Fatalf("round %d: %+v, %v", round, res, err)
			}
		}
		for _, stop := range stops {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestASurvivorIsForcedOnAndServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b", "c")
		var rs []*replica.Replica
		var stops []func() error
		for i, name := range []gossip.Peer{"a", "b", "c"} {
			found := founding()
			if i > 0 {
				found = nil
			}
			r, stop := b.start(name, ledger.MemberID(i+1), new(replica.MemStore), found)
			rs, stops = append(rs, r), append(stops, stop)
		}
		until(t, "three voters", func() bool { return len(rs[2].Status().Voters) == 3 })
		until(t, "all are ready", func() bool { return rs[0].Ready() && rs[1].Ready() && rs[2].Ready() })
		if err := rs[2].Force(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing to do") {
			t.Errorf("with a majority: %v", err)
		}
		for i := range 2 {
			b.fabric.SetDown([]gossip.Peer{"a", "b"}[i], true)
			if err := stops[i](); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		if err := rs[2].Force(t.Context()); err != nil {
			t.Fatal(err)
		}
		for id := range ledger.MemberID(2) {
			if res, err := within(t, rs[2], time.Second, ledger.Command{Retire: &ledger.Retire{ID: id + 1}}); err != nil || res.Code != ledger.OK {
				t.Errorf("%+v, %v", res, err)
			}
		}
		if res, err := within(t, rs[2], time.Second, take(3, 16)); err != nil || res.Code != ledger.OK || rs[2].Spent() != "" {
			t.Errorf("%+v, %v", res, err)
		}
		if err := stops[2](); err != nil {
			t.Error(err)
		}
		if err := rs[2].Force(t.Context()); !errors.Is(err, replica.ErrStopped) {
			t.Errorf("stopped: %v", err)
		}
	})
}

func owned(r *replica.Replica, id ledger.MemberID) (n uint64) {
	for _, x := range r.State().Owned("weave", subnet, id) {
		n += x.Size()
	}
	return n
}

// BenchmarkPropose is one command after the other, by three members on real files.
func BenchmarkPropose(b *testing.B) {
	for _, from := range []int{0, 2} {
		b.Run([]string{"leader", "", "follower"}[from], func(b *testing.B) { benchPropose(b, from) })
	}
}

func benchPropose(b *testing.B, from int) {
	names := []gossip.Peer{"a", "b", "c"}
	fabric := gossiptest.New(1, names...)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { fabric.Run(ctx) })
	var rs []*replica.Replica
	for i, name := range names {
		f, err := store.Open(filepath.Join(b.TempDir(), string(name)))
		if err != nil {
			b.Fatal(err)
		}
		found := founding()
		if i > 0 {
			found = nil
		}
		r, err := replica.New(replica.Config{Self: ledger.Member{ID: ledger.MemberID(i + 1), Name: string(name)}, Net: fabric.Node(name), Store: f, Found: found})
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() { _ = errors.Join(r.Run(ctx), f.Close()) })
		rs = append(rs, r)
	}
	for _, r := range rs {
		for len(r.Status().Voters) < 3 {
			time.Sleep(50 * time.Millisecond)
		}
	}
	b.ResetTimer()
	for b.Loop() {
		if _, err := rs[from].Propose(ctx, take(ledger.MemberID(from+1), 1)); err != nil {
			b.Fatal(err)
		}
	}
}
