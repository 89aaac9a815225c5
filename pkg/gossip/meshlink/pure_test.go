package meshlink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/internal/carrier"
	"github.com/weave-cni/weave-cni/pkg/identity"
)

func FuzzFrames(f *testing.F) {
	one := message{from: "a", channel: gossip.Records, hops: maxHops, body: []byte("text")}.encode()
	last := message{from: "host-0123456789ab", channel: gossip.Ledger, body: nil}.encode()
	f.Add(one)
	f.Add(append(bytes.Clone(one), last...))
	f.Add(one[:len(one)-1])
	f.Add([]byte{1, 1, 0, 255, 255, 255, 255, 255, 'a'})
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{2, 1, 0, 1, 0, 0, 0, 0, 'a'})
	f.Fuzz(func(t *testing.T, part []byte) {
		if m, rest, err := decodeFrame(part); err == nil && !bytes.Equal(append(m.encode(), rest...), part) {
			t.Fatalf("%x does not encode as it was", part)
		}
		messages, frames, err := relay(part)
		if len(frames) > len(messages) {
			t.Fatal("more frames go on than came")
		}
		total := 0
		for _, m := range messages {
			total += len(m.encode())
		}
		if err == nil && total != len(part) {
			t.Fatalf("%d of %d bytes were understood without an error", total, len(part))
		}
	})
}

func TestBroadcastsEndAfterTheirHops(t *testing.T) {
	part := message{from: "a", channel: gossip.Records, hops: maxHops, body: []byte("x")}.encode()
	for hop := range maxHops + 1 {
		messages, frames, err := relay(part)
		if err != nil || len(messages) != 1 {
			t.Fatal(err)
		}
		if hop == maxHops {
			if len(frames) != 0 {
				t.Error("it goes on for ever")
			}
			return
		}
		part = newBundle(frames, nil).Encode()[0]
	}
}

func TestMergeChangesNeitherSideAndKeepsTheNewest(t *testing.T) {
	var lost int
	count := func(n int) { lost += n }
	frameOf := func(n, size int) []byte {
		return message{from: "a", channel: gossip.Records, body: bytes.Repeat([]byte{byte(n)}, size)}.encode()
	}
	a := newBundle([][]byte{frameOf(1, 300<<10), frameOf(2, 300<<10)}, count)
	b := newBundle([][]byte{frameOf(3, 300<<10), frameOf(4, 300<<10)}, count)
	both := a.Merge(b).(bundle)
	if len(a.frames) != 2 || len(b.frames) != 2 || a.size != b.size {
		t.Error("Merge changed a side")
	}
	if lost != 1 || len(both.frames) != 3 || both.frames[0][frameHeader+1] != 2 || both.size > maxBundle {
		t.Errorf("%d lost, %d frames, %d bytes", lost, len(both.frames), both.size)
	}
	huge := newBundle([][]byte{frameOf(5, gossip.MaxMessage)}, count)
	for range 20 {
		huge = huge.Merge(huge).(bundle)
	}
	if huge.size > maxBundle || len(huge.frames) == 0 {
		t.Errorf("%d bytes", huge.size)
	}
	if got := a.Merge(foreign{}); got.(bundle).size != a.size {
		t.Error("foreign data matters")
	}
}

type foreign struct{}

func (foreign) Encode() [][]byte                        { return nil }
func (foreign) Merge(d mesh.GossipData) mesh.GossipData { return d }

func TestPartsHoldManySmallFramesOrOneLarge(t *testing.T) {
	var frames [][]byte
	for i := range 1000 {
		frames = append(frames, message{from: "a", channel: gossip.Records, body: fmt.Append(nil, i)}.encode())
	}
	large := message{from: gossip.Peer(strings.Repeat("n", gossip.MaxPeer)), channel: gossip.Records, body: make([]byte, gossip.MaxMessage)}.encode()
	frames = append(frames, large, large)
	parts := newBundle(frames, nil).Encode()
	if len(parts) != 3 {
		t.Errorf("%d parts", len(parts))
	}
	n := 0
	for _, p := range parts {
		if len(p) > maxPart {
			t.Errorf("part of %d bytes", len(p))
		}
		messages, _, err := relay(p)
		if err != nil {
			t.Error(err)
		}
		n += len(messages)
	}
	if n != len(frames) {
		t.Errorf("%d of %d messages", n, len(frames))
	}
}

