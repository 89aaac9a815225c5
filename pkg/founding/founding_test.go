package founding

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

var network = &ledger.Network{Name: "weave", Driver: "weave", MTU: 1400, Subnets: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}}

// world is n hosts in one goroutine, with a network that loses, repeats and reorders.
type world struct {
	t       testing.TB
	seed    uint64
	rng     *rand.Rand
	hosts   []*host
	wires   []envelope
	loss    float64
	cut     map[[2]gossip.Peer]bool
	mistake bool
	decided map[string]int // cluster ids, by whom
}

type host struct {
	w       *world
	name    gossip.Peer
	id      ledger.MemberID
	durable Saved
	core    *Core
}

type envelope struct {
	from, to gossip.Peer
	msg      []byte
}

func newWorld(t testing.TB, seed uint64, n int) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 5)), cut: map[[2]gossip.Peer]bool{}, decided: map[string]int{}}
	for i := range n {
		w.hosts = append(w.hosts, &host{w: w, name: gossip.Peer(rune('a' + i)), id: ledger.MemberID(i + 1)})
	}
	return w
}

func (w *world) names() (out []gossip.Peer) {
	for _, h := range w.hosts {
		out = append(out, h.name)
	}
	return out
}

func (h *host) start() {
	h.w.t.Helper()
	c, err := New(Config{Self: Host{h.name, h.id}, Hosts: h.w.names(), Cluster: fmt.Sprint("of-", h.name, h.id), Network: network, Saved: h.durable, Forgetful: h.w.mistake})
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.core = c
	h.settle(0)
}

// lose wipes the state directory: the host comes back as somebody else.
func (h *host) lose() { h.core, h.durable, h.id = nil, Saved{}, h.id+100 }

// settle saves, then sends; with that chance the host dies before or after it saved.
func (h *host) settle(crash float64) {
	for h.core != nil && h.core.Pending() {
		s, changed := h.core.Begin()
		if changed && h.w.rng.Float64() < crash {
			h.core = nil
			return
		}
		if changed {
			h.durable = s
		}
		if h.w.rng.Float64() < crash {
			h.core = nil
			return
		}
		for _, o := range h.core.Finish() {
			h.w.wires = append(h.w.wires, envelope{h.name, o.To, o.Msg})
		}
	}
	if h.durable.Decided != nil {
		h.w.decided[h.durable.Decided.Cluster]++
	}
}

func (w *world) host(name gossip.Peer) *host { return w.hosts[slices.Index(w.names(), name)] }

func (w *world) tick(crash float64) {
	for _, h := range w.hosts {
		if h.core != nil {
			h.core.Tick()
			h.settle(crash)
		}
	}
	for n := len(w.wires); n > 0 && len(w.wires) > 0; n-- {
		i := w.rng.IntN(min(len(w.wires), 4))
		e := w.wires[i]
		if w.rng.Float64() >= w.loss/2 { // else it is repeated
			w.wires = slices.Delete(w.wires, i, i+1)
		}
		to := w.host(e.to)
		if to.core == nil || w.cut[[2]gossip.Peer{e.from, e.to}] || w.rng.Float64() < w.loss {
			continue
		}
		to.core.Receive(e.from, e.msg)
		to.settle(crash)
	}
}

func (w *world) agreed() bool {
	for _, h := range w.hosts {
		if h.core == nil || h.core.Decided() == nil {
			return false
		}
	}
	return len(w.decided) == 1
}

// run ticks until everybody knows the decision.
func (w *world) run(max int) int {
	w.t.Helper()
	for i := range max {
		if w.agreed() {
			return i
		}
		w.tick(0)
	}
	for _, h := range w.hosts {
		if h.core != nil {
			w.t.Logf("%s: %s", h.name, h.core.Waiting())
		}
	}
	w.t.Fatalf("seed %d: nothing decided within %d ticks, or two things: %v", w.seed, max, w.decided)
	return 0
}

func TestHostsStartedTogetherFoundOneClusterWithinTwoSeconds(t *testing.T) {
	for n := 1; n <= 5; n++ {
		w := newWorld(t, 1, n)
		for _, h := range w.hosts {
			h.start()
		}
		if took := w.run(200); took > 20 {
			t.Errorf("%d hosts took %d ticks", n, took)
		}
	}
}

func TestAMajorityDecidesOnceAllHaveMet(t *testing.T) {
	w := newWorld(t, 1, 3)
	for _, h := range w.hosts {
		h.start()
		h.core.tryAt = 1 << 40
	}
	for range 20 {
		w.tick(0)
	}
	w.hosts[0].core.tryAt, w.hosts[2].core = 0, nil
	for range 60 {
		w.tick(0)
	}
	if w.hosts[0].core.Decided() == nil || w.hosts[1].core.Decided() == nil {
		t.Fatalf("two of three that have met all do not decide: %s", w.hosts[0].core.Waiting())
	}
	w.hosts[2].start()
	w.run(100)
}

