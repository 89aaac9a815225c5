package exchange

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/gossiptest"
	"github.com/weave-cni/weave-cni/pkg/record"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

func signer(name gossip.Peer) record.Sign {
	return func(msg []byte) []byte {
		h := hmac.New(sha256.New, []byte(name))
		h.Write(msg)
		return h.Sum(nil)
	}
}

func verify(cert []byte, name gossip.Peer, msg, sig []byte) error {
	if string(cert) != string(name) || !hmac.Equal(signer(name)(msg), sig) {
		return errors.New("wrong signature")
	}
	return nil
}

// host is an exchange with the changes that it reported.
type host struct {
	*Exchange
	stop func()

	mu      sync.Mutex
	changes []string
	calls   [][]string // the keys of each Watch
}

func (h *host) watch(cs []record.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []string
	for _, c := range cs {
		keys = append(keys, c.Key)
		h.changes = append(h.changes, fmt.Sprintf("%s/%s=%s", c.Origin, c.Key, c.New))
	}
	h.calls = append(h.calls, keys)
}

func (h *host) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.changes)
}

type bench struct {
	t      *testing.T
	fabric *gossiptest.Fabric
	wg     sync.WaitGroup
	stop   context.CancelFunc
}

// newBench runs a live fabric inside a synctest bubble; close it at the end.
func newBench(t *testing.T, names ...gossip.Peer) *bench {
	const seed = 1
	ctx, stop := context.WithCancel(t.Context())
	b := &bench{t: t, fabric: gossiptest.New(seed, names...), stop: stop}
	b.wg.Go(func() { b.fabric.Run(ctx) })
	synctest.Wait()
	return b
}

func (b *bench) close() { b.stop(); b.wg.Wait() }

// start begins a life of a host: what put does is done before the announcement.
func (b *bench) start(name gossip.Peer, incarnation uint64, former func(*host, map[string][]byte), put func(*host)) *host {
	h := &host{}
	c := Config{
		Store: record.New(name, incarnation, signer(name), []byte(name), verify),
		Net:   b.fabric.Node(name),
		Log:   slog.New(slog.DiscardHandler),
		Watch: h.watch,
	}
	if former != nil {
		c.Former = func(m map[string][]byte) { former(h, m) }
	}
	h.Exchange = New(c)
	if put != nil {
		put(h)
	}
	h.Announce()
	ctx, stop := context.WithCancel(b.t.Context())
	h.stop = stop
	b.wg.Go(func() {
		if err := h.Run(ctx); err != nil {
			b.t.Errorf("%s: Run: %v", name, err)
		}
	})
	return h
}

func (b *bench) put(h *host, key, value string) {
	b.t.Helper()
	if err := h.Put(key, []byte(value)); err != nil {
		b.t.Fatal(err)
	}
}

func TestAChangeIsBroadcastWithinMilliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b", "c")
		defer b.close()
		hosts := []*host{b.start("a", 1, nil, nil), b.start("b", 1, nil, nil), b.start("c", 1, nil, nil)}
		for _, h := range hosts {
			defer h.stop()
		}
		time.Sleep(2100 * time.Millisecond) // between two digests
		before := b.fabric.Stats().Sent
		for i := range 10 {
			b.put(hosts[0], fmt.Sprint("k", i), "v")
		}
		time.Sleep(hintDelay + time.Millisecond)
		synctest.Wait()
		for _, h := range hosts[1:] {
			if n := len(h.Records("a")); n != 10 || len(h.seen()) != 10 {
				t.Errorf("%d records after 4 ms, changes %v", n, h.seen())
			}
		}
		if n := b.fabric.Stats().Sent - before; n > 4 {
			t.Errorf("%d messages for ten changes made together", n)
		}
	})
}

