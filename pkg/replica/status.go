package replica

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Status is how the replica is, for people.
type Status struct {
	Index    uint64   // last entry applied
	Decided  uint64   // last entry that is known to be decided; where it is above Index, this copy lags behind
	Leads    bool     // this host is the leader
	Votes    bool     // this host is a voter
	Leader   string   // name of the leader, "" when none is known
	Led      bool     // a leader is heard; where this host leads, a majority
	Voters   []string // names, sorted
	Members  int      // of the ledger, live ones
	Ready    bool     // see Core.Ready
	Spent    string   // see Core.Spent
	Waiting  string   // one sentence: what it waits for and what to do; "" when nothing
	Alone    bool     // that is to reach any other host at all
	Lost     uint64   // messages dropped because too many waited
	Counters Counters
}

// Status describes the present.
func (c *Core) Status() Status {
	s := Status{Index: c.state.Index(), Ready: c.Ready(), Spent: c.Spent(), Waiting: c.waiting(), Counters: c.counters}
	s.Alone = s.Waiting == nobodyReached
	s.Decided = max(s.Index, c.rn.BasicStatus().GetCommit())
	s.Leads, s.Votes = c.leading, slices.Contains(c.conf.Voters, uint64(c.self.ID))
	s.Led = c.leaderHeard() && (!c.leading || c.quorumThere())
	if c.leaderHeard() {
		s.Leader = c.display(uint64(c.lead))
	}
	for _, id := range c.conf.Voters {
		s.Voters = append(s.Voters, c.display(id))
	}
	slices.Sort(s.Voters)
	for m := range c.state.AllMembers() {
		if m.Live() {
			s.Members++
		}
	}
	return s
}

func (c *Core) display(id uint64) string {
	if name, ok := c.nameOf(ledger.MemberID(id)); ok {
		return string(name)
	}
	return fmt.Sprintf("%x", id)
}

func (c *Core) leaderHeard() bool { return c.lead != 0 && c.silence(c.lead) <= freshFor }

func (c *Core) waiting() string {
	switch why := c.spent(); {
	case why != "":
		return why + ": stop this router, remove its state directory and start it again"
	case c.rewound:
		return c.halted + ", for this host gives no address until then: behind that entry lies what a newer version gave back here"
	case c.halted != "":
		return c.halted
	case c.newer.words != "" && c.ticks-c.newer.at < wordsTicks:
		return c.newer.words
	case c.trial != nil:
		return c.asking()
	case c.departing():
		return c.relief()
	case !c.member():
		return c.waitingToJoin()
	case c.leading && !c.quorumThere():
		return c.noMajority()
	case !c.leaderHeard():
		return c.noMajority()
	case c.undecided():
		return "a `weave reset` was begun, and the ledger has not decided yet whether this host leaves"
	}
	return ""
}

const nobodyReached = "waits to join a cluster, but no other host can be reached: check the peers' names and that their gossip port (TCP, 6783 unless changed) is open"

func (c *Core) waitingToJoin() string {
	refused := c.join.refused != "" && c.ticks-c.join.refusedAt < wordsTicks
	switch {
	case refused:
		return "the cluster does not let this host join: " + c.join.refused
	case len(c.peers) == 0:
		return nobodyReached
	case c.cluster == "" && c.join.asked == "":
		return "is about to ask a peer to join its cluster"
	}
	return fmt.Sprintf("waits to join a cluster through %s: see there with `weave status` that a majority of its voters is up", c.join.asked)
}

func (c *Core) quorumThere() bool {
	n := 0
	for _, id := range c.conf.Voters {
		if c.silence(ledger.MemberID(id)) <= freshFor {
			n++
		}
	}
	return n > len(c.conf.Voters)/2
}

// reborn reports whether somebody whom the ledger does not know goes by that name.
func (c *Core) reborn(name string) bool {
	for _, other := range c.names {
		if string(other) == name {
			return true
		}
	}
	return false
}

// noMajority names the voters that cannot be reached.
func (c *Core) noMajority() string {
	var away []string
	for _, id := range c.conf.Voters {
		switch name := c.display(id); {
		case ledger.MemberID(id) == c.self.ID:
		case !slices.Contains(c.peers, gossip.Peer(name)):
			away = append(away, name)
		case c.reborn(name):
			away = append(away, name+", which has lost its state directory")
		}
	}
	slices.Sort(away)
	n := len(c.conf.Voters)
	if len(away) <= (n-1)/2 {
		return fmt.Sprintf("waits for the %d voters to choose a leader, which takes a few seconds", n)
	}
	return fmt.Sprintf("no majority: %d of the %d voters cannot be reached (%s); the network goes on, but no block changes hands until they are back", len(away), n, strings.Join(away, "; "))
}
