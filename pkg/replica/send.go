package replica

import (
	"errors"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// sendRaft puts a message of raft into a frame, a snapshot into several.
func (c *Core) sendRaft(m *raftpb.Message) {
	to := ledger.MemberID(m.GetTo())
	name, ok := c.nameOf(to)
	if !ok {
		c.counters.NoRoute++
		return
	}
	f := c.sent.raftFrame(to, m)
	if m.GetType() != raftpb.MsgSnap {
		c.send(name, f)
		return
	}
	c.snap.sent(to, c.ticks)
	parts := slices.Collect(slices.Chunk(m.GetSnapshot().GetData(), partSize))
	for i, p := range parts {
		f.Part = &part{i, len(parts), p}
		c.send(name, f)
	}
}

func (c *Core) nameOf(id ledger.MemberID) (gossip.Peer, bool) {
	if m, ok := c.state.Member(id); ok {
		return gossip.Peer(m.Name), true
	}
	p, ok := c.names[id]
	return p, ok
}

// send fills in who we are.
func (c *Core) send(to gossip.Peer, f *frame) {
	if c.void != "" {
		return
	}
	f.Cluster, f.From, f.Life, f.Trial = c.cluster, c.self.ID, c.life, c.trial != nil
	b, err := f.pack(c.codec)
	if err != nil || len(b) > gossip.MaxMessage {
		c.counters.TooLarge++
		return
	}
	c.out = append(c.out, Out{to, f.To, b})
}

// appendCommand puts a command into the log; only a leader can.
func (c *Core) appendCommand(cmd ledger.Command) error {
	data := cmd.Append(make([]byte, 0, 64))
	if len(data) > maxCommand {
		return errTooLarge
	}
	return c.raft().Propose(data)
}

var errTooLarge = errors.New("command larger than 96 KiB")
