package meshlink

import (
	"context"
	"fmt"
	"slices"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Send queues msg for one peer (see gossip.Net).
func (l *Link) Send(to gossip.Peer, ch gossip.Channel, msg []byte) error {
	if err := l.check(ch, msg); err != nil {
		return err
	}
	if to == l.self {
		if !l.deliver(message{from: l.self, channel: ch, body: slices.Clone(msg)}) {
			return gossip.ErrBusy
		}
		return nil
	}
	m := meshName(to)
	if !l.view.Load().reaches(m) {
		return gossip.ErrUnreachable
	}
	return l.post.put(m, message{from: l.self, channel: ch, body: msg}.encode())
}

// Broadcast queues msg for every reachable peer (see gossip.Net).
func (l *Link) Broadcast(ch gossip.Channel, msg []byte) error {
	if err := l.check(ch, msg); err != nil {
		return err
	}
	frame := message{from: l.self, channel: ch, hops: maxHops, body: msg}.encode()
	if len(l.view.Load().uid) > 0 && !l.out.put(frame, len(frame)) {
		l.stats.Busy.Add(1)
		return gossip.ErrBusy
	}
	return nil
}

func (l *Link) check(ch gossip.Channel, msg []byte) error {
	if len(msg) > gossip.MaxMessage {
		return gossip.ErrTooLarge
	}
	if ch == own {
		return fmt.Errorf("gossip channel %d is not for messages", ch)
	}
	return nil
}

// broadcasts hands what Broadcast has queued to mesh, which may wait for its
// routes meanwhile.
func (l *Link) broadcasts(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.out.more:
		}
		var frames [][]byte
		for _, f := range l.out.takeAll() {
			frames = append(frames, f.v)
		}
		l.gossip.GossipBroadcast(newBundle(frames, l.lostBroadcasts))
		l.stats.BroadcastsSent.Add(uint64(len(frames)))
	}
}

func (l *Link) unicast(to mesh.PeerName, frame []byte) error {
	return l.gossip.GossipUnicast(to, frame)
}

func (l *Link) lostBroadcasts(n int) { l.stats.LostBroadcasts.Add(uint64(n)) }

// Peers lists the reachable peers, sorted (see gossip.Net). A host that is
// reached through others is listed when it has told its name, which takes one
// message there and back.
func (l *Link) Peers() []gossip.Peer { return slices.Clone(l.view.Load().peers) }

// Neighbours lists the peers with a direct connection, sorted.
func (l *Link) Neighbours() []gossip.Peer { return slices.Clone(l.view.Load().neighbours) }

// Changed is closed when either list may have changed since it was asked for.
func (l *Link) Changed() <-chan struct{} { return l.changed.heard() }
