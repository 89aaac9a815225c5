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
		gone, next := p.update(t0.Add(step.at), known, step.reachable)
		want := time.Time{}
		if step.next != 0 {
			want = t0.Add(step.next)
		}
		if len(gone) != step.gone || !next.Equal(want) {
			t.Errorf("at %v: gone %v, next %v; want %d gone, next %v", step.at, gone, next, step.gone, want)
		}
	}
}
