package replica

import (
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/gossiptest"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

var (
	subnet4 = netip.MustParsePrefix("10.32.0.0/20")
	subnet6 = netip.MustParsePrefix("fd00:32::/64")
)

func foundCommand(cluster string) *ledger.Command {
	return &ledger.Command{Found: &ledger.Found{Cluster: cluster, Network: ledger.Network{
		Name: "weave", Driver: "weave", MTU: 1400, Subnets: []netip.Prefix{subnet4, subnet6},
	}}}
}

// world is many cores in one goroutine, in virtual time: what a simulator does.
type world struct {
	t      testing.TB
	seed   uint64
	rng    *rand.Rand
	fabric *gossiptest.Fabric
	hosts  []*host
	codec  wire.Codec
	at     map[uint64]string // the ledger after each entry, as the first host to apply it had it
	nextID uint64
	now    int    // ticks
	cut    uint64 // CompactAfter

	blind     bool // two hosts may own one address: the operator was wrong
	unvouched bool // nobody vouches for the state directories of hosts that start again
	mutate    Mutation
	crash     float64 // chance of a crash at each of the points where one may be
	tickSkew  float64 // chance that a host misses a tick
}

type host struct {
	w     *world
	name  gossip.Peer
	id    ledger.MemberID
	place ledger.Place
	found *ledger.Command
	store *MemStore
	core  *Core // nil: down
	state *ledger.State

	results map[uint64]Done // by ticket, since the start
	asked   map[uint64]ledger.Command
	offered []addr.Range // given back or about to be: no longer in use here
}

// newWorld makes n hosts named a, b, c, …; a founds.
func newWorld(t testing.TB, seed uint64, n int) *world {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 77)), fabric: gossiptest.New(seed), codec: wire.New(), at: make(map[uint64]string)}
	old := crand.Reader
	crand.Reader = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	t.Cleanup(func() { crand.Reader = old })
	for i := range n {
		h := &host{w: w, name: gossip.Peer(string(rune('a' + i)))}
		if i == 0 {
			h.found = foundCommand("c1")
		}
		w.fabric.Add(h.name)
		w.hosts = append(w.hosts, h)
		h.rebirth()
	}
	return w
}

// rebirth gives the host a new identity and an empty store.
func (h *host) rebirth() {
	h.w.nextID++
	h.id, h.store, h.offered = ledger.MemberID(1000*h.w.rng.Uint64N(1000)+h.w.nextID), new(MemStore), nil
}

func (h *host) start() {
	h.w.t.Helper()
	saved, _ := h.store.Load()
	core, first, err := NewCore(CoreConfig{
		Self: ledger.Member{ID: h.id, Name: string(h.name), Place: h.place}, Saved: saved, Found: h.found, CompactAfter: h.w.cut,
		Vouched: !h.w.unvouched, Nonce: h.w.rng.Uint32(), Mutate: h.w.mutate,
	})
	if err != nil {
		h.w.t.Fatalf("seed %d: start %s: %v", h.w.seed, h.name, err)
	}
	if !first.Empty() {
		_ = h.store.Save(first)
	}
	h.core, h.state = core, core.State()
	h.results, h.asked = make(map[uint64]Done), make(map[uint64]ledger.Command)
	net := h.w.fabric.Node(h.name)
	net.Handle(gossip.Ledger, func(from gossip.Peer, msg []byte) {
		if h.core != nil {
			h.core.Receive(from, slices.Clone(msg))
			h.settle()
		}
	})
	h.w.fabric.SetDown(h.name, false)
	h.w.peersChanged()
	h.w.check(h)
}

func (h *host) kill() {
	h.core = nil
	h.w.fabric.SetDown(h.name, true)
	h.w.peersChanged()
}

func (w *world) peersChanged() {
	for _, h := range w.hosts {
		if h.core != nil {
			h.core.SetPeers(w.fabric.Node(h.name).Peers())
		}
	}
}

// dies is true when the host is to crash here.
func (h *host) dies() bool {
	if h.w.crash > 0 && h.w.rng.Float64() < h.w.crash {
		h.kill()
		return true
	}
	return false
}

func (h *host) settle() {
	for h.core != nil && h.core.Pending() {
		b := h.core.Begin()
		if !b.Empty() {
			if h.dies() {
				return
			}
			if err := h.store.Save(b); err != nil {
				h.w.t.Fatalf("seed %d: %s: %v", h.w.seed, h.name, err)
			}
			if h.dies() {
				return
			}
		}
		e := h.core.Finish()
		if e.State != nil {
			h.state = e.State
			h.w.check(h)
		}
		for _, d := range e.Done {
			h.results[d.Ticket] = d
		}
		for _, o := range e.Send {
			if h.w.fabric.Node(h.name).Send(o.To, gossip.Ledger, o.Frame) != nil && o.ID != 0 {
				h.core.Unreachable(o.ID)
			}
		}
	}
}

// step is a tenth of a second: a tick at each host, and the messages in between.
func (w *world) step() {
	w.now++
	for _, h := range w.hosts {
		if h.core != nil && (w.tickSkew == 0 || w.rng.Float64() >= w.tickSkew) {
			h.core.Tick()
			h.settle()
		}
	}
	for range 40 {
		if w.fabric.Deliver(5) == 0 {
			return
		}
	}
}

