package replica

import (
	"slices"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// loneliness is the time in which a member hears no leader. It goes on as it is: the
// blocks that it owns are its own in a partition, too. But if it was given up or
// replaced meanwhile, no leader ever speaks to it again, and without a vote it never
// speaks to others by itself. So it asks, now and then, one host at a time.
type loneliness struct {
	ledAt uint64 // tick at which a leader was heard last
	askAt uint64
	next  int
}

// lonely reports whether no leader was heard for long.
func (c *Core) lonely() bool {
	return c.trial == nil && !c.leading && c.member() && c.ticks-c.alone.ledAt >= c.times.Lonely
}

// askWhetherGone asks a voter and any other peer by turns what is known against us:
// the voters may all be others by now. Whoever knows that we are a member no longer
// says so to any frame of ours; see forUs.
func (c *Core) askWhetherGone() {
	if c.leading {
		c.alone.ledAt = c.ticks
	}
	if !c.lonely() || c.ticks < c.alone.askAt {
		return
	}
	c.alone.askAt = c.ticks + c.times.Lonely
	c.alone.next++
	n := c.alone.next / 2
	if c.alone.next%2 == 0 || len(c.peers) == 0 {
		voters := slices.DeleteFunc(slices.Clone(c.conf.Voters), func(id uint64) bool { return id == uint64(c.self.ID) })
		if len(voters) == 0 {
			return
		}
		id := ledger.MemberID(voters[n%len(voters)])
		if name, ok := c.nameOf(id); ok && slices.Contains(c.peers, name) {
			c.sendCheck(name, id)
			return
		}
	}
	if len(c.peers) > 0 {
		c.sendCheck(c.peers[n%len(c.peers)], 0)
	}
}

// tellGone says that this very life of the sender is over.
func (c *Core) tellGone(to gossip.Peer, about *frame, words string) {
	c.send(to, &frame{To: about.From, Kind: kindGone, About: about.Life, Words: clip(words)})
}
