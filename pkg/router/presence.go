package router

import (
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Times of names that come back with their router.
const (
	backWithin = 750 * time.Millisecond // so that names are known within a second, with the time that a look takes
	backEvery  = 50 * time.Millisecond
	// forgotten is how long ago a host went that is as one that was never reached: by then
	// the exchange has forgotten, too, what it last said of itself (Exchange.UpToDate).
	forgotten = time.Minute
)

// presence decides whose names are served: those of hosts that this router reaches, or
// has reached less than nameGrace ago. What others remember of a host that it never
// reached is not: nobody knows for how long that one has been dead. It says nothing of
// addresses: a dead router is not a dead host.
//
// The names of one that is reached for the first time, or was away for longer, are served
// when its records are as new as it says itself, or backWithin after it is reached: what
// is known of it from before may lead to somebody else's container by now.
type presence struct {
	self  gossip.Peer // whose names are always served
	hosts map[gossip.Peer]*meeting
}

// meeting is what a router knows of one that it has reached.
type meeting struct {
	served bool
	left   time.Time // when it went; zero: it did not, since its names are served
	since  time.Time // when it came; zero: it is away
}

func newPresence(self gossip.Peer) *presence {
	return &presence{self, map[gossip.Peer]*meeting{}}
}

// update notes who is reachable now. fresh tells whether a host's records
// are as new as it has said itself since a time. It returns whose names are served, and
// when that may be otherwise by itself (zero: not before there is news).
func (p *presence) update(now time.Time, reachable []gossip.Peer, fresh func(gossip.Peer, time.Time) bool) (served map[gossip.Peer]bool, next time.Time) {
	here := map[gossip.Peer]bool{}
	for _, h := range reachable {
		here[h] = true
		if p.hosts[h] == nil {
			p.hosts[h] = &meeting{}
		}
	}
	served = map[gossip.Peer]bool{p.self: true}
	for h, m := range p.hosts {
		var at time.Time
		if here[h] {
			at = m.here(now, func() bool { return fresh(h, m.left) })
		} else {
			at = m.away(now)
		}
		if m.served {
			served[h] = true
		} else if !here[h] && now.Sub(m.left) >= forgotten {
			delete(p.hosts, h)
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return served, next
}

// here notes that the host is reached. Like away it returns when to look again.
func (m *meeting) here(now time.Time, fresh func() bool) time.Time {
	if m.since.IsZero() {
		m.since = now
	}
	if !m.served && now.Before(m.since.Add(backWithin)) && !fresh() {
		return now.Add(backEvery)
	}
	m.served, m.left = true, time.Time{}
	return time.Time{}
}

// away notes that it is not. One that came back for a moment only stays away.
func (m *meeting) away(now time.Time) time.Time {
	if m.left.IsZero() {
		m.left = now
	}
	m.since = time.Time{}
	if end := m.left.Add(nameGrace); m.served && now.Before(end) {
		return end
	}
	m.served = false
	return time.Time{}
}
