package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// apply carries out committed entries on a copy of the ledger.
func (c *Core) apply(entries []*raftpb.Entry) {
	if len(entries) == 0 || c.halted != "" {
		return
	}
	c.state, c.changed = c.state.Clone(), true
	for _, pe := range entries {
		e := toEntry(pe)
		if ch, isConf, err := confChange(e); err == nil && isConf {
			c.applyConf(e, ch)
			continue
		}
		if c.applyCommand(e); c.halted != "" {
			break
		}
	}
	c.noticeSelf()
}

func (c *Core) applyConf(e Entry, ch change) {
	c.state.Advance(e.Index)
	after, ok := c.conf.with(ch)
	if !ok {
		return // the same on every host
	}
	c.conf = after // before raft learns of it: it may ask for a snapshot at once
	cs := c.raft().ApplyConfChange(ch.v2())
	if slices.Equal(cs.Voters, after.Voters) && slices.Equal(cs.Learners, after.Learners) && slices.Equal(cs.VotersOutgoing, after.Outgoing) {
		return
	}
	if err := cs.Equivalent(after.proto()); err != nil { // not even in another order
		panic(fmt.Sprintf("replica: configuration after entry %d: %v", e.Index, err))
	}
}

// applyCommand is also how a restarted core replays. Raft's own entries are empty. An
// entry that cannot be read is one that others can: it ends the replay.
func (c *Core) applyCommand(e Entry) {
	if len(e.Data) == 0 {
		c.state.Advance(e.Index)
		return
	}
	cmd, err := ledger.ParseCommand(e.Data)
	if err != nil {
		c.halt(e.Index, err)
		return
	}
	if c.mutate.has(RetireWithoutProof) && cmd.Join != nil {
		c.forgeProof(cmd.Join)
	}
	c.newerApplied = c.newerApplied || !cmd.Plain()
	res := c.state.Apply(e.Index, cmd)
	if cmd.From == c.self.ID {
		c.proposalApplied(cmd, res)
	}
}

// noticeSelf follows what the ledger says of ourselves.
func (c *Core) noticeSelf() {
	c.cluster = c.state.Cluster()
	for id := range c.names {
		if _, ok := c.state.Member(id); ok {
			delete(c.names, id)
		}
	}
	if seq, _ := c.state.Last(c.self.ID); seq > c.prop.seq && !c.mutate.has(TrustOldState) {
		c.end(twoCopies.words())
	}
	if why := c.spent(); why != "" {
		c.failProposals(goneError(why))
	}
}

func (c *Core) member() bool {
	m, ok := c.state.Member(c.self.ID)
	return ok && m.Live()
}
