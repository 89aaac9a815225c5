package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// look notices who leads now.
func (c *Core) look() {
	st := c.rn.BasicStatus()
	lead, leading := ledger.MemberID(st.Lead), st.RaftState == raft.StateLeader
	if lead == c.lead && leading == c.leading && st.GetTerm() == c.term {
		return
	}
	if leading && !c.leading {
		last, _ := c.mem.LastIndex()
		c.confAt = last + 1 // an earlier leader's change may be among what is not applied yet; and our own first entry
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
	c.changeConf()
}

// changeConf makes the next change of the configuration, when none is under way.
func (c *Core) changeConf() {
	if !c.leading || c.state.Index() < c.confAt {
		return
	}
	last, _ := c.mem.LastIndex()
	match := make(map[uint64]uint64, 8)
	c.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) { match[id] = pr.Match })
	v := view{
		self: uint64(c.self.ID), conf: c.conf, members: c.state.Members(), uneven: c.uneven,
		silence: func(id uint64) uint64 { return c.silence(ledger.MemberID(id)) },
		caught:  func(id uint64) bool { return match[id] > 0 && match[id]+behindAtUp >= last },
	}
	ch, ok := v.next()
	if !ok || c.rn.ProposeConfChange(ch.v2()) != nil {
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
