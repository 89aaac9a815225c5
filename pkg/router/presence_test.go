package router

import (
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

func atOnce(gossip.Peer, time.Time) bool { return true }
func notYet(gossip.Peer, time.Time) bool { return false }

func TestNamesEndSixSecondsAfterTheirRouter(t *testing.T) {
	p, t0 := newPresence("self"), time.Unix(0, 0)
	both := []gossip.Peer{"a", "b"}
	for _, step := range []struct {
		at        time.Duration
		reachable []gossip.Peer
		served    int           // beside self
		next      time.Duration // 0: none
	}{
		{0, both, 2, 0},
		{1 * time.Second, []gossip.Peer{"a"}, 2, 7 * time.Second},
		{6 * time.Second, []gossip.Peer{"a"}, 2, 7 * time.Second},
		{7 * time.Second, []gossip.Peer{"a"}, 1, 0},
		{8 * time.Second, both, 2, 0},
		{9 * time.Second, nil, 2, 15 * time.Second},
		{10 * time.Second, []gossip.Peer{"b"}, 2, 15 * time.Second},
		{20 * time.Second, nil, 1, 26 * time.Second},
	} {
		served, next := p.update(t0.Add(step.at), step.reachable, atOnce)
		want := time.Time{}
		if step.next != 0 {
			want = t0.Add(step.next)
		}
		if len(served) != 1+step.served || !served["self"] || !next.Equal(want) {
			t.Errorf("at %v: served %v, next %v; want %d others, next %v", step.at, served, next, step.served, want)
		}
	}
}

func TestAHostThatWentLongAgoIsForgotten(t *testing.T) {
	p, t0 := newPresence("self"), time.Unix(0, 0)
	p.update(t0, []gossip.Peer{"a", "b"}, atOnce)
	p.update(t0.Add(time.Second), []gossip.Peer{"b"}, atOnce)
	p.update(t0.Add(30*time.Second), []gossip.Peer{"b"}, atOnce)
	if len(p.hosts) != 2 {
		t.Errorf("after half a minute: %d", len(p.hosts))
	}
	for _, at := range []time.Duration{2 * time.Minute, 2*time.Minute + nameGrace} {
		p.update(t0.Add(at), nil, atOnce) // b only now
	}
	if len(p.hosts) != 1 || p.hosts["b"] == nil {
		t.Errorf("after two minutes: %v", p.hosts)
	}
	served, _ := p.update(t0.Add(time.Hour), []gossip.Peer{"a"}, notYet)
	if served["a"] {
		t.Error("it is back, and served before it has said what it has")
	}
}

func TestAHostThatWasNeverReachedHasNoNames(t *testing.T) {
	p := newPresence("self")
	if served, next := p.update(time.Unix(0, 0), []gossip.Peer{"a"}, atOnce); served["b"] || !served["a"] || !next.IsZero() {
		t.Errorf("served %v, next %v", served, next)
	}
}

func TestNamesComeBackWhenAllIsHeardThatTheirRouterWroteMeanwhile(t *testing.T) {
	t0, a := time.Unix(0, 0), []gossip.Peer{"a"}
	for what, c := range map[string]struct {
		heard time.Duration // from then on
		back  time.Duration
	}{
		"at once where it has said so":   {10 * time.Second, 10 * time.Second},
		"as soon as it is":               {10200 * time.Millisecond, 10200 * time.Millisecond},
		"after backWithin at the latest": {time.Hour, 10*time.Second + backWithin},
	} {
		p := newPresence("self")
		since := time.Time{} // it was never reached before
		fresh := func(now time.Time) func(gossip.Peer, time.Time) bool {
			return func(_ gossip.Peer, asked time.Time) bool {
				if !asked.Equal(since) {
					t.Errorf("%s: asks for what was said since %v, want %v", what, asked, since)
				}
				return !now.Before(t0.Add(c.heard))
			}
		}
		comes := func(now time.Time) {
			t.Helper()
			for {
				served, next := p.update(now, a, fresh(now))
				if served["a"] {
					break
				}
				if next != now.Add(backEvery) {
					t.Fatalf("%s: looks again at %v", what, next.Sub(now))
				}
				now = next
			}
			if now.Sub(t0) != c.back {
				t.Errorf("%s: served after %v, want %v", what, now.Sub(t0), c.back)
			}
		}
		comes(t0.Add(10 * time.Second))
		t0 = t0.Add(time.Minute)
		since = t0
		p.update(t0, nil, nil)
		if served, _ := p.update(t0.Add(nameGrace), nil, nil); served["a"] {
			t.Fatalf("%s: it is not away", what)
		}
		comes(t0.Add(10 * time.Second))
	}
}

func TestARouterThatIsThereForAMomentBringsNoOldNamesBack(t *testing.T) {
	p, t0, a := newPresence("self"), time.Unix(0, 0), []gossip.Peer{"a"}
	p.update(t0, a, atOnce)
	p.update(t0, nil, nil)
	p.update(t0.Add(nameGrace), nil, nil)
	for i := range 20 {
		now := t0.Add(7*time.Second + time.Duration(i)*900*time.Millisecond)
		if served, _ := p.update(now, a, notYet); served["a"] {
			t.Fatal("its names are back")
		}
		if served, _ := p.update(now.Add(500*time.Millisecond), nil, nil); served["a"] {
			t.Fatal("its names are back when it is away again")
		}
	}
}