func (w *world) run(ticks int) {
	for range ticks {
		w.step()
	}
}

// until steps until cond holds; it fails after max ticks.
func (w *world) until(what string, max int, cond func() bool) int {
	w.t.Helper()
	for i := range max {
		if cond() {
			return i
		}
		w.step()
	}
	for _, h := range w.hosts {
		if h.core != nil {
			w.t.Logf("%s: %+v leading %v index %d conf %v", h.name, h.core.Status(), h.core.leading, h.core.state.Index(), h.core.conf)
		}
	}
	w.t.Fatalf("seed %d: after %d ticks still not: %s", w.seed, max, what)
	return 0
}

func (w *world) up() (up []*host) {
	for _, h := range w.hosts {
		if h.core != nil {
			up = append(up, h)
		}
	}
	return up
}

func (w *world) leader() *host {
	for _, h := range w.up() {
		if h.core.Leading() {
			return h
		}
	}
	return nil
}

// allMembers: everybody who is up is a member in everybody's eyes, with equal ledgers.
func (w *world) agreed() bool {
	up := w.up()
	for _, h := range up {
		if m, ok := h.state.Member(h.id); !ok || !m.Live() {
			return false
		}
		if h.state.Index() != up[0].state.Index() || h.dump() != up[0].dump() {
			return false
		}
	}
	return true
}

func (w *world) ready() bool {
	return !slices.ContainsFunc(w.hosts, func(h *host) bool { return h.core == nil || !h.core.Ready() })
}

func (h *host) dump() string {
	return string(h.state.Dump().Append(nil))
}

// check asserts, for a host whose ledger has just changed: it is what every host
// had after that entry; and nothing that it may use may anybody else use.
func (w *world) check(h *host) {
	if w.blind {
		return
	}
	if i := h.state.Index(); i > 0 && w.at != nil {
		d := h.dump()
		if first, ok := w.at[i]; ok && first != d {
			w.t.Fatalf("seed %d: %s holds another ledger after entry %d", w.seed, h.name, i)
		}
		w.at[i] = d
	}
	h.offered = slices.DeleteFunc(h.offered, func(r addr.Range) bool {
		owner, ok := h.state.Owner("weave", r.First)
		return !ok || owner != h.id
	})
	for _, o := range w.hosts {
		if o == h || o.core == nil || h.core == nil {
			continue
		}
		for _, sub := range []netip.Prefix{subnet4, subnet6} {
			w.disjoint(h, h.usable(sub), o, o.usable(sub))
		}
	}
}

func (w *world) disjoint(h *host, a []addr.Range, o *host, b []addr.Range) {
	for _, x := range a {
		for _, y := range b {
			if x.Overlaps(y) {
				w.t.Fatalf("seed %d: %s uses %v at entry %d, %s uses %v at entry %d", w.seed, h.name, x, h.state.Index(), o.name, y, o.state.Index())
			}
		}
	}
}

// usable is what the host may hand out: its own, less what it has offered back.
func (h *host) usable(sub netip.Prefix) (rs []addr.Range) {
	for _, r := range h.state.Owned("weave", sub, h.id) {
		rest := []addr.Range{r}
		for _, o := range h.offered {
			rest = subtract(rest, o)
		}
		rs = append(rs, rest...)
	}
	return rs
}

func subtract(rs []addr.Range, o addr.Range) (rest []addr.Range) {
	for _, r := range rs {
		cut, ok := r.Within(o)
		if !ok {
			rest = append(rest, r)
			continue
		}
		if r.First.Less(cut.First) {
			rest = append(rest, addr.Range{First: r.First, Last: cut.First.Prev()})
		}
		if cut.Last.Less(r.Last) {
			rest = append(rest, addr.Range{First: cut.Last.Next(), Last: r.Last})
		}
	}
	return rest
}

func (h *host) propose(cmd ledger.Command) uint64 {
	ticket := h.core.Propose(cmd)
	h.asked[ticket] = cmd
	h.settle()
	return ticket
}

func (h *host) take(want uint64) uint64 {
	return h.propose(ledger.Command{Take: &ledger.Take{ID: h.id, Network: "weave", Subnet: subnet4, Want: want}})
}

// taken proposes and waits.
func (h *host) taken(want uint64) ledger.Result {
	h.w.t.Helper()
	ticket := h.take(want)
	h.w.until(fmt.Sprintf("%s's take is applied", h.name), 300, func() bool { _, ok := h.results[ticket]; return ok })
	d := h.results[ticket]
	if d.Err != nil || d.Result.Code != ledger.OK {
		h.w.t.Fatalf("seed %d: %s takes %d: %+v", h.w.seed, h.name, want, d)
	}
	return d.Result
}

// startAll starts every host and waits until all are members.
func (w *world) startAll() int {
	w.t.Helper()
	for _, h := range w.hosts {
		h.start()
	}
	return w.until("everybody has joined", 300, w.joined)
}

func (w *world) joined() bool {
	for _, h := range w.up() {
		if !w.agreed() || len(h.state.Members()) < len(w.hosts) {
			return false
		}
	}
	return true
}
