package replica

import (
	"cmp"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Heard is what a host keeps of the lives of another: a vote or an acknowledgement of
// the other that it counts on, and an answer that it gives, must not be forgotten
// before the one whose life it was is.
type Heard struct {
	ID        ledger.MemberID
	Life      Life // the highest
	Tried     Life // the one that was answered on trial, 0: none; others on trial are measured by it, who is confirmed is not
	TriedTook Life // the last life before Tried that took part, as it said itself; 0: it did not say
}

// excludes reports whether a life on trial, which took part last in took, can no longer
// be confirmed: of two copies of one state the first that was answered may be by now. A
// state that took part later than the one that was answered is none of its copies.
func (h Heard) excludes(life, took Life) bool {
	if h.TriedTook != 0 && took.generation() > h.TriedTook.generation() {
		return false
	}
	return life.generation() < h.Tried.generation() || life.rivals(h.Tried)
}

// pulse is what is known of a member by its frames.
type pulse struct {
	Heard
	spoke uint64 // tick of its last frame; 0: none
	heard uint64 // the same, but that a new leader counts everybody as heard
}

func (c *Core) pulse(id ledger.MemberID) *pulse {
	p, ok := c.pulses[id]
	if !ok {
		if len(c.pulses) > 2*maxConf {
			clear(c.pulses)
		}
		p = &pulse{Heard: c.lives[id]}
		p.ID, c.pulses[id] = id, p
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
	newest := p.Life.generation()
	if seq, _ := c.state.Last(f.From); seq>>32 > newest {
		newest = seq >> 32
	}
	if (f.Life.generation() < newest || f.Life.rivals(p.Life)) && !c.mutate.has(TrustOldState) {
		c.counters.WrongLife++
		why := twoCopies
		if f.Kind == kindJoin { // of a member
			why = ledgerGone
		}
		c.tellGone(from, f, why.words())
		return false
	}
	if f.Trial {
		if f.Check == nil && p.excludes(f.Life, 0) && !c.mutate.has(TrustOldState) {
			c.counters.WrongLife++ // what it has to say of others counts once its own check was answered
			return false
		}
		return f.Life != p.Life // else it is an old frame: that trial is over
	}
	p.Life, p.heard, p.spoke = f.Life, c.ticks, c.ticks
	c.keepLife(p)
	return true
}

// keepLife sees that what was heard of a member of raft is on disk before anything
// follows from it: it goes with what is saved next.
func (c *Core) keepLife(p *pulse) {
	if c.lives[p.ID] == p.Heard || !c.conf.has(uint64(p.ID)) {
		return
	}
	c.lives[p.ID], c.livesUnsaved = p.Heard, true
}

// livesToSave is what is kept of those who take part in raft, in order of their ids.
func (c *Core) livesToSave() []Heard {
	all := make([]Heard, 0, len(c.lives))
	for _, id := range slices.Concat(c.conf.Voters, c.conf.Learners) {
		if h, ok := c.lives[ledger.MemberID(id)]; ok {
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b Heard) int { return cmp.Compare(a.ID, b.ID) })
	clear(c.lives) // of those whose word counts no more
	for _, h := range all {
		c.lives[h.ID] = h
	}
	return all
}

// tookPart reports whether this life speaks as one that is not on trial, and the disk
// does not know it yet.
func (c *Core) tookPart() bool {
	return c.took != c.life && c.trial == nil && c.void == ""
}
