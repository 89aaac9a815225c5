package replica

import (
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// A voter that leaves is out of the ledger before it is out of the configuration, and
// as long as it is in that, the others may need its vote: of two voters the second
// could not even drop the first without it. So it takes part until it is relieved, and
// only then is the answer to its Leave given and its identity over. Voters leave one at
// a time, see mustWait: with two of three gone at once the third would have no majority.

// departing reports whether we have left by our own word, and are a voter still that
// somebody may need. It ends by itself: who waits for us may never come back.
func (c *Core) departing() bool {
	m, ok := c.state.Member(c.self.ID)
	if !ok || !m.Left || m.Retired || m.Replaced != 0 || c.void != "" {
		return false
	}
	return c.conf.votes(uint64(c.self.ID)) && c.ticks-c.leftAt < c.times.Relieve && len(c.others()) > 0
}

// votes reports whether a majority may take that member's vote.
func (c Conf) votes(id uint64) bool {
	return slices.Contains(c.Voters, id) || slices.Contains(c.Outgoing, id)
}

// watchDeparture ends a departure that takes too long.
func (c *Core) watchDeparture() {
	if c.member() {
		c.leftAt = c.ticks
		return
	}
	if c.prop.left != nil && !c.departing() {
		c.changed = true
		c.noticeSelf()
	}
}

// mustWait reports whether a leader holds a Leave back, to be asked again: as long as
// another voter that is a member no longer has not been relieved, or a change is under
// way that may be about the very voter.
func (c *Core) mustWait(l *ledger.Leave) bool {
	if c.state.Index() < c.confAt || c.leaveUnderWay() {
		return true
	}
	return c.conf.votes(uint64(l.ID)) && slices.ContainsFunc(slices.Concat(c.conf.Voters, c.conf.Outgoing), func(id uint64) bool {
		m, ok := c.state.Member(ledger.MemberID(id))
		return !ok || !m.Live()
	})
}

// leaveUnderWay reports whether a Leave that we put into the log is not applied yet: no
// change is made then, which might give a vote to the leaver.
func (c *Core) leaveUnderWay() bool {
	p := &c.prop
	m, ok := c.state.Member(p.leaver)
	seq, _ := c.state.Last(p.leaver)
	return ok && m.Live() && seq < p.leave && p.leave <= p.appended[p.leaver]
}

// handOver makes another voter lead when we are a member no longer: who leads cannot
// see to it that the others know of its own removal. The voter that is furthest is
// asked; raft brings it up to date before.
func (c *Core) handOver() {
	if c.member() || c.state.Index() < c.confAt {
		return
	}
	to, furthest := uint64(0), uint64(0)
	for _, id := range c.conf.Voters {
		m, ok := c.state.Member(ledger.MemberID(id))
		if !ok || !m.Live() || c.silence(m.ID) > freshFor {
			continue
		}
		if match := c.match(m.ID); match > furthest {
			to, furthest = id, match
		}
	}
	if to != 0 {
		c.raft().TransferLeader(to)
	}
}

// relief is what one that departs waits for, in words.
func (c *Core) relief() string {
	var away []string
	for _, id := range c.conf.Voters {
		if name := c.display(id); ledger.MemberID(id) != c.self.ID && !slices.Contains(c.peers, gossip.Peer(name)) {
			away = append(away, name)
		}
	}
	if len(away) == 0 {
		return "it has left the cluster, and votes until the others do without it, which takes a few seconds"
	}
	return "it has left the cluster, and votes until the others do without it; some cannot be reached: " + strings.Join(away, ", ")
}
