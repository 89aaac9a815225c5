package replica

import (
	"slices"

	"go.etcd.io/raft/v3"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// look notices who leads now. It is called when what raft had to do is done: when
// we have begun to lead, the log in memory ends with our own first entry.
func (c *Core) look() {
	if c.halted != "" {
		return
	}
	st := c.rn.BasicStatus()
	lead, leading := ledger.MemberID(st.Lead), st.RaftState == raft.StateLeader
	if lead == c.lead && leading == c.leading && st.GetTerm() == c.term {
		return
	}
	if leading && !c.leading {
		c.confAt, _ = c.mem.LastIndex() // an earlier leader's change may be among what is not applied yet
		c.changed = true
		for _, id := range slices.Concat(c.conf.Voters, c.conf.Learners) {
			c.pulse(ledger.MemberID(id)).heard = c.ticks // give everybody the time to be heard
		}
		c.since = c.ticks
	}
	c.prop.appended = nil
	c.uneven = 0
	c.lead, c.leading, c.term = lead, leading, st.GetTerm()
	if lead != 0 {
		c.sendProposal()
	}
}

// govern is what a leader does once a tick besides raft's own work.
func (c *Core) govern() {
	if !c.leading {
		return
	}
	if c.uneven++; len(c.conf.Voters)%2 == 1 {
		c.uneven = 0
	}
	c.retrySnapshots()
	if c.ticks%governTicks == 0 {
		c.handOver()
		c.changeConf()
	}
}

// changeConf makes the next change of the configuration, when none is under way.
func (c *Core) changeConf() {
	if !c.leading || c.state.Index() < c.confAt || c.leaveUnderWay() {
		return
	}
	last, _ := c.mem.LastIndex()
	v := view{
		self: uint64(c.self.ID), conf: c.conf, member: c.state.Member, members: c.state.AllMembers(), uneven: c.uneven, times: c.times,
		silence: func(id uint64) uint64 { return c.silence(ledger.MemberID(id)) },
		caught: func(id uint64) bool {
			match := c.match(ledger.MemberID(id))
			return match > 0 && match+behindAtUp >= last
		},
	}
	ch, ok := v.next()
	if !ok || c.raft().ProposeConfChange(ch.v2()) != nil {
		return
	}
	c.confAt = last + 1
}

// never is the silence of one who was not heard.
const never = 1 << 32

// silence is how many ticks ago a member was heard; 0 for ourselves.
func (c *Core) silence(id ledger.MemberID) uint64 {
	if id == c.self.ID {
		return 0
	}
	p, ok := c.pulses[id]
	if !ok || p.heard == 0 {
		return never
	}
	return c.ticks - p.heard
}
