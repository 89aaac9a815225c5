package carrier

import (
	"maps"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// asker is what has an address dialled: a target, or a peer that is said to be there.
type asker struct {
	target string
	peer   gossip.Peer
}

// askedBy notes that an address is among those to be dialled, unless the target that led
// there was removed meanwhile: that is reported. b.mu is held.
func (b *book) askedBy(by asker, p *place, now time.Time) bool {
	if by.target != "" && !slices.Contains(b.targets, by.target) {
		return false
	}
	if p.askers == nil {
		p.askers = map[asker]time.Time{}
	}
	maps.DeleteFunc(p.askers, func(_ asker, asked time.Time) bool { return now.Sub(asked) > shownFor })
	p.askers[by], p.asked = now, now
	return true
}

// askedNoMore ends at once what an asker has shown. b.mu is held.
func (b *book) askedNoMore(by asker) {
	for _, p := range b.places {
		delete(p.askers, by)
	}
}

// shown reports whether an address is still being dialled for anybody.
func (p *place) shown(now time.Time) bool {
	for _, asked := range p.askers {
		if now.Sub(asked) <= shownFor {
			return true
		}
	}
	return false
}
