package replica

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/gossiptest"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

func TestAClusterFormsAndEveryMemberGetsItsBlocks(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, uint64(n), n)
			t.Logf("joined after %d ticks", w.startAll())
			w.until("a leader", 20, func() bool { return w.leader() != nil })
			for _, h := range w.hosts {
				before := w.now
				res := h.taken(256)
				if res.Ranges[0].Size() != 256 {
					t.Errorf("%s got %v", h.name, res.Ranges)
				}
				if took := w.now - before; took > 2 || n == 1 && took > 1 {
					t.Errorf("%s waited %d ticks with nothing in the way", h.name, took)
				}
			}
			want := map[int]int{1: 1, 2: 1, 3: 3, 5: 5, 7: 5}[n]
			w.until("the voters are chosen", 200, func() bool { return len(w.leader().core.Status().Voters) == want })
			w.until("agreement", 100, w.agreed)
			for _, h := range w.hosts {
				if s := h.core.Status(); s.Waiting != "" || s.Leader == "" || s.Members != n {
					t.Errorf("%s: %+v", h.name, s)
				}
				s := h.core.Status()
				if s.Leads != (s.Leader == string(h.name)) || s.Votes != slices.Contains(s.Voters, string(h.name)) || s.Decided != s.Index || s.Index == 0 {
					t.Errorf("%s: %+v", h.name, s)
				}
			}
		})
	}
}

func TestTheLeaderIsKilledAndComesBack(t *testing.T) {
	for _, n := range []int{3, 5, 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, uint64(n), n)
			w.startAll()
			w.until("at least three voters", 200, func() bool { return len(w.leader().core.conf.Voters) >= 3 })
			w.run(20)
			old := w.leader()
			old.kill()
			i := slices.IndexFunc(w.hosts, func(h *host) bool { return h != old })
			t.Logf("served again after %d ticks", w.until("another leads", 100, func() bool { return w.leader() != nil }))
			w.hosts[i].taken(512)
			old.start()
			if old.state.Index() == 0 {
				t.Error("the ledger is not there at once after a restart")
			}
			w.until("the old leader has caught up", 100, w.agreed)
			old.taken(16)
		})
	}
}

func TestAllHostsRestartAtOnce(t *testing.T) {
	w := newWorld(t, 9, 5)
	w.startAll()
	w.hosts[2].taken(300)
	w.run(50)
	for _, h := range w.hosts {
		h.kill()
	}
	for _, h := range w.hosts {
		before := h.state.Index()
		h.start()
		if got := h.state.Index(); got != before || len(h.state.Owned("weave", subnet4, w.hosts[2].id)) == 0 {
			t.Errorf("%s: had entry %d, after the restart %d", h.name, before, got)
		}
	}
	w.until("a leader", 100, func() bool { return w.leader() != nil })
	w.hosts[4].taken(16)
}

func TestAHostThatLostEverythingJoinsAgainAsANewMember(t *testing.T) {
	for _, n := range []int{3, 5, 7} {
		for _, who := range []int{0, n - 1} {
			t.Run(fmt.Sprintf("%d of %d", who, n), func(t *testing.T) {
				w := newWorld(t, uint64(n+who), n)
				w.startAll()
				w.until("three voters", 200, func() bool { return len(w.leader().core.conf.Voters) >= 3 })
				h := w.hosts[who]
				old := h.id
				h.taken(256)
				h.kill()
				w.run(5)
				h.rebirth()
				h.found = nil // it is told its peers now
				h.start()
				w.until("it is a member again", 200, func() bool { _, ok := h.state.Member(h.id); return ok })
				if m, _ := h.state.Member(old); m.Replaced != h.id || len(h.state.Owned("weave", subnet4, old)) != 1 {
					t.Errorf("its predecessor: %+v", m)
				}
				h.taken(256)
				w.until("the predecessor has no vote", 300, func() bool {
					return w.leader() != nil && !w.leader().core.conf.has(uint64(old)) && len(w.leader().core.conf.Voters)%2 == 1
				})
			})
		}
	}
}

