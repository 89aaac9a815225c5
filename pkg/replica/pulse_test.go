package replica

import (
	"slices"
	"testing"
)

// What was heard of a life is on disk before anything follows from it: an older copy that
// counts up to the same number is found out by hosts that started again in between
// (simulator, restore, seed 560180760674).
func TestALifeThatWasCountedOnIsKnownAfterARestartOfThoseWhoDid(t *testing.T) {
	w := three(t, 41)
	h := w.follower()
	backup := h.store.Copy()
	h.kill()
	h.start()
	w.run(30)
	h.putBack(backup)
	w.until("it is spent", 100, func() bool { return h.core.Spent() != "" })
}

// An older copy that was started many times, and heard by nobody, has counted further than
// the member itself; but it does not know of the life in which that took part last. Nor is
// it in that one's way.
func TestACopyThatStartedOftenIsFoundOutByTheLifeItDoesNotKnow(t *testing.T) {
	w := three(t, 42)
	h := w.follower()
	backup := h.store.Copy()
	h.kill()
	h.start()
	w.run(30)
	mine := h.store
	for range 5 {
		_, _ = backup.Load()
	}
	h.putBack(backup)
	w.until("it is spent", 100, func() bool { return h.core.Spent() != "" })
	h.putBack(mine)
	w.until("the original is ready", 200, h.core.Ready)
}

// A clone that another board betrays was answered by nobody: it is not in the original's way.
func TestACloneThatIsRefutedAtOnceDoesNotEndTheOriginal(t *testing.T) {
	w := three(t, 45)
	h := w.follower()
	mine, home := h.store, h.place
	h.place.Machine = "another"
	h.putBack(mine.Copy())
	w.until("the clone is spent", 100, func() bool { return h.core.Spent() != "" })
	h.place = home
	h.putBack(mine)
	w.until("the original is ready", 200, h.core.Ready)
}

// Two equal copies: the one that was answered first may be confirmed by now, so the other
// is not, also after a restart of who answered.
func TestOfTwoEqualCopiesTheOneThatWasAnsweredFirstGoesOn(t *testing.T) {
	w := three(t, 46)
	h, a := w.hosts[2], w.hosts[0]
	h.kill()
	w.run(twinTicks + 1)
	second := copyOf(t, h, h.store.Copy(), 2)
	for _, o := range asks(copyOf(t, h, h.store.Copy(), 1), a) {
		a.deliver(second, o)
	}
	a.kill()
	a.start()
	w.run(30)
	var got []uint8
	for _, o := range asks(second, a) {
		got = append(got, a.deliver(second, o)...)
	}
	if !slices.Contains(got, kindGone) || slices.Contains(got, kindAnswer) {
		t.Errorf("the second was answered %v", got)
	}
}

// Starts that end on trial are none in which anybody took part: the next one is confirmed.
func TestAHostThatStartedOftenOnTrialIsConfirmedInTheEnd(t *testing.T) {
	w := three(t, 43)
	h := w.follower()
	h.kill()
	h.w.unvouched = true
	for range 5 {
		h.start()
		h.kill()
	}
	w.run(twinTicks + 1)
	h.start()
	w.until("it is ready", 200, h.core.Ready)
	if h.store.saved.Took != h.core.life {
		t.Errorf("it took part in life %x, and its disk says %x", h.core.life, h.store.saved.Took)
	}
}

func TestNobodyIsKeptWhoseWordCountsNoMore(t *testing.T) {
	w := three(t, 44)
	l := w.leader()
	l.core.lives[77] = Heard{ID: 77, Life: 1}
	h := w.follower()
	h.kill()
	h.start()
	w.run(30)
	if got := l.store.saved.Lives; len(got) != 2 || got[0].ID == 77 || got[1].ID == 77 || got[0].ID > got[1].ID {
		t.Errorf("kept %+v", got)
	}
}

// putBack starts everybody again, and the host, as after a reboot, from an older copy.
func (h *host) putBack(backup *MemStore) {
	for _, o := range h.w.hosts {
		o.kill()
	}
	for _, o := range h.w.hosts {
		if o != h {
			o.start()
		}
	}
	h.w.run(twinTicks + 30)
	h.store, h.w.unvouched = backup, true
	h.start()
	h.w.unvouched = false
}
