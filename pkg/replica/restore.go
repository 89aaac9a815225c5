package replica

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// found writes the memory of a cluster of one whose ledger is two entries old.
func (c *Core) found(cmd *ledger.Command, saved *Saved, first *Batch) error {
	s := ledger.New()
	if res := s.Apply(1, *cmd); cmd.Found == nil || res.Code != ledger.OK {
		return fmt.Errorf("found a cluster: %s", res.Err)
	}
	if res := s.Apply(2, ledger.Command{Join: &ledger.Join{Member: c.self}}); res.Code != ledger.OK {
		return fmt.Errorf("found a cluster: %s", res.Err)
	}
	saved.Snapshot = Snapshot{Index: 2, Term: 1, Conf: Conf{Voters: []uint64{uint64(c.self.ID)}}, Data: image{state: s}.encode()}
	saved.Hard, saved.Entries = Hard{Term: max(saved.Hard.Term, 1), Commit: 2}, nil
	first.Reset, first.Snapshot, first.Hard = true, &saved.Snapshot, &saved.Hard
	return nil
}

// restore makes the ledger of what was saved: the snapshot, and every entry after
// it that is known to be committed.
func (c *Core) restore(saved Saved) error {
	mem, err := newMemory(saved)
	if err != nil {
		return err
	}
	c.mem, c.state, c.conf = mem, ledger.New(), saved.Snapshot.Conf
	if saved.Snapshot.Index > 0 {
		if err := c.conf.check(); err != nil {
			return fmt.Errorf("snapshot %d: %w", saved.Snapshot.Index, err)
		}
		i, err := decodeImage(saved.Snapshot.Index, saved.Snapshot.Data)
		if errors.Is(err, ledger.ErrNewer) {
			return fmt.Errorf("%w: %w", errOlder, err)
		}
		if err != nil {
			return err
		}
		c.state, c.forks = i.state, i.forks
	}
	c.compactedTo = saved.Snapshot.Index
	for _, e := range saved.Entries {
		if e.Index <= saved.Snapshot.Index || e.Index > saved.Hard.Commit {
			continue
		}
		if c.halted == "" {
			c.replay(e)
		}
		c.rewound = c.rewound || c.halted != "" && c.mayBeOurs(e)
	}
	c.mem.conf, c.cluster = c.conf, c.state.Cluster()
	return nil
}

// mayBeOurs reports whether an entry may be a command of this host's.
func (c *Core) mayBeOurs(e Entry) bool {
	if _, isConf, err := confChange(e); isConf && err == nil || len(e.Data) == 0 {
		return false
	}
	from, ok := ledger.Author(e.Data)
	return !ok || from == c.self.ID
}

// replay applies an entry without raft.
func (c *Core) replay(e Entry) {
	ch, isConf, err := confChange(e)
	if err != nil || !isConf {
		c.applyCommand(e)
		return
	}
	c.state.Advance(e.Index)
	if after, ok := c.conf.with(ch); ok {
		c.conf = after
	}
}

func (c *Core) startRaft() (err error) {
	c.mem.snapshot = c.makeSnapshot
	c.rn, err = raft.NewRawNode(&raft.Config{
		ID: uint64(c.self.ID), ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: c.mem, Applied: c.state.Index(),
		MaxSizePerMsg: appendBytes, MaxUncommittedEntriesSize: uncommitted, MaxInflightMsgs: 64,
		CheckQuorum: true, PreVote: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: newLogger(c.log),
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	hard, _, _ := c.mem.InitialState() // never fails here
	c.term, c.stirred = hard.GetTerm(), true
	return c.standAlone()
}

// standAlone makes a sole voter lead at once: there is nobody to wait for.
func (c *Core) standAlone() error {
	if c.trial == nil && c.void == "" && c.halted == "" && c.conf.sole(c.self.ID) {
		return c.raft().Campaign()
	}
	return nil
}