func newLink(t *testing.T, name string) *Link {
	t.Helper()
	id, err := identity.Open(t.TempDir(), name, identity.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Config{ID: id, MeshPort: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFramesThatAreWrongAreCountedAndCostNothing(t *testing.T) {
	l := newLink(t, "a")
	l.Handle(gossip.Records, func(gossip.Peer, []byte) { t.Error("a bad frame is heard") })
	e, b := ears{l}, meshName("b")
	good := message{from: "b", channel: gossip.Records, body: []byte("x")}
	liar, mine := good, good
	liar.from, mine.from = "c", "a"
	for what, part := range map[string][]byte{
		"empty": {}, "short": good.encode()[:7], "long": append(good.encode(), 0), "garbage": bytes.Repeat([]byte{0xff}, 100),
		"another's name": liar.encode(), "our own name": mine.encode(),
		"a bad announcement": message{from: "b", channel: own, body: []byte{0xff}}.encode(),
	} {
		before := l.stats.BadFrames.Load()
		if err := e.OnGossipUnicast(b, part); err != nil {
			t.Errorf("%s: mesh is told %v", what, err)
		}
		if n := l.stats.BadFrames.Load() - before; n != 1 {
			t.Errorf("%s: counted %d times", what, n)
		}
		if _, err := e.OnGossipBroadcast(b, part); err != nil {
			t.Errorf("%s: mesh is told %v", what, err)
		}
	}
	unheard := message{from: "b", channel: 77}.encode()
	if err := e.OnGossipUnicast(b, unheard); err != nil || l.stats.UnknownChannel.Load() != 1 {
		t.Errorf("%v, %d unknown", err, l.stats.UnknownChannel.Load())
	}
	if d, err := e.OnGossip([]byte("x")); d != nil || err != nil || e.Gossip() != nil {
		t.Error("there is periodic gossip")
	}
}

func TestSlowHandlerLosesMessagesAndHoldsUpNobody(t *testing.T) {
	l := newLink(t, "a")
	l.Handle(gossip.Records, func(gossip.Peer, []byte) {}) // nobody runs it
	part := message{from: "b", channel: gossip.Records, body: make([]byte, 100<<10)}.encode()
	for range 200 {
		if err := (ears{l}).OnGossipUnicast(meshName("b"), part); err != nil {
			t.Fatal(err)
		}
	}
	if got, most := l.inboxes[gossip.Records].waiting.bytes, inboxBytes; got > most || l.stats.Overrun.Load() == 0 {
		t.Errorf("%d bytes wait", got)
	}
}

func TestDestinationThatDoesNotMoveHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			stats  Stats
			mu     sync.Mutex
			moved  []string
			freed  = make(chan struct{})
			record = func(to mesh.PeerName, f []byte) {
				mu.Lock()
				defer mu.Unlock()
				moved = append(moved, fmt.Sprint(to, " ", string(f)))
			}
		)
		p := &post{stats: &stats, boxes: map[mesh.PeerName]*queue[[]byte]{}, send: func(to mesh.PeerName, f []byte) error {
			if to == 1 {
				<-freed
			}
			record(to, f)
			return nil
		}}
		if err := p.put(2, []byte("x")); !errors.Is(err, gossip.ErrUnreachable) {
			t.Errorf("before it runs: %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.run(ctx); close(done) }()
		synctest.Wait()
		busy := 0
		for range 2 * outboxFrames {
			if errors.Is(p.put(1, []byte("stuck")), gossip.ErrBusy) {
				busy++
			}
			synctest.Wait()
		}
		if p.put(2, []byte("free")); busy < outboxFrames-1 {
			t.Errorf("%d refused", busy)
		}
		synctest.Wait()
		if fmt.Sprint(moved) != "[00:00:00:00:00:02 free]" {
			t.Errorf("moved %v", moved)
		}
		time.Sleep(sendWithin + time.Second) // of virtual time
		close(freed)
		synctest.Wait()
		if stats.Late.Load() != outboxFrames || stats.UnicastsSent.Load() != 2 {
			t.Errorf("%d late, %d sent", stats.Late.Load(), stats.UnicastsSent.Load())
		}
		time.Sleep(2 * outboxIdle)
		synctest.Wait()
		if len(p.boxes) != 0 {
			t.Errorf("%d queues stay", len(p.boxes))
		}
		stop()
		<-done
	})
}

func TestMeshNamesAreLocalUnicastAddresses(t *testing.T) {
	seen := map[mesh.PeerName]bool{}
	for i := range 2000 {
		m := meshName(gossip.Peer(fmt.Sprint("host-", i)))
		if first := byte(m >> 40); first&3 != 2 || seen[m] {
			t.Fatalf("%s", m)
		}
		if back, err := mesh.PeerNameFromString(m.String()); err != nil || back != m {
			t.Fatalf("%s is read as %s (%v)", m, back, err)
		}
		seen[m] = true
	}
}

func TestPeerWhoseConnectionBrokeIsNotListedAsRelayedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d doubts
		d.add(1)
		if !d.about(1, doubtFor) || d.about(2, doubtFor) {
			t.Error("doubt about the wrong one")
		}
		time.Sleep(doubtFor + time.Millisecond)
		if d.about(1, doubtFor) || !d.about(1, lostLately) {
			t.Error("it is forgotten, or doubted, too long")
		}
		time.Sleep(lostLately)
		d.add(2)
		if d.about(1, lostLately) || len(d.lost) != 1 {
			t.Error("doubts stay")
		}
	})
}

