package attachd

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// host is one whose containers have the fates that a test gives them.
type host struct {
	mu    sync.Mutex
	fates map[string]attach.Fate
	fails map[string]error
	looks map[string][]time.Duration // since the start
	start time.Time
	asked int               // KeepAll
	of    map[string]string // the container of an endpoint, where it is not one of its own
	now   int               // looks at once
	most  int
	takes time.Duration
	hangs string // the one whose look does not end
}

func (h *host) Plug(context.Context, ctl.AttachRequest) (ctl.Attached, error) {
	return ctl.Attached{}, nil
}
func (h *host) Unplug(context.Context, ctl.DetachRequest) error { return nil }

func (h *host) All() ([]attach.Intent, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []attach.Intent
	for id := range h.fates {
		all = append(all, attach.Intent{ID: id, Key: attachment.Key{ContainerID: cmp.Or(h.of[id], id)}})
	}
	return all, errors.New("one cannot be read, always")
}

func (h *host) KeepAll(ctx context.Context, of []attach.Intent, seen func(attach.Intent, attach.Fate, error)) {
	h.mu.Lock()
	h.asked++
	h.mu.Unlock()
	for _, i := range of {
		fate, err := h.keep(ctx, i)
		seen(i, fate, err)
	}
}

func (h *host) keep(ctx context.Context, i attach.Intent) (attach.Fate, error) {
	h.mu.Lock()
	h.now++
	h.most = max(h.most, h.now)
	h.looks[i.ID] = append(h.looks[i.ID], time.Since(h.start))
	h.mu.Unlock()
	if i.ID == h.hangs {
		<-ctx.Done()
	}
	select {
	case <-ctx.Done():
	case <-time.After(h.takes):
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now--
	return h.fates[i.ID], h.fails[i.ID]
}

func newHost(takes time.Duration) *host {
	return &host{fates: map[string]attach.Fate{}, fails: map[string]error{}, looks: map[string][]time.Duration{}, start: time.Now(), takes: takes}
}

// watch keeps for a while.
func (h *host) watch(t *testing.T, while time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), while)
	defer cancel()
	New(h, h, slog.New(slog.DiscardHandler)).keep(ctx)
}

func TestAContainerThatLivesIsLookedAtEachSecondAndOneThatRestsEverMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(0)
		h.fates["lives"], h.fates["rests"], h.fates["fails"], h.fates["unasked"] = attach.Lives, attach.Rests, attach.Back, attach.Unknown
		h.fails["fails"], h.fails["unasked"] = errors.New("the router is away"), errors.New("podman did not answer in time")
		h.watch(t, 10*time.Minute)
		if n := len(h.looks["lives"]); n < 595 || n > 602 {
			t.Errorf("one that lives was looked at %d times in 600 s", n)
		}
		for id, most := range map[string]time.Duration{"rests": restMost, "unasked": restMost, "fails": failMost} {
			l := h.looks[id]
			for i := 1; i < len(l); i++ {
				if gap := l[i] - l[i-1]; gap > most+2*lookEvery {
					t.Errorf("%s: not looked at for %v", id, gap)
				}
			}
			if n, least := len(l), int(10*time.Minute/(most+2*lookEvery)); n < least || n > 2*least+8 {
				t.Errorf("%s: looked at %d times", id, n)
			}
		}
		if l := h.looks["rests"]; l[1]-l[0] > 2*lookEvery {
			t.Errorf("the second look at one that rests came after %v", l[1]-l[0])
		}
	})
}

func TestOnlyAFewComeBackAtOnceAndNoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(300 * time.Millisecond)
		for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"} {
			h.fates[id] = attach.Back
		}
		h.watch(t, 5*time.Second)
		if h.most != atOnce {
			t.Errorf("%d at once, want %d", h.most, atOnce)
		}
		for id := range h.fates {
			if len(h.looks[id]) == 0 {
				t.Errorf("%s was not looked at", id)
			}
		}
		if h.now != 0 {
			t.Errorf("%d looks were not waited for", h.now)
		}
	})
}

func TestALookThatTakesLongHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(0)
		h.fates["lives"], h.fates["hangs"] = attach.Lives, attach.Lives
		h.hangs = "hangs"
		h.watch(t, 29500*time.Millisecond) // not at a tick, where both end
		if n := len(h.looks["lives"]); n < 28 {
			t.Errorf("the other was looked at %d times in 30 s", n)
		}
		if n := len(h.looks["hangs"]); n != 1 {
			t.Errorf("one was looked at %d times at once", n)
		}
	})
}

func TestOnlyAFewCallsAreWorkedOnTogetherAndTheOthersWaitTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := make(chan struct{}, callsMost)
		var mu sync.Mutex
		now, most, done := 0, 0, 0
		work := func() error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			done++
			mu.Unlock()
			return nil
		}
		var calls sync.WaitGroup
		for range 3 * callsMost {
			calls.Go(func() {
				if err := inTurn(t.Context(), slots, work); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		if most != callsMost || done != 3*callsMost {
			t.Errorf("%d at once, %d done", most, done)
		}
		for range callsMost {
			slots <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var coded *ctl.Error
		if err := inTurn(ctx, slots, work); !errors.As(err, &coded) || coded.Code != ctl.CodeTryAgain {
			t.Errorf("without a turn: %v", err)
		}
	})
}

func TestWhatAnEndpointWaitsForIsKnownUntilItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(0)
		h.of = map[string]string{"one": "web", "two": "web", "three": "web"}
		h.fates["one"], h.fates["two"], h.fates["three"], h.fates["other"] = attach.Rests, attach.Unknown, attach.Lives, attach.Unknown
		h.fails["two"], h.fails["other"] = errors.New("podman did not answer in time"), errors.New("it is away")
		d := New(h, h, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.keep(ctx) }()
		waiting := func() map[string]string {
			time.Sleep(lookEvery / 2) // after a tick, in the test's own time
			synctest.Wait()
			d.mu.Lock()
			defer d.mu.Unlock()
			return maps.Clone(d.waiting)
		}
		want := map[string]string{"one": "its container does not run", "two": "podman did not answer in time", "other": "it is away"}
		if got := waiting(); !maps.Equal(got, want) || h.asked != 2 {
			t.Errorf("got %v, asked of containers %d times, want 2", got, h.asked)
		}
		h.mu.Lock()
		h.fates["one"], h.fates["two"] = attach.Back, attach.Lives
		delete(h.fails, "two")
		delete(h.fates, "other")
		h.mu.Unlock()
		time.Sleep(2 * restMost)
		if got := waiting(); len(got) != 0 {
			t.Errorf("got %v, all are there or unplugged", got)
		}
		cancel()
		<-done
	})
}