func TestAMinorityServesNothingAndSaysWhy(t *testing.T) {
	w := newWorld(t, 4, 5)
	w.startAll()
	w.until("five voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 5 })
	old := w.leader()
	other := w.hosts[(slices.Index(w.hosts, old)+1)%5]
	w.fabric.Split(old.name, other.name)
	w.peersChanged()
	ticket := old.take(16)
	w.run(40)
	if _, ok := old.results[ticket]; ok {
		t.Fatal("a minority changed the ledger")
	}
	if why := old.core.Status().Waiting; !strings.HasPrefix(why, "no majority: 3 of the 5 voters cannot be reached (") {
		t.Errorf("it says %q", why)
	}
	i := slices.IndexFunc(w.hosts, func(h *host) bool { return h != old && h != other })
	w.hosts[i].taken(16)
	w.fabric.Heal()
	w.peersChanged()
	w.until("the minority's proposal is served", 100, func() bool { _, ok := old.results[ticket]; return ok })
	w.until("agreement", 100, w.agreed)
}

func TestASilentVoterIsReplacedAfterAMinuteNotBefore(t *testing.T) {
	w := newWorld(t, 5, 7)
	w.startAll()
	w.until("five voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 5 })
	l := w.leader()
	dead := w.hosts[slices.IndexFunc(w.hosts, func(h *host) bool {
		return h != l && slices.Contains(l.core.conf.Voters, uint64(h.id))
	})]
	dead.kill()
	w.run(500)
	if !slices.Contains(w.leader().core.conf.Voters, uint64(dead.id)) {
		t.Fatal("replaced too soon")
	}
	w.until("it is replaced", 300, func() bool {
		c := w.leader().core.conf
		return !slices.Contains(c.Voters, uint64(dead.id)) && len(c.Voters) == 5
	})
	dead.start()
	w.until("it follows", 100, w.agreed)
}

func TestTheLeaderMayLeave(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		w := newWorld(t, uint64(n), n)
		w.startAll()
		w.run(50)
		l := w.leader()
		l.taken(256)
		ticket := l.propose(ledger.Command{Leave: &ledger.Leave{ID: l.id}})
		w.until("it has left", 100, func() bool { _, ok := l.results[ticket]; return ok })
		w.until("another leads", 300, func() bool { x := w.leader(); return x != nil && x != l })
		w.run(100)
		if why := l.core.Status().Waiting; !strings.Contains(why, "has left the cluster") {
			t.Errorf("it says %q", why)
		}
		bad := l.take(1)
		l.settle()
		if d := l.results[bad]; !errors.Is(d.Err, ErrGone) {
			t.Errorf("a take after leaving: %+v", d)
		}
		x := w.leader()
		if len(x.state.Owned("weave", subnet4, l.id)) != 0 || x.core.conf.has(uint64(l.id)) {
			t.Errorf("%d hosts: it is still there: %v", n, x.core.conf)
		}
		x.taken(16)
	}
}

func TestALongAbsenceIsMadeUpByASnapshot(t *testing.T) {
	w := newWorld(t, 6, 3)
	w.cut = 20
	w.startAll()
	w.until("three voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 3 })
	l := w.leader()
	away := w.hosts[(slices.Index(w.hosts, l)+1)%3]
	away.kill()
	w.run(5)
	for range 100 {
		l.taken(1)
	}
	if saved, _ := l.store.Load(); len(saved.Entries) > 45 {
		t.Errorf("the log was not cut: %d entries", len(saved.Entries))
	}
	away.start()
	w.until("agreement", 100, w.agreed)
	if saved, _ := away.store.Load(); saved.Snapshot.Index < 50 {
		t.Errorf("no snapshot came: %d", saved.Snapshot.Index)
	}
	away.kill()
	away.start()
	w.until("agreement after one more restart", 100, w.agreed)
}

func TestALargeSnapshotComesInPartsThroughLoss(t *testing.T) {
	w := newWorld(t, 7, 2)
	w.cut = 1 << 40
	w.at = nil // it would encode the large ledger again and again
	w.hosts[0].start()
	a := w.hosts[0]
	w.until("a leader", 10, func() bool { return w.leader() != nil })
	for i := range 8000 { // every second address: many pieces
		sum, _ := addr.Add(subnet6.Addr(), uint64(2*i+2))
		a.propose(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: a.id, Network: "weave", Addr: sum}})
	}
	if n := len(a.dump()); n < partSize+partSize/4 {
		t.Fatalf("the ledger has %d bytes only", n)
	}
	w.fabric.Set(gossiptest.Faults{Loss: 0.3})
	w.hosts[1].start()
	t.Logf("%d bytes joined after %d ticks", len(a.dump()), w.until("it is there", 1000, w.joined))
}

