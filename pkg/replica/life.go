package replica

import "github.com/weave-cni/weave-cni/pkg/ledger"

// Life is one start of a member's router: its generation, which the store counts
// up, and a number drawn at random. Every frame bears its sender's. Of two lives
// with one generation at most one can be the member itself: two routers were
// started from copies of one state directory.
type Life uint64

func lifeOf(generation uint64, nonce uint32) Life { return Life(generation<<32 | uint64(nonce)) }

func (l Life) generation() uint64 { return uint64(l) >> 32 }

// rivals reports whether two lives have one number: two routers began them, from
// copies of one state.
func (l Life) rivals(o Life) bool { return l != o && o != 0 && l.generation() == o.generation() }

// evidence is what proves that a state directory is not what its member saved last.
type evidence int

const (
	oldCopy    evidence = iota // an older one, put back
	ledgerGone                 // the identity without the ledger
	twoCopies                  // somebody else uses it, or did
	moved                      // another machine's
)

func (e evidence) words() string {
	switch e {
	case oldCopy:
		return "the state directory is older than what this host has promised the others"
	case ledgerGone:
		return "the cluster knows this host's identity but its copy of the ledger is gone"
	case twoCopies:
		return "another copy of this host's state directory is in use, or was since this one was made"
	}
	return "the state directory was copied from another machine"
}

// older reports whether a state directory that took part last in life was cannot be the
// one that took part in life l. Of 0 nothing is known.
func (was Life) older(l Life) bool {
	return was != 0 && (l.generation() > was.generation() || l.rivals(was))
}

// end finishes this core: it goes on living, but takes part in nothing.
func (c *Core) end(why string) {
	if c.void != "" {
		return
	}
	c.void, c.out, c.trial, c.changed = why, nil, nil, true
	c.failProposals(goneError(why))
}

// Spent is why this identity is over, "" while it is not: nothing is promised or
// allocated under it any more, and the router starts again under a new one. A voter
// that left is not spent before it is relieved: see departing.
func (c *Core) Spent() string { return c.spent() }

// spent says why we are a member no longer, "" while we are or may become one.
func (c *Core) spent() string {
	if c.void != "" {
		return c.void
	}
	if m, ok := c.state.Member(c.self.ID); ok && !m.Live() && !c.departing() {
		return departed(m)
	}
	return ""
}

// departed is why a member is none any more.
func departed(m ledger.Member) string {
	switch {
	case m.Retired:
		return "host " + m.Name + " was given up as destroyed, and its addresses were given away"
	case m.Replaced != 0:
		return "host " + m.Name + " has joined again under a new identity, the old one is spent"
	}
	return "host " + m.Name + " has left the cluster under this identity"
}

// receiveGone believes whom we know, and everybody while we ask all: to join, with no
// ledger yet (an identity may be older than that), or whether we are gone, since all
// that we knew may have been replaced; of this very life. An objection counts
// only on trial: later it may be about what we have said since.
func (c *Core) receiveGone(f *frame) {
	_, known := c.state.Member(f.From)
	asking := c.trial != nil || c.lonely() || c.state.Index() == 0
	if !known && !asking || f.About != c.life || f.Kind == kindObjection && c.trial == nil {
		c.counters.WrongMember++
		return
	}
	if !c.mutate.has(TrustOldState) {
		c.end(f.Words)
	}
}

// amnesia is called when a leader counts on entries that we do not have. It may be
// a leader of before the cluster was forced on without it; one of now proves that
// we have lost what we acknowledged.
func (c *Core) amnesia(f *frame) {
	if f.Raft.Term < c.term || c.mutate.has(TrustOldState) || c.mutate.has(VoteAfterForgetting) {
		return
	}
	if c.state.Index() == 0 {
		c.end(ledgerGone.words())
		return
	}
	if m, ok := c.state.Member(f.From); !ok || !m.Live() {
		return
	}
	c.end(oldCopy.words())
}

// Ready reports whether addresses may be given out of the blocks that State says
// are ours: no Leave of ours is undecided, none of our commands lies behind an entry
// that cannot be read, the ledger knows where this life runs, and either the state
// directory is vouched for, or an entry that this life itself put into the log is
// applied, and with it all that was decided before this life began.
func (c *Core) Ready() bool {
	m, ok := c.state.Member(c.self.ID)
	if !ok || !m.Live() || c.void != "" || c.undecided() || c.rewound {
		return false
	}
	return c.announced || c.vouched && m.Place == c.self.Place || c.mutate.has(SuccessorEarly|TrustOldState)
}

// announce puts this life into the ledger where Ready needs that. The entry also
// keeps the life's number: whoever starts from an older copy finds it there.
func (c *Core) announce() {
	if c.trial != nil || c.Ready() || !c.member() || c.ticks < c.prop.announceAt {
		return
	}
	c.prop.announceAt = c.ticks + wordsTicks // should it be refused
	c.prop.announce(ledger.Command{Join: &ledger.Join{Member: c.self}})
	c.pump()
}
