package replica

import (
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// withLearner is three voters and one host that follows, all at rest.
func withLearner(t *testing.T, seed uint64) (w *world, learner *host) {
	w = newWorld(t, seed, 4)
	for _, h := range w.hosts {
		h.place = ledger.Place{Machine: "m-" + string(h.name), Boot: "b1", NetNS: "n1"}
	}
	w.startAll()
	settled := func(c Conf) bool { return len(c.Voters) == 3 && len(c.Learners) == 1 && len(c.Outgoing) == 0 }
	w.until("three voters and a learner", 300, func() bool { return settled(w.leader().core.conf) })
	w.run(30)
	id := w.leader().core.conf.Learners[0]
	return w, w.hosts[slices.IndexFunc(w.hosts, func(h *host) bool { return uint64(h.id) == id })]
}

// retire has the leader retire a host and waits until the configuration is without it.
func (w *world) retire(h *host) {
	w.t.Helper()
	l := w.leader()
	l.propose(ledger.Command{Retire: &ledger.Retire{ID: h.id}})
	w.until("it is retired", 100, func() bool {
		m, _ := l.state.Member(h.id)
		return m.Retired && !l.core.conf.has(uint64(h.id))
	})
}

func TestARetiredLearnerThatWasDownHearsOfItThoughVouched(t *testing.T) {
	for seed := range uint64(10) {
		w, h := withLearner(t, 60+seed)
		h.kill()
		w.blind = true // it was said to be destroyed, and is not
		w.retire(h)
		w.run(50)
		h.start()
		if !h.core.Ready() {
			t.Fatal("a vouched life waits")
		}
		w.until("it is spent", 4*lonelyTicks, func() bool { return strings.Contains(h.core.Spent(), "given up as destroyed") })
	}
}

func TestALearnerThatWasCutOffAndReplacedHearsOfIt(t *testing.T) {
	w, h := withLearner(t, 71)
	h.taken(16)
	h.w.fabric.SetDown(h.name, true) // it runs on
	w.peersChanged()
	w.run(100)
	if h.core.Spent() != "" || !h.core.Ready() {
		t.Fatalf("cut off it is no longer ready: %q", h.core.Spent())
	}
	w.leader().core.admit(ledger.Member{ID: 99_999_999, Name: string(h.name), Place: ledger.Place{Machine: "another", Boot: "b", NetNS: "n"}})
	w.run(50)
	if m, _ := w.leader().state.Member(h.id); m.Live() {
		t.Fatal("it was not replaced")
	}
	h.w.fabric.SetDown(h.name, false)
	w.peersChanged()
	w.until("it is spent", 4*lonelyTicks, func() bool { return strings.Contains(h.core.Spent(), "under a new identity") })
}

func TestOneWhoIsForgottenAltogetherHearsOfItFromTheLeader(t *testing.T) {
	w, h := withLearner(t, 72)
	h.kill()
	w.blind = true
	w.retire(h)
	l := w.leader()
	for i := range ledger.MemberID(3 * ledger.MaxMembers) { // members come and go
		id := 1_000_000 + i
		l.core.admit(ledger.Member{ID: id, Name: "x", Place: ledger.Place{Machine: "m", Boot: string(rune('a' + i%20)), NetNS: "n"}})
		l.propose(ledger.Command{Retire: &ledger.Retire{ID: id}})
		if i%20 == 0 {
			w.run(1)
		}
		if _, ok := l.state.Member(h.id); !ok {
			break
		}
	}
	w.run(20)
	if _, ok := w.leader().state.Member(h.id); ok {
		t.Fatal("it is known still")
	}
	h.start()
	w.until("it is spent", 12*lonelyTicks, func() bool { return h.core.Spent() != "" })
}

func TestWhoHearsItsLeaderAsksNobodyAndWhoDoesNotAsksRarely(t *testing.T) {
	w, h := withLearner(t, 73)
	asked := func(ticks int) (n int) {
		at := h.core.alone.askAt
		for range ticks {
			w.step()
			if h.core.alone.askAt != at {
				at = h.core.alone.askAt
				n++
			}
		}
		return n
	}
	if n := asked(200); n != 0 {
		t.Errorf("%d questions while a leader is heard", n)
	}
	for _, o := range w.hosts {
		if o != h && o != w.leader() {
			o.kill() // no majority: nobody leads for long
		}
	}
	w.run(50)
	if n := asked(300); n == 0 || n > 300/lonelyTicks {
		t.Errorf("%d questions in 300 ticks without a leader", n)
	}
	if h.core.Spent() != "" || !h.core.Ready() {
		t.Errorf("it is ready no longer: %q", h.core.Spent())
	}
}

func TestAStrangersWordEndsOnlyWhoAsks(t *testing.T) {
	w, h := withLearner(t, 74)
	say := func() {
		b, err := (&frame{Cluster: "c1", From: 77, To: h.id, Life: 1 << 32, Kind: kindGone, About: h.core.life, Words: "gone"}).pack(w.codec)
		if err != nil {
			t.Fatal(err)
		}
		h.core.Receive("stranger", b)
		h.settle()
	}
	say()
	if h.core.Spent() != "" {
		t.Fatal("it believes a stranger while its leader is heard")
	}
	for _, o := range w.hosts {
		if o != h {
			o.kill()
		}
	}
	w.run(2 * lonelyTicks)
	say()
	if h.core.Spent() != "gone" {
		t.Error("it hears nobody else, and does not believe whom it asks")
	}
}

func TestALeaderThatIsBehindDoesNotSendANewMemberAway(t *testing.T) {
	w, h := withLearner(t, 75)
	l := w.leader()
	ask := func(last uint64) (kinds []uint8) {
		b, err := (&frame{Cluster: "c1", From: 88, Life: 1 << 32, Kind: kindCheck, Check: &check{Member: ledger.Member{ID: 88, Name: "new"}, Last: last}}).pack(w.codec)
		if err != nil {
			t.Fatal(err)
		}
		l.core.Receive("new", b)
		for l.core.Pending() {
			_ = l.store.Save(l.core.Begin())
			for _, o := range l.core.Finish().Send {
				if f, err := decodeFrame(w.codec, o.Frame); err == nil && o.To == gossip.Peer("new") {
					kinds = append(kinds, f.Kind)
				}
			}
		}
		return kinds
	}
	if got := ask(l.state.Index() + 5); !slices.Equal(got, []uint8{kindAnswer}) {
		t.Errorf("one that is further: %v", got)
	}
	if got := ask(l.state.Index()); !slices.Equal(got, []uint8{kindGone}) {
		t.Errorf("one that is not: %v", got)
	}
	_ = h
}
