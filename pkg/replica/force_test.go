package replica

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// forced calls Force until it has asked everybody.
func (h *host) forced() error {
	for {
		b, err := h.core.Force()
		if err == nil {
			err = h.store.Save(b)
			h.settle()
		}
		h.settle()
		if !errors.Is(err, ErrAsking) {
			return err
		}
		h.w.step()
	}
}

func TestASurvivorGoesOnAloneAndTheOthersFollow(t *testing.T) {
	w := newWorld(t, 41, 5)
	w.startAll()
	w.until("five voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 5 })
	w.run(20)
	lost, left := w.hosts[:3], w.hosts[3:]
	for _, h := range lost {
		h.kill()
	}
	w.run(60)
	s := left[0]
	if err := s.forced(); err != nil {
		t.Fatal(err)
	}
	for _, h := range lost {
		s.propose(ledger.Command{Retire: &ledger.Retire{ID: h.id}})
	}
	w.until("it serves itself and the other", 100, func() bool { return w.leader() == s && w.agreed() })
	for _, h := range left {
		h.taken(16)
	}
	s.kill()
	w.unvouched = true
	s.start()
	w.until("it goes on after a reboot", 100, func() bool { return w.leader() != nil && s.core.Ready() })
	s.taken(16)
	for _, h := range lost { // they were not lost
		h.start()
	}
	w.run(100)
	for _, h := range lost {
		if h.core.Ready() || h.core.Spent() == "" {
			t.Errorf("%s: %+v", h.name, h.core.Status())
		}
	}
	left[1].taken(1)
}

func TestForceIsRefusedWhereItIsNotNeededOrAnotherHasMore(t *testing.T) {
	w := newWorld(t, 42, 5)
	w.startAll()
	w.until("five voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 5 })
	w.run(20)
	l := w.leader()
	h, o := w.follower(), w.hosts[(slices.Index(w.hosts, l)+2)%5]
	for _, x := range []*host{l, h} {
		if err := x.forced(); err == nil || !strings.Contains(err.Error(), "nothing to do") {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	w.fabric.Split(h.name)
	w.peersChanged()
	o.taken(16)
	w.run(10)
	for _, x := range w.hosts {
		if x != h && x != o {
			x.kill()
		}
	}
	w.run(40)
	w.fabric.Heal()
	w.peersChanged()
	if err := h.forced(); err == nil || !strings.Contains(err.Error(), "run it on "+string(o.name)) {
		t.Errorf("at entry %d, where %s has %d: %v", h.state.Index(), o.name, o.state.Index(), err)
	}
	if err := o.forced(); err != nil {
		t.Error(err)
	}
	w.until("both go on", 100, func() bool { return w.leader() == o && w.agreed() })
}

func TestWhoHasMoreThanWhatTheClusterWasForcedOnWithIsSpent(t *testing.T) {
	w := three(t, 43)
	l, h := w.leader(), w.follower()
	w.fabric.Split(h.name)
	w.peersChanged()
	for range 3 {
		l.taken(16)
	}
	w.run(20)
	w.blind = true
	if err := h.forced(); err != nil {
		t.Fatal(err)
	}
	for range 6 { // further than the others
		h.taken(1)
	}
	w.fabric.Heal()
	w.peersChanged()
	w.until("the others are spent", 200, func() bool {
		for _, x := range w.hosts {
			if x != h && x.core.Spent() == "" {
				return false
			}
		}
		return true
	})
	if h.core.Spent() != "" || !h.core.Ready() {
		t.Errorf("%+v", h.core.Status())
	}
	h.taken(1)
}

// Who had more at the first of two forks comes back after the second, which is behind it.
func TestWhoHadMoreAtAnEarlierForkIsSpentToo(t *testing.T) {
	w := newWorld(t, 45, 5)
	w.startAll()
	w.until("five voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 5 })
	w.run(20)
	w.blind = true
	var rest []*host // neither the founder, which would found again, nor s
	s := w.follower()
	for _, h := range w.hosts {
		if h != s && h.found == nil {
			rest = append(rest, h)
		}
	}
	x, others := rest[0], rest[1:3]
	w.fabric.Split(s.name)
	w.peersChanged()
	for range 3 {
		w.leader().taken(16)
	}
	w.run(20)
	had := x.state.Index()
	for _, h := range w.hosts {
		if h != s {
			h.kill()
		}
	}
	w.fabric.Heal()
	w.run(60)
	if err := s.forced(); err != nil || s.core.forks[0].index >= had {
		t.Fatalf("%v, at %d, where %s had %d", err, s.state.Index(), x.name, had)
	}
	for _, h := range w.hosts {
		if h != s && h != x {
			s.propose(ledger.Command{Retire: &ledger.Retire{ID: h.id}})
		}
	}
	for _, h := range others {
		h.rebirth()
		h.start()
	}
	w.until("three voters", 1500, func() bool { return len(s.core.conf.Voters) == 3 && s.state.Index() > had+5 && w.agreed() })
	for _, h := range others {
		h.kill()
	}
	w.run(60)
	if err := s.forced(); err != nil || len(s.core.forks) != 2 || s.core.forks[1].index <= had {
		t.Fatalf("%v, %+v", err, s.core.forks)
	}
	x.start()
	w.until("it is spent", 200, func() bool { return strings.Contains(x.core.Spent(), "forced on without this host") })
	if s.core.Spent() != "" {
		t.Error(s.core.Spent())
	}
	for _, h := range others { // they have nothing that was forgotten
		h.start()
	}
	s.propose(ledger.Command{Retire: &ledger.Retire{ID: x.id}})
	w.run(100)
	for _, h := range append(others, s) {
		if h.core.Spent() != "" || !h.core.Ready() || len(h.core.forks) != 2 {
			t.Errorf("%s: %+v, %+v", h.name, h.core.Status(), h.core.forks)
		}
	}
}

func TestTheBranchThatALedgerIsOfIsToldByItsForks(t *testing.T) {
	one, two, other := fork{10, 1 << eraBits, 1}, fork{20, 2 << eraBits, 1}, fork{10, 1 << eraBits, 2}
	for _, c := range []struct {
		at          uint64
		mine, their []fork
		off         bool
	}{
		{at: 9, their: []fork{one}},
		{at: 10, their: []fork{one}},
		{at: 11, their: []fork{one}, off: true},
		{at: 11, mine: []fork{one}, their: []fork{one}},
		{at: 20, mine: []fork{one}, their: []fork{one, two}},
		{at: 21, mine: []fork{one}, their: []fork{one, two}, off: true},
		{at: 15, their: []fork{one, two}, off: true},
		{at: 15, mine: []fork{one}, their: []fork{other, two}, off: true},
		{at: 12, mine: []fork{one}, their: []fork{two}, off: true},
	} {
		s := ledger.New()
		s.Advance(c.at)
		core := &Core{state: s, forks: c.mine}
		if got := core.cutOff(c.their); got != c.off || (core.void != "") != c.off {
			t.Errorf("%+v: %v, %q", c, got, core.void)
		}
	}
}

func TestACrashBeforeAForceIsSavedChangesNothing(t *testing.T) {
	w := three(t, 44)
	l, h := w.leader(), w.follower()
	for _, x := range w.hosts {
		if x != h {
			x.kill()
		}
	}
	w.run(30)
	if _, err := h.core.Force(); err != nil {
		t.Fatal(err)
	}
	h.kill()
	h.start()
	w.run(100)
	if h.core.Leading() || len(h.core.conf.Voters) != 3 {
		t.Errorf("%+v", h.core.Status())
	}
	l.start()
	w.until("a leader", 100, func() bool { return w.leader() != nil })
}