func TestWhatHintsLoseDigestsBring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b", "c")
		defer b.close()
		b.fabric.Set(gossiptest.Faults{Loss: 0.5, Repeat: 0.2, Reorder: 0.3})
		hosts := map[gossip.Peer]*host{}
		for _, n := range []gossip.Peer{"a", "b", "c"} {
			hosts[n] = b.start(n, 1, nil, nil)
			defer hosts[n].stop()
		}
		for i := range 200 {
			for n, h := range hosts {
				b.put(h, fmt.Sprint("k", i%40), fmt.Sprint(n, i))
			}
			time.Sleep(10 * time.Millisecond)
		}
		deadline := time.Now().Add(time.Minute)
		for !agree(hosts) {
			if time.Now().After(deadline) {
				t.Fatal("no agreement a minute after the last change")
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

func agree(hosts map[gossip.Peer]*host) bool {
	for origin, o := range hosts {
		want := o.Records(origin)
		for _, h := range hosts {
			got := h.Records(origin)
			if len(got) != len(want) {
				return false
			}
			for k, v := range want {
				if string(got[k]) != string(v) {
					return false
				}
			}
		}
	}
	return true
}

func TestAPartitionHealsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		defer b.close()
		a, c := b.start("a", 1, nil, nil), b.start("b", 1, nil, nil)
		defer a.stop()
		defer c.stop()
		time.Sleep(time.Second)
		b.fabric.Split("a")
		time.Sleep(time.Second)
		b.put(a, "k", "v")
		time.Sleep(10 * time.Second)
		if c.Get("a", "k") != nil {
			t.Fatal("the partition leaks")
		}
		b.fabric.Heal()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if string(c.Get("a", "k")) != "v" {
			t.Error("not there 1 ms after the heal")
		}
	})
}

func TestALargeStateArrivesInBoundedMessagesWithoutWaitingForTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		defer b.close()
		value := make([]byte, 4<<10)
		a := b.start("a", 1, nil, func(h *host) {
			for i := range 2000 { // 8 MiB: forty messages, ten answers
				if err := h.Put(fmt.Sprint(i), value); err != nil {
					t.Fatal(err)
				}
			}
		})
		defer a.stop()
		b.fabric.Split("a")
		time.Sleep(time.Second) // the hints are lost
		c := b.start("b", 1, nil, nil)
		defer c.stop()
		b.fabric.Heal()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if n := len(c.Records("a")); n != 2000 {
			t.Errorf("%d of 2000 records after 100 ms", n)
		}
	})
}

func TestARestartedReaderHearsOfAHostAndItsEndpointsInOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		defer b.close()
		a := b.start("a", 1, nil, func(h *host) {
			b.put(h, "host", "v")
			for i := range 10 * mergeEntries {
				b.put(h, fmt.Sprintf("ep/%03d", i), string(make([]byte, 2<<10)))
			}
		})
		defer a.stop()
		for _, incarnation := range []uint64{1, 2} {
			reader := b.start("b", incarnation, nil, nil)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			reader.stop()
			if len(reader.calls) != 1 {
				t.Fatalf("life %d: Watch was called %d times", incarnation, len(reader.calls))
			}
			keys := reader.calls[0]
			if n := len(keys); n != 10*mergeEntries+1 || keys[0] != "ep/000" || keys[n-1] != "host" {
				t.Errorf("life %d: it heard of %d: %q … %q", incarnation, n, keys[0], keys[n-1])
			}
		}
	})
}

func TestNamesLostInARestartComeBackFromThePeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		defer b.close()
		first := b.start("a", 9, nil, func(h *host) { b.put(h, "endpoint", "10.32.0.1 web"); b.put(h, "old", "x") })
		peer := b.start("b", 1, nil, nil)
		defer peer.stop()
		time.Sleep(time.Second)
		first.stop()
		time.Sleep(time.Second)

		// It knows the address from its kernel, but neither the name nor its incarnation.
		told := false
		again := b.start("a", 1, func(h *host, was map[string][]byte) {
			told = true
			b.put(h, "endpoint", string(was["endpoint"]))
		}, func(h *host) { b.put(h, "endpoint", "10.32.0.1") })
		defer again.stop()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := string(peer.Get("a", "endpoint")); got != "10.32.0.1 web" || !told {
			t.Errorf("the peer has %q, told %v", got, told)
		}
		want := []string{"a/endpoint=10.32.0.1 web", "a/old=x", "a/old="}
		if got := peer.seen(); !slices.Equal(got, want) {
			t.Errorf("the peer saw %v, want %v", got, want)
		}
		if s := again.Stats(); s.Incarnation != 10 || s.Jumped != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A peer that was cut off when the host last wrote knows less of it than another does.
