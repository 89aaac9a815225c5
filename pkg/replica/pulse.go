package replica

import (
	"cmp"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// pulse is what is known of a member by its frames.
type pulse struct {
	life  Life   // the highest
	tried Life   // the highest on trial: others on trial are measured by it, who is confirmed is not
	spoke uint64 // tick of its last frame; 0: none
	heard uint64 // the same, but that a new leader counts everybody as heard
}

// Heard is what a host keeps of the lives of another: a vote or an acknowledgement of
// the other that it counts on, and an answer that it gives, must not be forgotten
// before the one whose life it was is.
type Heard struct {
	ID    ledger.MemberID
	Life  Life // the highest
	Tried Life // the highest on trial
}

func (c *Core) pulse(id ledger.MemberID) *pulse {
	p, ok := c.pulses[id]
	if !ok {
		if len(c.pulses) > 2*maxConf {
			clear(c.pulses)
		}
		kept := c.lives[id]
		p = &pulse{life: kept.Life, tried: kept.Tried}
		c.pulses[id] = p
	}
	return p
}

// current notes that a member was heard, and drops what comes from a life that is
// over: frames that were long on their way, or a copy of that member's state
// directory, which is told so. What the answer is about stands in it, so that it
// ends nobody else.
func (c *Core) current(from gossip.Peer, f *frame, known bool) bool {
	if !known {
		if f.Kind == kindRaft {
			p := c.pulse(f.From)
			p.heard, p.spoke = c.ticks, c.ticks
		}
		return true
	}
	p := c.pulse(f.From)
	newest := p.life.generation()
	if seq, _ := c.state.Last(f.From); seq>>32 > newest {
		newest = seq >> 32
	}
	gen := f.Life.generation()
	if (gen < newest || f.Life.rivals(p.life) || f.Trial && (gen < p.tried.generation() || f.Life.rivals(p.tried))) && !c.mutate.has(TrustOldState) {
		c.counters.WrongLife++
		why := twoCopies
		if f.Kind == kindJoin { // of a member
			why = ledgerGone
		}
		c.tellGone(from, f, why.words())
		return false
	}
	if f.Trial {
		p.tried = max(p.tried, f.Life)
		c.keepLife(f.From, p)
		return f.Life != p.life // else it is an old frame: that trial is over
	}
	p.life, p.heard, p.spoke = f.Life, c.ticks, c.ticks
	c.keepLife(f.From, p)
	return true
}

// keepLife sees that what was heard of a member of raft is on disk before anything
// follows from it: it goes with what is saved next.
func (c *Core) keepLife(id ledger.MemberID, p *pulse) {
	h := Heard{id, p.life, p.tried}
	if c.lives[id] == h || !c.conf.has(uint64(id)) {
		return
	}
	c.lives[id], c.livesUnsaved = h, true
}

// livesToSave is what is kept of those who take part in raft, in order of their ids.
func (c *Core) livesToSave() []Heard {
	all := make([]Heard, 0, len(c.lives))
	for id, h := range c.lives {
		if !c.conf.has(uint64(id)) {
			delete(c.lives, id) // its word counts no more
			continue
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b Heard) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// tookPart reports whether this life speaks as one that is not on trial, and the disk
// does not know it yet.
func (c *Core) tookPart() bool {
	return c.took != c.life && c.trial == nil && c.void == ""
}
