package router

import (
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// presence decides whose names are served: those of hosts that can be reached,
// or could be less than nameGrace ago. It says nothing of addresses: a dead
// router is not a dead host.
type presence struct {
	absent map[gossip.Peer]time.Time // since when
}

func newPresence() *presence { return &presence{map[gossip.Peer]time.Time{}} }

// update notes who is reachable now, of those whose records we hold. It returns
// who has been away for too long, and when the next of the others will have been
// (zero: nobody is on the way out).
func (p *presence) update(now time.Time, known, reachable []gossip.Peer) (gone map[gossip.Peer]bool, next time.Time) {
	here := map[gossip.Peer]bool{}
	for _, r := range reachable {
		here[r] = true
	}
	gone = map[gossip.Peer]bool{}
	still := map[gossip.Peer]time.Time{}
	for _, k := range known {
		if here[k] {
			continue
		}
		since, ok := p.absent[k]
		if !ok {
			since = now
		}
		still[k] = since
		end := since.Add(nameGrace)
		switch {
		case !now.Before(end):
			gone[k] = true
		case next.IsZero() || end.Before(next):
			next = end
		}
	}
	p.absent = still
	return gone, next
}