func TestAHostThatWasNeverMetIsWaitedForInWords(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.hosts[0].start()
	w.hosts[1].start()
	for range 100 {
		w.tick(0)
	}
	if len(w.decided) > 0 {
		t.Fatal("decided with a host that nobody has met: its other life may have decided something else")
	}
	if got := w.hosts[0].core.Waiting(); !strings.Contains(got, "host c has not been met yet") {
		t.Errorf("waiting %q", got)
	}
}

// TestAHostThatForgotOnlyLearns: a and the first b decide; b forgets; c never heard of it.
func TestAHostThatForgotOnlyLearns(t *testing.T) {
	for _, mistake := range []bool{false, true} {
		w := newWorld(t, 1, 3)
		w.mistake = mistake
		for _, h := range w.hosts {
			h.start()
			h.core.tryAt = 1 << 40
		}
		for range 20 {
			w.tick(0)
		}
		a, b, c := w.hosts[0], w.hosts[1], w.hosts[2]
		w.wires = nil
		c.core = nil
		a.core.tryAt = 0
		for range 60 {
			w.tick(0)
		}
		if a.core.Decided() == nil {
			t.Fatal("not decided")
		}
		a.core = nil
		w.wires = nil
		b.lose()
		b.start()
		c.start()
		for range 300 {
			w.tick(0)
		}
		if two := len(w.decided) > 1; two != mistake {
			t.Errorf("forgetful %v: decided %v", mistake, w.decided)
		}
		if mistake {
			continue
		}
		a.start()
		w.run(100)
	}
}

func TestHostsWithDifferentListsSaySo(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.hosts[0].start()
	c, err := New(Config{Self: Host{"b", 2}, Hosts: []gossip.Peer{"a", "b"}, Cluster: "x", Network: network})
	if err != nil {
		t.Fatal(err)
	}
	c.Tick()
	for _, o := range c.Finish() {
		w.hosts[0].core.Receive("b", o.Msg)
	}
	if got := w.hosts[0].core.Waiting(); !strings.Contains(got, "host b was started with another list, a,b") {
		t.Errorf("waiting %q", got)
	}
	if _, err := New(Config{Self: Host{"z", 2}, Hosts: []gossip.Peer{"a", "b"}, Cluster: "x", Network: network}); err == nil {
		t.Error("a host that is not in its own list founds with others")
	}
}

// greets has a host with a list of its own say hello to another.
func greets(t *testing.T, to *Core, name gossip.Peer, list ...gossip.Peer) {
	t.Helper()
	c, err := New(Config{Self: Host{name, 9}, Hosts: list, Cluster: "q", Network: network})
	if err != nil {
		t.Fatal(err)
	}
	c.Tick()
	for _, o := range c.Finish() {
		if o.To == to.cfg.Self.Name {
			to.Receive(name, o.Msg)
		}
	}
}

func TestOnlyHostsThatLostTheirStateMakeAFoundingHopeless(t *testing.T) {
	w := newWorld(t, 1, 3)
	for _, h := range w.hosts {
		h.start()
		h.core.tryAt = 1 << 40
	}
	for range 20 {
		w.tick(0)
	}
	a, b, c := w.hosts[0].core, w.hosts[1], w.hosts[2]
	for _, name := range []gossip.Peer{"x", "y", "z"} { // on nobody's list but their own
		greets(t, a, name, "a", name)
	}
	for _, name := range []gossip.Peer{"b", "c"} { // to be started again with the right one
		greets(t, a, name, "a", name)
	}
	if got := a.Waiting(); strings.Contains(got, "never") || !strings.Contains(got, "host b was started with another list, a,b; host c was started with another list, a,c") {
		t.Errorf("with wrong lists: waiting %q", got)
	}
	b.lose()
	c.lose()
	b.start()
	c.start()
	for range 20 {
		w.tick(0)
	}
	if got := a.Waiting(); !strings.Contains(got, "can never end (host b took part before and has lost its state directory") {
		t.Errorf("with the state of two lost: waiting %q", got)
	}
}