func TestMeshLogIsRateLimited(t *testing.T) {
	var b bytes.Buffer
	m := meshLog{slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})), &seldom{}}
	for range 10000 {
		m.Printf("accept: %v", errors.New("too many open files"))
	}
	if n := strings.Count(b.String(), "\n"); n > 2*meshLines || n == 0 {
		t.Errorf("%d lines", n)
	}
}

func TestEachRouterHasOneLineAndTwinsHaveTwo(t *testing.T) {
	lines := []carrier.Status{
		{Name: "alpha", Member: 1, State: carrier.Connected, Addr: "192.0.2.1:1"},
		{Name: "beta", State: carrier.Dialling, Addr: "192.0.2.2:1"},
		{Name: "beta", Member: 2, State: carrier.Refused, Addr: "192.0.2.2:2", Detail: "why"},
		{Name: "beta", State: carrier.Dialling, Addr: "192.0.2.2:3"},
		{Name: "gamma", State: carrier.Dialling, Addr: "192.0.2.3:1"},
		{Name: "alpha", Member: 9, State: carrier.Refused, Addr: "192.0.2.9", Detail: "twin", Count: 3},
		{Name: "delta", Member: 8, State: carrier.Refused, Addr: "192.0.2.8", Detail: "twin of one that is relayed"},
		{State: carrier.Dialling, Addr: "192.0.2.4:1"}, {State: carrier.Dialling, Addr: "192.0.2.5:1"},
	}
	members := map[gossip.Peer]uint64{"alpha": 1, "gamma": 3, "delta": 4}
	var got []string
	for _, l := range merge(lines, []gossip.Peer{"alpha", "delta", "gamma"}, func(p gossip.Peer) uint64 { return members[p] }, time.Now()) {
		got = append(got, fmt.Sprint(l.Name, " ", l.State, " ", l.Addr))
	}
	want := []string{
		" dialling 192.0.2.4:1", " dialling 192.0.2.5:1", "alpha connected 192.0.2.1:1", "alpha refused 192.0.2.9",
		"beta refused 192.0.2.2:2", "delta relayed ", "delta refused 192.0.2.8", "gamma relayed 192.0.2.3:1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestOfTwoRefusalsTheLaterReasonIsShown(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, later := range []int{0, 1} {
		lines := []carrier.Status{
			{Name: "beta", Member: 2, State: carrier.Refused, Addr: "192.0.2.2:1", Detail: "0", When: now},
			{Name: "beta", Member: 2, State: carrier.Refused, Addr: "192.0.2.2:2", Detail: "1", When: now},
		}
		lines[later].When = now.Add(time.Second)
		got := merge(lines, nil, func(gossip.Peer) uint64 { return 0 }, now)
		if len(got) != 1 || got[0].Detail != fmt.Sprint(later) || got[0].Addr != "192.0.2.2:1" {
			t.Errorf("%+v", got)
		}
	}
}

// A refused call is remembered for minutes: it may be older than that its router went away.
func TestAnOldRefusedCallHidesNotThatAPeerIsAway(t *testing.T) {
	now := time.Unix(1e9, 0)
	nobody := func(gossip.Peer) uint64 { return 0 }
	for _, c := range []struct {
		age  time.Duration
		twin bool
		want State
	}{
		{0, false, Refused}, {FreshFor, false, Refused}, {FreshFor + time.Second, false, Dialling},
		{FreshFor + time.Second, true, Refused}, {twinFor, true, Refused}, {twinFor + time.Second, true, Dialling},
	} {
		age, want := c.age, c.want
		lines := []carrier.Status{
			{Name: "beta", State: carrier.Dialling, Addr: "192.0.2.2:1"},
			{Name: "beta", Member: 2, State: carrier.Refused, Addr: "192.0.2.2", Count: 3, Last: now.Add(-age), Theirs: true, Twin: c.twin},
		}
		if got := merge(lines, nil, nobody, now); len(got) != 1 || got[0].State != want || (got[0].Count > 0) != (want == Refused) {
			t.Errorf("%v after the call: %+v, want one line, %s", age, got, want)
		}
		if got := merge(lines[1:], []gossip.Peer{"beta"}, nobody, now); len(got) != 1 || got[0].State != Relayed || got[0].Count != 0 || !got[0].Last.IsZero() {
			t.Errorf("relayed: %+v", got)
		}
	}
}