func TestTwoClustersNeverMix(t *testing.T) {
	w := newWorld(t, 8, 4)
	w.hosts[3].found = foundCommand("c2")
	w.at = nil // two ledgers: no comparison by index
	for _, h := range w.hosts {
		h.start()
	}
	w.run(100)
	for _, h := range w.hosts[:1] {
		if h.state.Cluster() != "c1" || w.hosts[3].state.Cluster() != "c2" {
			t.Fatal("a cluster was lost")
		}
	}
	for _, h := range w.hosts[1:3] {
		if m, ok := h.state.Member(h.id); !ok || !m.Live() {
			t.Errorf("%s joined neither: %+v", h.name, h.core.Status())
		}
	}
	var dropped uint64
	for _, h := range w.hosts {
		dropped += h.core.Counters().WrongCluster
	}
	t.Logf("%d frames of the other cluster dropped", dropped)
}

func TestAnIdentityWithoutItsLedgerIsToldSo(t *testing.T) {
	w := newWorld(t, 10, 3)
	w.startAll()
	w.until("three voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 3 })
	w.run(30)
	h := w.hosts[(slices.Index(w.hosts, w.leader())+1)%3]
	h.kill()
	h.store, h.found = new(MemStore), nil
	h.start()
	w.until("it says so", 100, func() bool { return strings.Contains(h.core.Status().Waiting, "its copy of the ledger is gone") })
	w.leader().taken(16) // the others go on
	l := w.leader()
	l.kill() // one voter is left, and one that must not vote
	w.run(100)
	if saved, _ := h.store.Load(); w.leader() != nil || saved.Hard.Vote != 0 {
		t.Error("it voted under an identity whose votes it forgot")
	}
	l.start()
	w.until("a leader", 100, func() bool { return w.leader() != nil })
}

func TestAnOldCopyOfTheStateDirectoryIsNoticed(t *testing.T) {
	w := newWorld(t, 11, 3)
	w.startAll()
	w.until("three voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 3 })
	w.run(30)
	h := w.hosts[(slices.Index(w.hosts, w.leader())+1)%3]
	backup := h.store.Copy()
	for range 20 {
		w.leader().taken(1)
	}
	w.run(10)
	h.kill()
	h.store = backup
	h.start()
	w.until("it says so", 100, func() bool {
		return strings.Contains(h.core.Status().Waiting, "older than what this host has promised")
	})
	w.leader().taken(16)
}

func TestAStoreOfAnotherMemberIsWiped(t *testing.T) {
	w := newWorld(t, 12, 1)
	w.startAll()
	h := w.hosts[0]
	h.kill()
	h.id++
	h.found = nil
	h.start()
	if h.state.Index() != 0 {
		t.Error("another member's ledger was taken over")
	}
	if saved, _ := h.store.Load(); saved.Owner != h.id || len(saved.Entries) != 0 || saved.Snapshot.Index != 0 {
		t.Errorf("it was not wiped: %+v", saved)
	}
}

func TestAProposalIsCarriedOutOnceThoughMessagesRepeatAndLeadersChange(t *testing.T) {
	w := newWorld(t, 13, 5)
	w.startAll()
	w.run(100)
	w.fabric.Set(gossiptest.Faults{Loss: 0.2, Repeat: 0.5, Reorder: 0.5})
	want := make(map[*host]uint64)
	for range 20 {
		tickets := make(map[*host]uint64)
		for _, h := range w.hosts {
			tickets[h] = h.take(1)
		}
		w.fabric.Deliver(10)
		if l := w.leader(); l != nil {
			w.fabric.Split(l.name) // whatever it put into its log may come to nothing, or not
			w.peersChanged()
			w.run(30)
			w.fabric.Heal()
			w.peersChanged()
		}
		for _, h := range w.hosts {
			ticket := tickets[h]
			w.until("the take is applied", 300, func() bool { _, ok := h.results[ticket]; return ok })
			want[h] += h.results[ticket].Result.Ranges[0].Size()
		}
	}
	w.fabric.Set(gossiptest.Faults{})
	w.until("agreement", 200, w.agreed)
	for _, h := range w.hosts {
		var got uint64
		for _, r := range h.state.Owned("weave", subnet4, h.id) {
			got += r.Size()
		}
		if got != want[h] {
			t.Errorf("%s owns %d addresses, was told of %d", h.name, got, want[h])
		}
	}
}

// TestRandomSchedules is the small brother of the simulator: everything that can
// go wrong goes wrong, and after every step no address has two users and every
// ledger is what every other was at that entry. Afterwards all is mended, and all agree.
func TestRandomSchedules(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 50
	}
	if n, err := strconv.Atoi(os.Getenv("REPLICA_SEEDS")); err == nil {
		seeds = n // more, by hand
	}
	for seed := range seeds {
		schedule(t, uint64(seed))
	}
}

func schedule(t testing.TB, seed uint64) {
	n := []int{1, 2, 3, 3, 4, 5, 5, 7}[seed%8]
	w := newWorld(t, seed, n)
	w.cut, w.unvouched = 10+seed%40, seed/8%2 == 1
	w.fabric.Set(gossiptest.Faults{Loss: 0.1 * w.rng.Float64(), Repeat: 0.2 * w.rng.Float64(), Reorder: 0.4 * w.rng.Float64()})
	w.tickSkew = 0.1 * w.rng.Float64()
	w.hosts[0].start()
	for range 300 {
		w.event()
		w.step()
	}
	w.mend()
	w.until("all agree after the healing", 400, func() bool { return w.leader() != nil && w.agreed() && w.ready() })
	for _, h := range w.hosts {
		h.taken(1)
	}
	w.until("all agree at the end", 200, w.agreed)
}

// event is one random thing.
func (w *world) event() {
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	w.crash = 0
	if w.rng.IntN(3) == 0 {
		w.crash = 0.01
	}
	switch w.rng.IntN(24) {
	case 0, 1, 2:
		if h.core == nil {
			w.crash = 0
			h.start()
		}
	case 3:
		if h.core != nil && w.rng.IntN(2) == 0 {
			h.kill()
		}
	case 4:
		w.fabric.Cut(h.name, w.hosts[w.rng.IntN(len(w.hosts))].name)
		w.peersChanged()
	case 5:
		w.fabric.Split(h.name)
		w.peersChanged()
	case 6, 7:
		w.fabric.Heal()
		w.peersChanged()
	case 8, 9, 10, 11:
		h.randomCommand()
	case 12:
		w.wipe(h)
	}
}

// wipe loses a host's memory, where that cannot cost the majority.
func (w *world) wipe(h *host) {
	l := w.leader()
	if l == nil || l == h || !l.core.quorumThere() || h.core == nil || l.state.Index() < l.core.confAt {
		return // a vote may be on its way to h
	}
	voters := l.core.conf.Voters
	if slices.Contains(voters, uint64(h.id)) && (len(voters) < 3 || len(w.up()) < len(w.hosts)) || h.found != nil {
		return
	}
	for _, o := range w.hosts { // nobody else may be reborn and not yet in its predecessor's place
		if m, ok := l.state.Member(o.id); !ok || !m.Live() || l.core.conf.has(uint64(m.Replaced)) {
			return
		}
	}
	for _, m := range l.state.Members() {
		if !m.Live() && slices.Contains(voters, uint64(m.ID)) {
			return
		}
	}
	h.kill()
	h.rebirth()
	h.start()
}

func (h *host) randomCommand() {
	if h.core == nil {
		return
	}
	rng := h.w.rng
	sub := subnet4
	if rng.IntN(3) == 0 {
		sub = subnet6
	}
	switch rng.IntN(4) {
	case 0, 1:
		h.propose(ledger.Command{Take: &ledger.Take{ID: h.id, Network: "weave", Subnet: sub, Want: 1 + rng.Uint64N(400), Early: rng.IntN(2) == 0}})
	case 2:
		a, _ := addr.Add(sub.Addr(), rng.Uint64N(1000))
		h.propose(ledger.Command{TakeAddr: &ledger.TakeAddr{ID: h.id, Network: "weave", Addr: a}})
	case 3:
		h.giveSome(rng, sub.String())
	}
}

// giveSome stops using a range, and then gives it back.
func (h *host) giveSome(rng *rand.Rand, _ string) {
	own := h.usable(subnet4)
	if len(own) == 0 {
		return
	}
	r := own[rng.IntN(len(own))].Aligned(1 + rng.Uint64N(64))
	h.offered = append(h.offered, r)
	h.propose(ledger.Command{Give: &ledger.Give{ID: h.id, Network: "weave", Ranges: []addr.Range{r}}})
}

func (w *world) mend() {
	w.crash, w.tickSkew = 0, 0
	w.fabric.Heal()
	w.fabric.Set(gossiptest.Faults{})
	for _, h := range w.hosts {
		if h.core == nil {
			h.start()
		}
	}
	w.peersChanged()
}

func TestTheSameSeedGivesTheSameRun(t *testing.T) {
	run := func() string {
		w := newWorld(t, 42, 5)
		w.fabric.Set(gossiptest.Faults{Loss: 0.1, Repeat: 0.1, Reorder: 0.3})
		w.hosts[0].start()
		for range 300 {
			w.event()
			w.step()
		}
		var s strings.Builder
		for _, h := range w.hosts {
			fmt.Fprintf(&s, "%s %d %x\n", h.name, h.state.Index(), h.dump())
		}
		return s.String() + fmt.Sprint(w.fabric.Stats())
	}
	if a, b := run(), run(); a != b {
		t.Errorf("two runs differ:\n%s\n%s", a, b)
	}
}

func TestAWrongNameOrPredecessorsFramesAreDropped(t *testing.T) {
	w := newWorld(t, 14, 2)
	w.startAll()
	a, b := w.hosts[0], w.hosts[1]
	f := &frame{Cluster: "c1", From: b.id, To: a.id + 1, Kind: kindRaft, Raft: &message{Type: 8, Term: 1}}
	for i, c := range []struct {
		from gossip.Peer
		to   ledger.MemberID
	}{{b.name, a.id + 1}, {"stranger", a.id}} {
		f.To = c.to
		bytes, err := f.pack(w.codec)
		if err != nil {
			t.Fatal(err)
		}
		a.core.Receive(c.from, bytes)
		if got := a.core.Counters().WrongMember; got != uint64(i+1) {
			t.Errorf("%d: counted %d", i, got)
		}
	}
}

func BenchmarkSchedules(b *testing.B) {
	seed := uint64(0)
	for b.Loop() {
		schedule(b, seed)
		seed++
	}
}

// BenchmarkAHundredTicksOfFiveHosts is what a seed of the simulator costs at
// least: five hosts found a cluster, join, and take blocks; one restarts.
func BenchmarkAHundredTicksOfFiveHosts(b *testing.B) {
	seed := uint64(0)
	b.ReportAllocs()
	begin := cpuTime(b)
	for b.Loop() {
		seed++
		w := newWorld(b, seed, 5)
		w.blind = true
		for _, h := range w.hosts {
			h.start()
		}
		for i := range 100 {
			w.step()
			if h := w.hosts[i%5]; i%7 == 0 && h.core != nil {
				h.take(16)
			}
			if i == 60 {
				w.hosts[2].kill()
				w.hosts[2].start()
			}
		}
	}
	b.ReportMetric(float64((cpuTime(b)-begin).Microseconds())/float64(b.N)/1000, "cpu-ms/op")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
