package router

import (
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

func TestNamesEndSixSecondsAfterTheirRouter(t *testing.T) {
	p, t0 := newPresence(), time.Unix(0, 0)
	known := []gossip.Peer{"a", "b"}
	for _, step := range []struct {
		at        time.Duration
		reachable []gossip.Peer
		gone      int
		next      time.Duration // 0: none
	}{
		{0, known, 0, 0},
		{1 * time.Second, []gossip.Peer{"a"}, 0, 7 * time.Second},
		{6 * time.Second, []gossip.Peer{"a"}, 0, 7 * time.Second},
		{7 * time.Second, []gossip.Peer{"a"}, 1, 0},
		{8 * time.Second, known, 0, 0},
		{9 * time.Second, nil, 0, 15 * time.Second},
		{10 * time.Second, []gossip.Peer{"b"}, 0, 15 * time.Second},
		{20 * time.Second, nil, 1, 26 * time.Second},
	} {
		gone, next := p.update(t0.Add(step.at), known, step.reachable, func(gossip.Peer, time.Time) bool { return true })
		want := time.Time{}
		if step.next != 0 {
			want = t0.Add(step.next)
		}
		if len(gone) != step.gone || !next.Equal(want) {
			t.Errorf("at %v: gone %v, next %v; want %d gone, next %v", step.at, gone, next, step.gone, want)
		}
	}
}

func TestNamesComeBackWhenAllIsHeardThatTheirRouterWroteMeanwhile(t *testing.T) {
	t0, known := time.Unix(0, 0), []gossip.Peer{"a"}
	for what, c := range map[string]struct {
		heard time.Duration // from then on
		back  time.Duration
	}{
		"at once where it has said so": {10 * time.Second, 10 * time.Second},
		"as soon as it is":             {10200 * time.Millisecond, 10200 * time.Millisecond},
		"after a second at the latest": {time.Hour, 11 * time.Second},
	} {
		p := newPresence()
		fresh := func(now time.Time) func(gossip.Peer, time.Time) bool {
			return func(_ gossip.Peer, since time.Time) bool {
				if !since.Equal(t0) {
					t.Errorf("%s: asks for what was said since %v", what, since.Sub(t0))
				}
				return !now.Before(t0.Add(c.heard))
			}
		}
		p.update(t0, known, nil, nil)
		if gone, _ := p.update(t0.Add(6*time.Second), known, nil, nil); !gone["a"] {
			t.Fatalf("%s: it is not away", what)
		}
		now := t0.Add(10 * time.Second)
		for {
			gone, next := p.update(now, known, known, fresh(now))
			if !gone["a"] {
				break
			}
			if next != now.Add(backEvery) {
				t.Fatalf("%s: looks again at %v", what, next.Sub(now))
			}
			now = next
		}
		if now.Sub(t0) != c.back {
			t.Errorf("%s: back after %v, want %v", what, now.Sub(t0), c.back)
		}
	}
}

func TestARouterThatIsThereForAMomentBringsNoOldNamesBack(t *testing.T) {
	p, t0, known := newPresence(), time.Unix(0, 0), []gossip.Peer{"a"}
	stale := func(gossip.Peer, time.Time) bool { return false }
	p.update(t0, known, nil, stale)
	p.update(t0.Add(6*time.Second), known, nil, stale)
	for i := range 20 {
		now := t0.Add(7*time.Second + time.Duration(i)*900*time.Millisecond)
		if gone, _ := p.update(now, known, known, stale); !gone["a"] {
			t.Fatal("its names are back")
		}
		if gone, _ := p.update(now.Add(500*time.Millisecond), known, nil, stale); !gone["a"] {
			t.Fatal("its names are back when it is away again")
		}
	}
}
