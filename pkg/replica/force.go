package replica

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// ErrAsking says that Force waits for the hosts that can be reached: call it again
// a tick later.
var ErrAsking = errors.New("the hosts that can be reached are being asked how far they are")

// forcing is how far the question is.
type forcing struct{ begun, askAt uint64 } // ticks; 0: not begun

const (
	forceTicks = 30 // a host that does not answer for so long is not there
	forceFresh = 50 // an attempt that is not continued for so long begins anew

	// eraBits: terms of one era have all but these bits in common. Force begins a
	// new era, far above any term that a majority somewhere else can have reached.
	eraBits = 20
)

func era(term uint64) uint64 { return term >> eraBits }

// Force makes this host the only voter, at the last entry that it has applied;
// what it has of the log beyond is dropped. It is for when the majority is lost
// for good, on the operator's word: an entry that only lost hosts have applied is
// forgotten, and if they are not lost, two may own one address. The batch must be
// saved before anything else is done. It must not be called between Begin and Finish.
//
// It is refused while a majority is there, or when a host that can be reached has
// more of the ledger. Hosts that have the forgotten entries and come back later,
// also after another Force, notice it, and are spent.
func (c *Core) Force() (Batch, error) {
	if err := c.mayForce(); err != nil {
		return Batch{}, err
	}
	if err := c.askSurvivors(); err != nil {
		return Batch{}, err
	}
	index, term := c.state.Index(), (era(c.highestTerm())+1)<<eraBits
	forked := image{c.state, append(slices.Clone(c.forks), fork{index, term, c.self.ID})}
	snap := Snapshot{Index: index, Term: term, Conf: Conf{Voters: []uint64{uint64(c.self.ID)}}, Data: forked.encode()}
	hard := Hard{Term: term, Commit: index}
	if err := c.restore(Saved{Owner: c.self.ID, Hard: hard, Snapshot: snap}); err != nil {
		return Batch{}, fmt.Errorf("force the ledger on: %w", err)
	}
	c.trial, c.snap, c.answers, c.force = nil, snapshots{}, nil, forcing{}
	c.lead, c.leading, c.confAt, c.prop.appended, c.changed = 0, false, 0, nil, true
	if err := c.startRaft(); err != nil {
		return Batch{}, fmt.Errorf("force the ledger on: %w", err)
	}
	return Batch{Reset: true, Snapshot: &snap, Hard: &hard}, nil
}

func (c *Core) mayForce() error {
	switch why := c.spent(); {
	case c.ready != nil:
		panic("replica: Force between Begin and Finish") // the driver's mistake
	case why != "":
		return fmt.Errorf("force the ledger on: %s", why)
	case c.departing():
		return errors.New("force the ledger on: this host has left the cluster, and votes only until the others do without it; run it on one that is a member")
	case !c.member():
		return errors.New("force the ledger on: this host has no copy of the ledger; run it on one that has")
	case c.halted != "":
		return fmt.Errorf("force the ledger on: %s", c.halted)
	case len(c.forks) >= maxForks:
		return fmt.Errorf("force the ledger on: it was %d times before, which is the most that is kept", len(c.forks))
	case c.leading && c.quorumThere():
		return errors.New("force the ledger on: this host leads, and a majority of the voters is there; nothing to do")
	case !c.leading && c.trial == nil && c.leaderHeard():
		return fmt.Errorf("force the ledger on: host %s leads and is heard; nothing to do", c.display(uint64(c.lead)))
	}
	return nil
}

// askSurvivors asks those that can be reached how far they are, and refuses when
// one of them has more than we have.
func (c *Core) askSurvivors() error {
	f := &c.force
	if f.begun == 0 || c.ticks-f.askAt > forceFresh {
		c.answers, f.begun, f.askAt = nil, max(c.ticks, 1), 0
	}
	var silent []string
	for m := range c.state.AllMembers() {
		if !m.Live() || m.ID == c.self.ID || !slices.Contains(c.peers, gossip.Peer(m.Name)) {
			continue
		}
		a, ok := c.answers[m.ID]
		if ok && a.Index > c.state.Index() {
			return fmt.Errorf("force the ledger on: host %s has more of the ledger (entry %d, this host entry %d); run it on %s", m.Name, a.Index, c.state.Index(), m.Name)
		}
		if ok {
			continue
		}
		silent = append(silent, m.Name)
		if f.askAt == 0 || c.ticks-f.askAt >= joinTicks {
			c.sendCheck(gossip.Peer(m.Name), m.ID)
		}
	}
	if f.askAt == 0 || c.ticks-f.askAt >= joinTicks {
		f.askAt = max(c.ticks, 1)
	}
	if len(silent) > 0 && c.ticks-f.begun < forceTicks {
		return fmt.Errorf("%w: %s", ErrAsking, strings.Join(silent, ", "))
	}
	return nil
}

func (c *Core) highestTerm() uint64 {
	hard, _, _ := c.mem.InitialState() // never fails here
	term := max(hard.GetTerm(), c.term)
	for _, a := range c.answers {
		term = max(term, a.Term)
	}
	return term
}

// wantSnapshot answers a leader of a newer era than our log is of. raft itself
// would acknowledge what the two logs have alike in number, and only in that.
func (c *Core) wantSnapshot(f *frame) {
	if name, ok := c.nameOf(f.From); ok {
		c.send(name, &frame{To: f.From, Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgAppResp), Term: f.Raft.Term, Index: f.Raft.Index, Reject: true}})
	}
}

// cutOff notices, by a snapshot's forks, that it is of another branch than what we
// have applied: the cluster was forced on before our last entry, any time since, or we
// were where it was not.
func (c *Core) cutOff(forks []fork) bool {
	for _, f := range forks {
		if c.state.Index() > f.index && !slices.Contains(c.forks, f) {
			c.end(fmt.Sprintf("the cluster was forced on without this host, from entry %d, and this host had entry %d", f.index, c.state.Index()))
			return true
		}
	}
	for _, f := range c.forks {
		if !slices.Contains(forks, f) {
			c.end(fmt.Sprintf("this host was forced on, or followed one that was, from entry %d, and the cluster that it meets was not", f.index))
			return true
		}
	}
	return false
}
