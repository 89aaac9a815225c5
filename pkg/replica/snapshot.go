package replica

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// snapshots is the sending and receiving of the ledger as a whole. It goes in
// numbered parts, since a message has an upper size; parts that were lost are
// sent again with all the others, and the receiver keeps what it has.
type snapshots struct {
	made    *raftpb.Snapshot // the last one, kept so that a repetition has the same parts
	waiting map[ledger.MemberID]uint64
	coming  *assembly
	loaded  *loaded // of the last that came whole

	grumbleAt uint64 // tick from which to say again that it is too large
}

// loaded is a snapshot's ledger, on its way through raft.
type loaded struct {
	index, term uint64
	image
}

// assembly is a snapshot of which not all parts are here yet. There is one at a
// time: a newer one takes the place.
type assembly struct {
	index, term uint64
	parts       [][]byte
	missing     int
}

func (s *snapshots) sent(to ledger.MemberID, tick uint64) {
	if s.waiting == nil {
		s.waiting = make(map[ledger.MemberID]uint64)
	}
	s.waiting[to] = tick
}

// makeSnapshot answers raft, which wants to bring somebody up to date.
func (c *Core) makeSnapshot() (*raftpb.Snapshot, error) {
	index := c.state.Index()
	if c.snap.made != nil && c.reusable(c.snap.made.GetMetadata()) {
		return c.snap.made, nil
	}
	term, err := c.mem.Term(index)
	if err != nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	data := c.image().encode()
	if len(data) > maxSnapshot {
		if c.snap.grumbleAt <= c.ticks { // the ledger bounds itself below
			c.report("the ledger is too large to be sent: hosts that join or were away for long are not brought up to date", "bytes", len(data), "most", maxSnapshot)
			c.snap.grumbleAt = c.ticks + grumbleTicks
		}
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	c.snap.made = Snapshot{index, term, c.conf, data}.proto()
	return c.snap.made, nil
}

func (c *Core) image() image { return image{c.state, c.forks} }

// reusable reports whether the log goes on where the snapshot ends, and whether
// everybody of today is in it.
func (c *Core) reusable(meta *raftpb.SnapshotMetadata) bool {
	first, _ := c.mem.FirstIndex()
	return meta.GetIndex()+1 >= first && meta.GetConfState().Equivalent(c.conf.proto()) == nil
}

// retrySnapshots tells raft to try again where no answer came.
func (c *Core) retrySnapshots() {
	for id, at := range c.snap.waiting {
		if c.ticks-at < snapshotTicks {
			continue
		}
		delete(c.snap.waiting, id)
		if c.conf.has(uint64(id)) {
			c.raft().ReportSnapshot(uint64(id), raft.SnapshotFailure)
		}
	}
}

// assemble adds a part; done when it was the last that was missing, then m holds the snapshot.
func (c *Core) assemble(f *frame, m *raftpb.Message) (done bool) {
	meta, p, a := f.Raft.Snapshot, f.Part, c.snap.coming
	if further := meta.Index <= c.state.Index() && era(meta.Term) <= era(c.lastTerm()); (further || f.Raft.Term < c.term) && !c.mutate.has(StaleWins) {
		// We are further already, or it leads no more: raft will say so to the sender.
		m.Snapshot = Snapshot{meta.Index, meta.Term, meta.Conf, nil}.proto()
		return true
	}
	if a == nil || a.index != meta.Index || a.term != meta.Term || len(a.parts) != p.Of {
		a = &assembly{meta.Index, meta.Term, make([][]byte, p.Of), p.Of}
		c.snap.coming = a
	}
	if a.parts[p.N] == nil {
		a.parts[p.N] = p.Data
		a.missing--
	}
	if a.missing > 0 {
		return false
	}
	c.snap.coming = nil
	data := join(a.parts)
	i, err := decodeImage(meta.Index, data)
	if errors.Is(err, ledger.ErrNewer) {
		c.newer = newer{fmt.Sprintf("%v: %v (from %s)", errOlder, err, c.display(uint64(f.From))), c.ticks}
	}
	if err != nil || i.state.Cluster() != f.Cluster || i.state.Cluster() == "" || !meta.Conf.has(uint64(c.self.ID)) {
		c.counters.Impossible++
		return false
	}
	if c.cutOff(i.forks) || c.forgotVotes(meta) {
		return false
	}
	if c.mutate.has(StaleWins) && meta.Index < c.state.Index() {
		c.state, c.changed = i.state, true
		return false
	}
	c.snap.loaded = &loaded{meta.Index, meta.Term, i}
	m.Snapshot = Snapshot{meta.Index, meta.Term, meta.Conf, data}.proto()
	return true
}

// forgotVotes notices that a core which began without a ledger had a vote in an
// earlier life: who joins follows first, and has the ledger when it gets a vote.
func (c *Core) forgotVotes(meta *snapMeta) bool {
	if c.state.Index() > 0 || !slices.Contains(meta.Conf.Voters, uint64(c.self.ID)) || c.mutate.has(VoteAfterForgetting|TrustOldState) {
		return false
	}
	c.end(ledgerGone.words())
	return true
}

func (c *Core) lastTerm() uint64 {
	last, _ := c.mem.LastIndex()
	term, _ := c.mem.Term(last) // never fails for the last entry
	return term
}

func join(parts [][]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	all := make([]byte, 0, n)
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// install puts a snapshot that raft has accepted in the place of the ledger.
func (c *Core) install(s *raftpb.Snapshot) error {
	meta := s.GetMetadata()
	l := c.snap.loaded
	if c.snap.loaded = nil; l == nil || l.index != meta.GetIndex() || l.term != meta.GetTerm() {
		i, err := decodeImage(meta.GetIndex(), s.GetData())
		if err != nil {
			return err // it was loaded once before
		}
		l = &loaded{image: i}
	}
	c.state, c.forks, c.changed = l.state, l.forks, true
	c.conf = toConf(meta.GetConfState())
	c.compactedTo, c.newerApplied = meta.GetIndex(), false
	if p := c.prop.current; p != nil {
		if res, before := c.state.Answer(p.cmd); before {
			c.proposalApplied(p.cmd, res)
		}
	}
	c.noticeSelf()
	return nil
}

// mustCompact reports whether a snapshot is due. After an entry that the first release
// cannot read it is at once: a router of that release which replayed the log would stop in
// front of the entry, without knowing that its own blocks may be another's since. It finds
// a snapshot that it can read, or one that it refuses to start with. They are rare.
func (c *Core) mustCompact() bool {
	return c.newerApplied || c.state.Index() >= c.compactedTo+c.compactAfter
}

// compact adds a snapshot of now to the batch, and cuts the log behind it. The
// copy in memory is cut at once: what is not on disk yet is in the batch.
func (c *Core) compact(b *Batch) {
	index := c.state.Index()
	c.compactedTo, c.newerApplied = index, false // also when it fails: not again at once
	term, err := c.mem.Term(index)
	if err != nil {
		return
	}
	b.Snapshot = &Snapshot{index, term, c.conf, c.image().encode()}
	keep := min(keepEntries, c.compactAfter)
	first, _ := c.mem.FirstIndex()
	if index <= keep || index-keep < first {
		return
	}
	b.CompactTo = index - keep
	if err := c.mem.Compact(b.CompactTo); err != nil {
		panic(fmt.Sprintf("replica: compact to %d: %v", b.CompactTo, err))
	}
}