func TestOfSeveralFormerLivesTheNewestThatANeighbourHasComesBack(t *testing.T) {
	for i, behind := range []gossip.Peer{"b", "c", "b", "c"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, "a", "b", "c")
			defer b.close()
			b.fabric.Cut("b", "c")
			b.fabric.Cut("c", "b")
			for _, n := range []gossip.Peer{"b", "c"} {
				defer b.start(n, 1, nil, nil).stop()
			}
			first := b.start("a", 9, nil, func(h *host) { b.put(h, "old", "web") })
			time.Sleep(2 * time.Second)
			b.fabric.SetDown(behind, true)
			time.Sleep(time.Second)
			if i < 2 {
				b.put(first, "new", "db")
			} else { // by a whole life
				first.stop()
				first = b.start("a", 10, nil, func(h *host) { b.put(h, "old", "web"); b.put(h, "new", "db") })
			}
			time.Sleep(2 * time.Second)
			first.stop()
			b.fabric.SetDown("a", true)
			b.fabric.SetDown(behind, false)
			time.Sleep(time.Second)

			begin := time.Now()
			var took time.Duration
			var was map[string][]byte
			again := b.start("a", 1, func(_ *host, m map[string][]byte) { was, took = m, time.Since(begin) }, nil)
			defer again.stop()
			b.fabric.SetDown("a", false)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if string(was["old"]) != "web" || string(was["new"]) != "db" {
				t.Errorf("with %s behind, it was told %q", behind, was)
			}
			if took >= formerWithin {
				t.Errorf("with %s behind, it was told after %v", behind, took)
			}
		})
	}
}

func TestANewHostAnnouncesAtOnceWhenNobodyKnowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		defer b.close()
		peer := b.start("b", 1, nil, nil)
		defer peer.stop()
		time.Sleep(time.Second)
		a := b.start("a", 1, func(*host, map[string][]byte) {}, func(h *host) { b.put(h, "k", "v") })
		defer a.stop()
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		if peer.Get("a", "k") == nil {
			t.Error("not announced after 20 ms")
		}
	})
}

func TestADigestThatShowsMoreIsAnsweredWithOnesOwnButOnce(t *testing.T) {
	for _, c := range []struct {
		in   message
		want bool
	}{
		{message{Digest: record.Digest{"b": {Incarnation: 1, Seq: 5}, "c": {Incarnation: 1, Seq: 1}}}, true},
		{message{Digest: record.Digest{"b": {Incarnation: 1, Seq: 5}, "c": {Incarnation: 1, Seq: 1}}, Back: true}, false},
		{message{Digest: record.Digest{"b": {Incarnation: 1, Gone: true}}}, false},
	} {
		fabric := gossiptest.New(1, "a", "b")
		e := New(Config{Store: record.New("a", 1, signer("a"), []byte("a"), verify), Net: fabric.Node("a"), Log: slog.New(slog.DiscardHandler)})
		asked := false
		fabric.Node("b").Handle(gossip.Records, func(_ gossip.Peer, msg []byte) {
			var m message
			if err := wire.New().Decode(msg, &m); err != nil || !m.Back {
				t.Errorf("message %+v, %v", m, err)
			}
			asked = true
		})
		b, err := wire.New().Encode(c.in)
		if err != nil {
			t.Fatal(err)
		}
		e.receive(received{"b", b})
		fabric.Deliver(10)
		if asked != c.want {
			t.Errorf("after %+v asked back: %v", c.in, asked)
		}
	}
}

func TestMalformedMessagesChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		defer b.close()
		a := b.start("a", 1, nil, func(h *host) { b.put(h, "k", "v") })
		defer a.stop()
		evil := b.fabric.Node("b")
		evil.Handle(gossip.Records, func(gossip.Peer, []byte) {})
		for _, msg := range [][]byte{nil, {}, {0xff}, []byte("hello"), make([]byte, gossip.MaxMessage)} {
			evil.Broadcast(gossip.Records, msg)
		}
		for range 2 * queueMessages {
			evil.Broadcast(gossip.Records, []byte{0xa1, 0x01, 0xa0}) // an empty digest, again and again
		}
		time.Sleep(time.Second)
		if string(a.Get("a", "k")) != "v" || len(a.Origins()) != 0 {
			t.Error("something changed")
		}
		if s := a.Stats(); s.Malformed < 4 {
			t.Errorf("stats %+v", s)
		}
	})
}

