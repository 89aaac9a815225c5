package replica

import (
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// three is three voters, all at rest.
func three(t *testing.T, seed uint64) *world {
	w := newWorld(t, seed, 3)
	for _, h := range w.hosts {
		h.place = ledger.Place{Machine: "m-" + string(h.name), Boot: "b1", NetNS: "n1"}
	}
	w.startAll()
	w.until("three voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 3 && len(w.leader().core.conf.Outgoing) == 0 })
	w.run(30)
	return w
}

// follower is a voter that does not lead.
func (w *world) follower() *host {
	return w.hosts[(slices.Index(w.hosts, w.leader())+1)%len(w.hosts)]
}

// reboot starts a host again as after a reboot.
func (h *host) reboot() {
	h.kill()
	h.place.Boot += "+"
	h.w.unvouched = true
	h.start()
	h.w.unvouched = false
}

func TestAVouchedHostIsReadyAtOnceAndAnUnvouchedOneWhenItKnowsAllThatWasDecided(t *testing.T) {
	w := three(t, 21)
	h, l := w.follower(), w.leader()
	h.kill()
	h.start()
	if !h.core.Ready() {
		t.Error("vouched, in its place, and not ready")
	}
	h.kill()
	l.taken(16)
	h.w.unvouched = true
	h.start()
	if h.core.Ready() || h.core.Status().Waiting == "" {
		t.Errorf("unvouched and ready, or says nothing: %+v", h.core.Status())
	}
	w.until("it is ready", 100, h.core.Ready)
	if h.state.Index() <= l.state.Index()-2 {
		t.Errorf("ready at entry %d, the leader is at %d", h.state.Index(), l.state.Index())
	}
	if seq, _ := l.state.Last(h.id); seq>>32 != h.core.life.generation() {
		t.Errorf("the ledger remembers %x, its generation is %d", seq, h.core.life.generation())
	}
}

func TestAVouchedHostInAnotherPlaceSaysSoBeforeItIsReady(t *testing.T) {
	w := three(t, 22)
	h := w.follower()
	h.kill()
	h.place.NetNS = "n2"
	h.start()
	if h.core.Ready() {
		t.Error("ready where the ledger does not know it")
	}
	w.until("it is ready", 100, h.core.Ready)
	if m, _ := h.state.Member(h.id); m.Place != h.place {
		t.Errorf("%+v", m)
	}
}

func TestARebootedHostWithoutAMajorityIsNotReadyAndHasNoVote(t *testing.T) {
	w := three(t, 23)
	for _, h := range w.hosts {
		h.kill()
	}
	w.unvouched = true
	a, b := w.hosts[0], w.hosts[1]
	a.start()
	w.run(200)
	if a.core.Ready() || a.core.trial == nil || !strings.Contains(a.core.Status().Waiting, "asks the 3 voters") {
		t.Fatalf("%+v", a.core.Status())
	}
	b.start()
	w.until("both are ready", 200, func() bool { return a.core.Ready() && b.core.Ready() })
}

func TestAllHostsRebootAtOnceAndAllAreReady(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 7} {
		w := newWorld(t, uint64(n), n)
		w.startAll()
		w.run(100)
		for _, h := range w.hosts {
			h.kill()
		}
		w.unvouched = true
		for _, h := range w.hosts {
			h.start()
		}
		t.Logf("%d hosts: all ready after %d ticks", n, w.until("all are ready", 200, w.ready))
	}
}

func TestAnOldCopyIsObjectedToAndNeverVotes(t *testing.T) {
	w := three(t, 24)
	h := w.follower()
	backup := h.store.Copy()
	h.taken(1)
	w.run(10)
	h.kill()
	h.store, h.w.unvouched = backup, true
	h.start()
	before := h.store.saved.Hard
	w.until("it is spent", 100, func() bool { return h.core.Spent() != "" })
	if h.core.Ready() || h.store.saved.Hard != before {
		t.Errorf("ready %v; it promised %+v, then %+v", h.core.Ready(), before, h.store.saved.Hard)
	}
	ticket := h.take(1)
	if d := h.results[ticket]; d.Err == nil {
		t.Errorf("it takes: %+v", d)
	}
	w.leader().taken(1)
	h.rebirth() // the router starts again under a new identity
	h.found = nil
	h.start()
	w.until("it is a member again", 200, h.core.Ready)
	if own := h.usable(subnet4); len(own) == 0 {
		t.Error("its blocks were not left to it, though its place proves that it is the same host")
	}
}

func TestAnOldCopyOfASoleVoterIsNoticedByWhoFollows(t *testing.T) {
	w := newWorld(t, 25, 2)
	w.startAll()
	w.run(50)
	a := w.leader()
	backup := a.store.Copy()
	for _, h := range w.hosts {
		h.taken(8)
	}
	w.run(10)
	a.kill()
	a.store, w.unvouched = backup, true
	a.start()
	w.until("it is spent", 120, func() bool { return a.core.Spent() != "" })
}

func TestAStateDirectoryFromAnotherMachineIsRefused(t *testing.T) {
	w := three(t, 26)
	h := w.follower()
	h.kill()
	h.place.Machine = "another"
	w.unvouched = true
	h.start()
	w.until("it is spent", 50, func() bool { return strings.Contains(h.core.Spent(), "another machine") })
}

func TestARetiredHostThatComesBackIsNeverReady(t *testing.T) {
	w := three(t, 27)
	h, l := w.follower(), w.leader()
	h.taken(16)
	h.kill()
	l.propose(ledger.Command{Retire: &ledger.Retire{ID: h.id}})
	w.until("it is retired", 50, func() bool { m, _ := l.state.Member(h.id); return m.Retired })
	w.unvouched = true
	h.start()
	for range 200 {
		w.step()
		if h.core.Ready() {
			t.Fatal("it is ready")
		}
	}
	if !strings.Contains(h.core.Spent(), "given up as destroyed") {
		t.Errorf("it says %q", h.core.Spent())
	}
}

// Its state directory was put back from a copy of before it joined: the identity, and
// no ledger. So it knows nobody of those who tell it.
func TestARetiredIdentityWithoutALedgerIsToldSo(t *testing.T) {
	w := three(t, 28)
	h, l := w.follower(), w.leader()
	h.kill()
	l.propose(ledger.Command{Retire: &ledger.Retire{ID: h.id}})
	w.until("it is retired", 50, func() bool { m, _ := l.state.Member(h.id); return m.Retired })
	h.store = new(MemStore)
	w.unvouched = true
	h.start()
	w.until("it is spent", 100, func() bool { return strings.Contains(h.core.Spent(), "given up as destroyed") })
}

// replies hands a frame of c's to the host's core, and everything that it sends c then
// to each, with its frame.
func (h *host) replies(o Out, each func(*frame, []byte)) {
	h.core.Receive("c", o.Frame)
	for h.core.Pending() {
		_ = h.store.Save(h.core.Begin())
		for _, out := range h.core.Finish().Send {
			f, err := decodeFrame(h.w.codec, out.Frame)
			if err != nil {
				h.w.t.Fatal(err)
			}
			if out.To == "c" {
				each(f, out.Frame)
			}
		}
	}
}

// deliver hands a frame of one core to another host's, and gives what that answers.
func (h *host) deliver(from *Core, o Out) (kinds []uint8) {
	h.replies(o, func(f *frame, _ []byte) {
		if f.About == from.life {
			kinds = append(kinds, f.Kind)
		}
	})
	return kinds
}

// copyOf starts a copy of a host's state directory somewhere else.
func copyOf(t *testing.T, h *host, s *MemStore, nonce uint32) *Core {
	saved, _ := s.Load()
	c, _, err := NewCore(CoreConfig{Self: ledger.Member{ID: h.id, Name: string(h.name), Place: h.place}, Saved: saved, Nonce: nonce})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asks are the copy's questions to one host.
func asks(c *Core, to *host) (sent []Out) {
	for range joinTicks + 1 {
		c.Tick()
	}
	for c.Pending() {
		c.Begin()
		for _, o := range c.Finish().Send {
			if o.To == to.name {
				sent = append(sent, o)
			}
		}
	}
	return sent
}

func TestACopyThatIsStartedWhileTheOriginalRunsIsNotAnswered(t *testing.T) {
	w := three(t, 28)
	h, a := w.hosts[2], w.hosts[0]
	c := copyOf(t, h, h.store.Copy(), 1)
	for _, o := range asks(c, a) {
		if got := a.deliver(c, o); len(got) != 0 {
			t.Errorf("it was answered: %v", got)
		}
	}
	w.run(50)
	if why := h.core.Spent(); why != "" || !h.core.Ready() {
		t.Errorf("the original: %q", why)
	}
	h.kill()
	w.run(twinTicks + 1)
	var got []uint8
	for _, o := range asks(c, a) {
		got = append(got, a.deliver(c, o)...)
	}
	if !slices.Contains(got, kindAnswer) {
		t.Errorf("the original is silent, and it was answered %v", got)
	}
}

// answered hands a copy's questions to one host, and its answers to the copy.
func (h *host) answered(c *Core) (kinds []uint8) {
	for _, o := range asks(c, h) {
		h.replies(o, func(f *frame, raw []byte) {
			if f.About == c.life || f.Kind == kindRefused {
				kinds = append(kinds, f.Kind)
				c.Receive(h.name, raw)
			}
		})
	}
	return kinds
}

// Who only follows need not have heard the original, though it lives.
func TestACopyIsNotAcquittedByAFollowerWhileTheLeaderHearsTheOriginal(t *testing.T) {
	w := three(t, 34)
	for w.leader().name == "c" {
		w.leader().kill()
		w.run(30)
		w.hosts[2].start()
		w.run(30)
	}
	h, l := w.hosts[2], w.leader()
	other := w.hosts[1-slices.Index(w.hosts, l)]
	w.run(twinTicks + 10)
	c := copyOf(t, h, h.store.Copy(), 1)
	cleared := false
	for range 12 {
		cleared = slices.Contains(other.answered(c), kindAnswer) || cleared
		w.run(joinTicks + 1)
	}
	if !cleared {
		t.Fatal("the other follower knows better: nothing is shown")
	}
	if c.trial == nil || c.ticks < objectTicks {
		t.Fatalf("acquitted after %d ticks", c.ticks)
	}
	if got := l.answered(c); slices.Contains(got, kindAnswer) || !strings.Contains(c.asking(), "may be a copy") {
		t.Errorf("the leader answers %v; it says %q", got, c.asking())
	}
	h.kill()
	w.run(twinTicks + 1)
	for range 3 {
		l.answered(c)
		other.answered(c)
		w.run(joinTicks + 1)
	}
	if c.trial != nil {
		t.Errorf("the original is silent: %s", c.asking())
	}
}

func TestACopyThatTheCarrierRefusesIsNotAcquitted(t *testing.T) {
	w := newWorld(t, 35, 2)
	w.startAll()
	w.run(50)
	a := w.leader()
	for _, h := range w.hosts {
		h.kill()
	}
	w.unvouched = true
	a.start() // the only voter: nobody but the carrier can object
	for range 2 * objectTicks {
		a.core.SetTwin("b refuses us")
		w.step()
	}
	if a.core.trial == nil || !strings.Contains(a.core.Status().Waiting, "may be a copy: b refuses us") {
		t.Fatalf("acquitted, or it says %q", a.core.Status().Waiting)
	}
	a.core.SetTwin("")
	w.until("it is ready", 2*objectTicks, a.core.Ready)
}

func TestOfTwoStartsFromOneCopyTheSecondIsToldSo(t *testing.T) {
	w := three(t, 29)
	h, a := w.hosts[2], w.hosts[0]
	h.kill()
	backup := h.store.Copy()
	h.start()
	w.run(10)
	c := copyOf(t, h, backup, h.core.NonceForTest()+1)
	if c.life.generation() != h.core.life.generation() {
		t.Fatal("not the same generation")
	}
	var got []uint8
	for _, o := range asks(c, a) {
		got = append(got, a.deliver(c, o)...)
	}
	if !slices.Contains(got, kindGone) {
		t.Errorf("it was told %v", got)
	}
	if w.run(20); h.core.Spent() != "" {
		t.Errorf("the original: %q", h.core.Spent())
	}
}

func (c *Core) NonceForTest() uint32 { return uint32(c.life) }

func TestWordsAboutAnotherLifeEndNobody(t *testing.T) {
	w := three(t, 30)
	h, a := w.hosts[2], w.hosts[0]
	send := func(kind uint8, about Life) {
		b, err := (&frame{Cluster: "c1", From: a.id, To: h.id, Life: a.core.life, Kind: kind, About: about, Words: "gone"}).pack(w.codec)
		if err != nil {
			t.Fatal(err)
		}
		h.core.Receive(a.name, b)
		h.settle()
	}
	send(kindGone, h.core.life-1)
	send(kindObjection, h.core.life)
	if h.core.Spent() != "" {
		t.Fatal("it is spent")
	}
	send(kindGone, h.core.life)
	if h.core.Spent() != "gone" {
		t.Errorf("it says %q", h.core.Spent())
	}
}

func TestARebootWithoutStateSucceedsItsFormerSelfWithAllBlocks(t *testing.T) {
	w := three(t, 31)
	h := w.follower()
	h.taken(256)
	own, old := h.usable(subnet4), h.id
	h.kill()
	h.rebirth()
	h.found, h.place.Boot = nil, "b2"
	h.start()
	if took := w.until("it is ready", 200, h.core.Ready); took < twinTicks-15 {
		t.Errorf("after %d ticks: a host of that name was heard a moment before", took)
	}
	if m, _ := h.state.Member(old); !m.Left || m.Replaced != h.id || !slices.Equal(h.usable(subnet4), own) {
		t.Errorf("%+v; it owns %v", m, h.usable(subnet4))
	}
}

func TestANewIdentityInTheSameNamespaceNeedNotWait(t *testing.T) {
	w := three(t, 32)
	h := w.follower()
	h.taken(256)
	h.kill()
	h.rebirth()
	h.found = nil
	h.start()
	if took := w.until("it is ready", 200, h.core.Ready); took > 40 {
		t.Errorf("it took %d ticks", took)
	}
}

func TestASecondLivingHostOfANameIsRefusedInWords(t *testing.T) {
	w := three(t, 33)
	for w.leader().name == "c" { // the twin's name
		w.leader().kill()
		w.run(30)
		w.hosts[2].start()
		w.run(30)
	}
	l := w.leader()
	c, _, err := NewCore(CoreConfig{Self: ledger.Member{ID: 77, Name: "c", Place: ledger.Place{Machine: "m-c", Boot: "b2", NetNS: "n"}}})
	if err != nil {
		t.Fatal(err)
	}
	c.SetPeers([]gossip.Peer{l.name})
	for range 3 {
		for _, o := range asks(c, l) {
			l.deliver(c, o)
		}
		w.run(10)
	}
	if _, ok := l.state.Member(77); ok {
		t.Error("it was let in")
	}
	if m, _ := l.state.MemberByName("c"); m.ID != w.hosts[2].id || w.hosts[2].core.Spent() != "" {
		t.Errorf("%+v", m)
	}
}