func TestAFounderThatStaysAwayIsWaitedForInWords(t *testing.T) {
	w := newWorld(t, 1, 3)
	for _, h := range w.hosts {
		h.start()
	}
	a := w.hosts[0]
	for range 100 {
		if a.core != nil && a.core.value != nil { // what it asks to accept arrives, the answers do not
			w.cut[[2]gossip.Peer{"b", "a"}], w.cut[[2]gossip.Peer{"c", "a"}] = true, true
			w.tick(0)
			a.lose()
		}
		w.tick(0)
	}
	clear(w.cut)
	for _, h := range w.hosts[1:] {
		if h.core.Decided() == nil || h.core.Decided().Founder.ID != 1 {
			t.Fatalf("%s decided %+v", h.name, h.core.Decided())
		}
		if got := h.core.Waiting(); !strings.Contains(got, "it is decided that host a founds the cluster: start it") || !strings.Contains(got, "stop the router on every one of a,b,c") {
			t.Errorf("%s: waiting %q", h.name, got)
		}
	}
	a.start()
	w.run(100)
	if got := a.core.Waiting(); !strings.Contains(got, "an earlier life of this host founds the cluster") || !strings.Contains(got, "stop the router on every one of a,b,c") {
		t.Errorf("a: waiting %q", got)
	}
	for _, h := range w.hosts { // one after the other is of no use
		h.lose()
		h.start()
		w.run(100)
	}
	for _, h := range w.hosts { // all at once is
		h.lose()
	}
	w.wires = nil
	clear(w.decided)
	for _, h := range w.hosts {
		h.start()
	}
	w.run(100)
	if got := a.core.Decided().Founder; w.host(got.Name).id != got.ID {
		t.Errorf("decided on an earlier life of %s", got.Name)
	}
}

// schedule is one seed: crashes at every point where something is saved, one way cuts,
// loss, and a minority that loses its state directory.
func schedule(t testing.TB, seed uint64, mistake bool) (decisions int) {
	w := newWorld(t, seed, 2+int(seed%4))
	w.mistake = mistake
	lost, may := 0, (len(w.hosts)-1)/2
	for _, h := range w.hosts {
		h.start()
	}
	w.loss = w.rng.Float64() * 0.3
	for range 120 {
		switch h, o := w.hosts[w.rng.IntN(len(w.hosts))], w.hosts[w.rng.IntN(len(w.hosts))]; w.rng.IntN(60) {
		case 0, 1, 2, 3:
			w.cut[[2]gossip.Peer{h.name, o.name}] = true
		case 4, 5:
			clear(w.cut)
		case 6, 7, 8: // one is alone
			for _, o := range w.hosts {
				w.cut[[2]gossip.Peer{h.name, o.name}], w.cut[[2]gossip.Peer{o.name, h.name}] = true, true
			}
		case 9, 10, 11:
			if lost < may && w.rng.IntN(3) == 0 && h.id < 100 {
				lost++
				h.lose()
			}
			h.core = nil
		case 12, 13, 14, 15, 16, 17:
			if h.core == nil {
				h.start()
			}
		}
		w.tick(0.02)
		if len(w.decided) > 1 {
			return 2
		}
	}
	w.loss = 0
	clear(w.cut)
	for _, h := range w.hosts {
		if h.core == nil {
			h.start()
		}
	}
	if mistake {
		return len(w.decided)
	}
	w.run(800)
	return len(w.decided)
}

func TestRandomSchedulesDecideOneThing(t *testing.T) {
	n := uint64(3000)
	if testing.Short() {
		n = 300
	}
	for seed := range n {
		if got := schedule(t, seed, false); got != 1 {
			t.Fatalf("seed %d: %d decisions", seed, got)
		}
	}
}

func TestTheSchedulesFindAHostThatForgetsItsPromise(t *testing.T) {
	for seed := range uint64(2000) {
		if schedule(t, seed, true) > 1 {
			t.Logf("found by seed %d", seed)
			return
		}
	}
	t.Error("2000 schedules do not find it: they are too tame")
}

// FuzzReceive: any bytes, from anybody of the list, panic nobody and decide nothing
// unless they say that it was decided.
func FuzzReceive(f *testing.F) {
	codec := wire.New()
	v := &Value{"c", Host{"b", 2}, network}
	for _, m := range []message{
		{Kind: kindHello, Met: 1},
		{Kind: kindPrepare, Met: 1, Ballot: Ballot{3, "b"}},
		{Kind: kindPromise, Met: 1, Ballot: Ballot{1, "a"}, Accepted: Ballot{1, "a"}, Value: v},
		{Kind: kindAccept, Met: 1, Ballot: Ballot{3, "b"}, Value: v},
		{Kind: kindAccepted, Met: 1, Ballot: Ballot{1, "a"}},
		{Kind: kindDecided, Value: v},
		{Kind: kindPrepare, Ballot: Ballot{1 << 63, "b"}},
		{Kind: 77},
	} {
		m.From, m.Hosts = Host{"b", 2}, []gossip.Peer{"a", "b", "c"}
		b, err := codec.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := New(Config{Self: Host{"a", 1}, Hosts: []gossip.Peer{"a", "b", "c"}, Cluster: "x", Network: network})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c.Receive("b", b)
			c.Tick()
			c.Begin()
			c.Finish()
		}
		if d := c.Decided(); d != nil {
			if err := d.check(); err != nil {
				t.Fatalf("decided %+v: %v", d, err)
			}
		}
	})
}
