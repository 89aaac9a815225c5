package replica

import (
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire/cursor"
)

// joining is a newcomer's way into a cluster: it asks one reachable peer after
// the other until the ledger arrives and says that it is a member. The leader
// puts it into the ledger, and whoever leads then lets every member of the ledger
// follow; so nothing is lost when a leader dies in between.
type joining struct {
	at        uint64 // tick from which to ask again
	next      int    // peer to ask
	asked     gossip.Peer
	heardAt   uint64 // tick of the last raft message
	refused   string
	refusedAt uint64
	answered  map[ledger.MemberID]uint64
}

func (c *Core) askToJoin() {
	if c.ticks < c.join.at || c.member() || c.departing() || c.spent() != "" || len(c.peers) == 0 {
		return
	}
	c.join.at = c.ticks + joinTicks
	if c.state.Index() == 0 && c.ticks-c.join.heardAt > wordsTicks {
		c.cluster = "" // who began to let us in has gone; any cluster's answer will do again
	}
	c.join.asked = c.peers[c.join.next%len(c.peers)]
	c.join.next++
	self := c.self
	c.send(c.join.asked, &frame{Kind: kindJoin, Member: &self})
}

// receiveJoin serves a newcomer, or another member that hands its request on.
func (c *Core) receiveJoin(from gossip.Peer, f *frame) {
	m := ledger.Member{ID: f.Member.ID, Name: f.Member.Name, Place: f.Member.Place}
	if f.Hops == 0 && (m.Name != string(from) || m.ID != f.From) {
		c.counters.WrongMember++
		return
	}
	if !c.leading {
		name, ok := c.nameOf(c.lead)
		if ok && f.Hops < maxHops && c.lead != f.From && c.member() {
			c.send(name, &frame{To: c.lead, Kind: kindJoin, Hops: f.Hops + 1, Member: &m})
		}
		return
	}
	if at, ok := c.join.answered[m.ID]; ok && c.ticks-at < joinTicks {
		return
	}
	if c.join.answered == nil || len(c.join.answered) >= maxNames {
		c.join.answered = make(map[ledger.MemberID]uint64)
	}
	c.join.answered[m.ID] = c.ticks
	c.admit(m)
}

// admit puts a newcomer into the ledger, or tells it why the ledger would not have it.
func (c *Core) admit(m ledger.Member) {
	cmd := ledger.Command{Join: &ledger.Join{Member: m}}
	if res := c.state.Clone().Apply(c.state.Index()+1, cmd); res.Code != ledger.OK {
		c.send(gossip.Peer(m.Name), &frame{To: m.ID, Kind: kindRefused, Words: clip(res.Err)})
		return
	}
	if _, ok := c.state.Member(m.ID); ok {
		c.remember(m)
		return
	}
	if twin, ok := c.twin(m); ok {
		if c.ticks-c.since < settleTicks {
			return // who is alive will be heard soon
		}
		if c.silence(twin.ID) <= c.times.Twin {
			c.send(gossip.Peer(m.Name), &frame{To: m.ID, Kind: kindRefused, Words: clip("another host is called " + m.Name + " and was heard a moment ago; " +
				"if it still runs, give one of the two another name with --name; if it was this host before, wait a few seconds")})
			return
		}
	}
	_ = c.appendCommand(cmd) // dropped: it asks again
}

// twin finds the live member whose name a newcomer has, where it may be a host that
// runs. One in the same network namespace of the same boot has ended: it held a lock.
func (c *Core) twin(m ledger.Member) (twin ledger.Member, ok bool) {
	twin, ok = c.state.MemberByName(m.Name)
	if !ok || c.mutate.has(RetireWithoutProof) {
		return twin, false
	}
	return twin, m.Place != twin.Place || !m.Place.Succeeds(twin.Place)
}

// remember answers a member that asks to join. Mostly the ledger is on its way to
// it. But if it acknowledged some of the log before, it has lost that, and with it
// what it promised: under this identity it must not come back.
func (c *Core) remember(m ledger.Member) {
	if c.match(m.ID) > 0 {
		c.send(gossip.Peer(m.Name), &frame{To: m.ID, Kind: kindRefused,
			Words: "host " + m.Name + " has lost its copy of the ledger but kept its identity, so it may have forgotten a vote; remove its state directory and start its router again"})
	}
}

func clip(words string) string { return cursor.Clip(words, maxWords) }
