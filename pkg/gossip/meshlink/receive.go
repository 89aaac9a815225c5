package meshlink

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// inbox is one channel's handler with what waits for it.
type inbox struct {
	channel gossip.Channel
	handle  gossip.Handler
	waiting *queue[message]
}

// run calls the handler for one message after the other until ctx ends.
func (b *inbox) run(ctx context.Context, l *Link) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.waiting.more:
		}
		for _, m := range b.waiting.takeAll() {
			if ctx.Err() != nil {
				return
			}
			b.call(l, m.v)
		}
	}
}

// call keeps a panic of the handler from reaching further than its message.
func (b *inbox) call(l *Link, m message) {
	defer func() {
		if r := recover(); r != nil {
			l.stats.HandlerPanics.Add(1)
			if l.seldom.ok("panic") {
				l.cfg.Log.Error("a gossip handler panicked; its message is dropped",
					"channel", b.channel, "from", m.from, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			}
		}
	}()
	l.stats.Received.Add(1)
	b.handle(m.from, m.body)
}

// ears is what mesh calls: it only sorts messages into queues, and never returns
// an error, for which mesh would close a connection.
type ears struct{ l *Link }

// OnGossipUnicast takes one frame.
func (e ears) OnGossipUnicast(src mesh.PeerName, part []byte) error {
	m, rest, err := decodeFrame(part)
	if err != nil || len(rest) > 0 {
		e.l.stats.BadFrames.Add(1)
		return nil
	}
	e.l.receive(src, m)
	return nil
}

// OnGossipBroadcast takes frames, and returns them for those behind us.
func (e ears) OnGossipBroadcast(src mesh.PeerName, part []byte) (mesh.GossipData, error) {
	messages, frames, err := relay(part)
	if err != nil {
		e.l.stats.BadFrames.Add(1)
	}
	for _, m := range messages {
		e.l.receive(src, m)
	}
	if len(frames) == 0 {
		return nil, nil
	}
	return newBundle(frames, e.l.lostBroadcasts), nil
}

// Gossip is mesh's periodic sending of everything: we have nothing of the kind.
func (ears) Gossip() mesh.GossipData { return nil }

// OnGossip would take what another's Gossip returned.
func (e ears) OnGossip([]byte) (mesh.GossipData, error) {
	e.l.stats.BadFrames.Add(1)
	return nil, nil
}

// receive queues one message from the peer that mesh knows as src. It does not block.
func (l *Link) receive(src mesh.PeerName, m message) {
	if meshName(m.from) != src || m.from == l.self {
		l.stats.BadFrames.Add(1)
		return
	}
	l.names.met(src, m.from)
	if m.channel == own {
		l.hearOwn(src, m)
		return
	}
	l.deliver(m)
}

// deliver queues a message for its handler and reports whether there was room.
func (l *Link) deliver(m message) bool {
	box := l.inboxes[m.channel]
	if box == nil {
		l.stats.UnknownChannel.Add(1)
		return true
	}
	if !box.waiting.put(m, len(m.body)) {
		l.stats.Overrun.Add(1)
		return false
	}
	return true
}