func FuzzReceive(f *testing.F) {
	c := wire.New()
	s := record.New("b", 3, signer("b"), []byte("b"), verify)
	if err := s.Put("k", []byte("v")); err != nil {
		f.Fatal(err)
	}
	s.Announce()
	for _, m := range []message{
		{Digest: record.Digest{"a": {Incarnation: 1, Seq: 2, Head: 3, Sum: 4}, "b": {Incarnation: 9, Gone: true}}},
		{Deltas: s.Delta(record.Digest{}, 1<<16), More: true},
		{Digest: record.Digest{"": {Incarnation: 1 << 63}}, Back: true},
	} {
		b, err := c.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fabric := gossiptest.New(1, "a", "b")
		store := record.New("a", 1, signer("a"), []byte("a"), verify)
		e := New(Config{Store: store, Net: fabric.Node("a"), Log: slog.New(slog.DiscardHandler)})
		fabric.Node("b").Handle(gossip.Records, func(_ gossip.Peer, msg []byte) {
			if len(msg) > gossip.MaxMessage {
				t.Errorf("answer of %d bytes", len(msg))
			}
		})
		if err := e.Put("mine", []byte("1")); err != nil {
			t.Fatal(err)
		}
		e.Announce()
		e.receive(received{"b", b})
		e.receive(received{"b", b})
		if string(e.Get("a", "mine")) != "1" {
			t.Error("own record lost")
		}
		if n := len(e.Origins()); n > 1 {
			t.Errorf("%d origins from one signed host", n)
		}
	})
}

func TestAHostIsUpToDateOnceAllIsHereThatTheOtherOneHasSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "a", "b")
		defer b.close()
		begin := time.Now()
		a, h := b.start("a", 1, nil, nil), b.start("b", 1, nil, nil)
		defer a.stop()
		defer h.stop()
		if h.UpToDate("a", begin.Add(-1)) {
			t.Error("before a word was heard")
		}
		b.put(a, "k", "1")
		time.Sleep(5 * time.Second)
		if !h.UpToDate("a", begin) || h.UpToDate("a", time.Now()) || h.UpToDate("c", begin) {
			t.Error("5 s later: want it of a since the beginning, not since now, and not of c")
		}
		b.fabric.Split("a")
		time.Sleep(time.Second)
		split := time.Now()
		b.put(a, "k", "2")
		time.Sleep(10 * time.Second)
		if h.UpToDate("a", split) {
			t.Error("while it is cut off")
		}
		b.fabric.Heal()
		for range 1000 {
			if ok := h.UpToDate("a", split); ok {
				if got := string(h.Get("a", "k")); got != "2" {
					t.Errorf("it has %q", got)
				}
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Error("not within a second after the heal")
	})
}

// Who asks does so for each host, many times a second, under the lock of all that arrives.
func TestWhetherAHostIsUpToDateCostsTheSameHoweverManyThereAre(t *testing.T) {
	var allocs []float64 // a digest of 500 takes more of them than one of 1
	for _, hosts := range []int{1, 500} {
		store := record.New("me", 1, signer("me"), []byte("me"), verify)
		e := New(Config{Store: store, Net: gossiptest.New(1, "me").Node("me"), Log: slog.New(slog.DiscardHandler)})
		for i := range hosts {
			name := gossip.Peer(fmt.Sprint("host-", i))
			other := record.New(name, 1, signer(name), []byte(name), verify)
			if err := other.Put("k", []byte("v")); err != nil {
				t.Fatal(err)
			}
			other.Announce()
			for _, d := range other.Delta(record.Digest{}, 1<<20) {
				if _, err := store.Merge(d); err != nil {
					t.Fatal(err)
				}
			}
			e.told[name] = told{mark: other.Mark(name), at: time.Now()}
		}
		if !e.UpToDate("host-0", time.Time{}) {
			t.Fatal("a host that is all here")
		}
		allocs = append(allocs, testing.AllocsPerRun(10, func() { e.UpToDate("host-0", time.Time{}) }))
	}
	if allocs[0] != allocs[1] {
		t.Errorf("allocations of 1 and of 500 hosts: %v", allocs)
	}
}
