package meshlink

import (
	"context"
	"sync"
	"time"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Bounds of what waits: on the way in for one channel, on the way out for one peer.
const (
	inboxFrames  = 1024
	inboxBytes   = 8 << 20
	outboxFrames = 256
	outboxBytes  = 4 << 20
	outboxIdle   = 30 * time.Second // then its goroutine ends
	sendWithin   = 5 * time.Second  // of being queued; later it is dropped
)

// queue is a bounded list of things that have a size, for one reader.
type queue[T any] struct {
	maxItems, maxBytes int

	mu    sync.Mutex
	items []sized[T]
	bytes int
	more  chan struct{} // cap 1
}

type sized[T any] struct {
	v      T
	size   int
	queued time.Time
}

func newQueue[T any](items, bytes int) *queue[T] {
	return &queue[T]{maxItems: items, maxBytes: bytes, more: make(chan struct{}, 1)}
}

// put reports whether there was room. It never blocks.
func (q *queue[T]) put(v T, size int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) >= q.maxItems || q.bytes+size > q.maxBytes {
		return false
	}
	q.items = append(q.items, sized[T]{v, size, time.Now()})
	q.bytes += size
	select {
	case q.more <- struct{}{}:
	default:
	}
	return true
}

// takeAll empties the queue.
func (q *queue[T]) takeAll() []sized[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items, q.bytes = nil, 0
	return items
}

// post sends unicasts: each destination has its queue and its goroutine, so that
// one which does not move holds up no other.
type post struct {
	send  func(to mesh.PeerName, frame []byte) error
	stats *Stats

	mu    sync.Mutex
	ctx   context.Context // nil before run, and when it has ended
	wg    sync.WaitGroup
	boxes map[mesh.PeerName]*queue[[]byte]
}

// run lets put work until ctx ends, and waits for every goroutine.
func (p *post) run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	p.wg.Wait()
}

// put queues a frame for a peer.
func (p *post) put(to mesh.PeerName, frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil {
		return gossip.ErrUnreachable
	}
	box, ok := p.boxes[to]
	if !ok {
		ctx := p.ctx
		box = newQueue[[]byte](outboxFrames, outboxBytes)
		p.boxes[to] = box
		p.wg.Go(func() { p.deliver(ctx, to, box) })
	}
	if !box.put(frame, len(frame)) {
		p.stats.Busy.Add(1)
		return gossip.ErrBusy
	}
	return nil
}

// deliver is one destination's goroutine. It ends when there has been nothing to
// send for a while.
func (p *post) deliver(ctx context.Context, to mesh.PeerName, box *queue[[]byte]) {
	idle := time.NewTimer(outboxIdle)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-box.more:
			p.flush(ctx, to, box.takeAll())
			idle.Reset(outboxIdle)
		case <-idle.C:
			if p.retire(to, box) {
				return
			}
			idle.Reset(outboxIdle)
		}
	}
}

func (p *post) flush(ctx context.Context, to mesh.PeerName, frames []sized[[]byte]) {
	for _, f := range frames {
		if ctx.Err() != nil {
			return
		}
		if time.Since(f.queued) > sendWithin {
			p.stats.Late.Add(1)
			continue
		}
		if err := p.send(to, f.v); err != nil {
			p.stats.Undelivered.Add(1)
			continue
		}
		p.stats.UnicastsSent.Add(1)
	}
}

// retire forgets an empty queue.
func (p *post) retire(to mesh.PeerName, box *queue[[]byte]) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	box.mu.Lock()
	defer box.mu.Unlock()
	if len(box.items) > 0 {
		return false
	}
	delete(p.boxes, to)
	return true
}
