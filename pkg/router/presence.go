package router

import (
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Times of names that come back with their router.
const (
	backWithin = time.Second
	backEvery  = 50 * time.Millisecond
)

// presence decides whose names are served: those of hosts that can be reached,
// or could be less than nameGrace ago. It says nothing of addresses: a dead
// router is not a dead host.
//
// The names of one that was away for longer come back when its records are as new as
// it says itself, or backWithin after it is reached: what was known of it from before
// may lead to somebody else's container by now.
type presence struct {
	absent map[gossip.Peer]time.Time // since when
	gone   map[gossip.Peer]bool      // the last answer of update
	back   map[gossip.Peer]returning // of gone, those that are reached
}

// returning is when a host was last reached before it was away, and since when it is now.
type returning struct{ left, since time.Time }

func newPresence() *presence { return &presence{} }

// update notes who is reachable now, of those whose records we hold. fresh tells whether
// a host's records are as new as it has said itself since a time. It returns
// whose names are not to be served, and when that may be otherwise by itself (zero:
// not before there is news).
func (p *presence) update(now time.Time, known, reachable []gossip.Peer, fresh func(gossip.Peer, time.Time) bool) (gone map[gossip.Peer]bool, next time.Time) {
	here := map[gossip.Peer]bool{}
	for _, r := range reachable {
		here[r] = true
	}
	gone = map[gossip.Peer]bool{}
	still, back := map[gossip.Peer]time.Time{}, map[gossip.Peer]returning{}
	wake := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, k := range known {
		if here[k] {
			if r, waits := p.returns(k, now, fresh); waits {
				gone[k], back[k] = true, r
				wake(now.Add(backEvery))
			}
			continue
		}
		since, ok := p.absent[k]
		if !ok {
			since = now
		}
		still[k] = since
		if end := since.Add(nameGrace); p.gone[k] || !now.Before(end) { // one that came back for a moment only stays away
			gone[k] = true
		} else {
			wake(end)
		}
	}
	p.absent, p.gone, p.back = still, gone, back
	return gone, next
}

// returns reports whether the names of a host that is reached have to wait.
func (p *presence) returns(k gossip.Peer, now time.Time, fresh func(gossip.Peer, time.Time) bool) (r returning, waits bool) {
	if !p.gone[k] {
		return r, false
	}
	r, ok := p.back[k]
	if !ok {
		r = returning{p.absent[k], now}
	}
	return r, now.Before(r.since.Add(backWithin)) && !fresh(k, r.left)
}
