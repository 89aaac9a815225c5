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
