package names

import (
	"context"
	"slices"
	"sync"
)

// flights are the questions that are being put to upstreams. The same question to the
// same servers is asked once at a time, whoever wants to know. The zero value is ready.
type flights struct {
	mu    sync.Mutex
	calls map[string]*flight
}

// flight is one question under way. It is nobody's own: it has its time from when it
// began, however little who asked first has left, and ends early only when nobody waits
// for it any more. So there are never more of them than there are who wait. Its lock is
// that of flights.
type flight struct {
	stop    context.CancelFunc
	waiting int
	done    chan struct{} // closed when answer and err are there
	answer  []byte        // shared: it does not change any more
	err     error
	sent    []stamp
}

// stamp is what a message of ours to an upstream bears that no other does.
type stamp struct{ id, port uint16 }

// search finds an answer and ends soon after ctx does. It tells noted of what it sends,
// and does not panic.
type search func(ctx context.Context, noted func(stamp)) ([]byte, error)

// do has ask find the answer, on a goroutine that is gone before the last who waits for
// it is, or waits for the one that is being looked for under the same key. The answer
// is not the caller's to change.
func (f *flights) do(ctx context.Context, key string, ask search) ([]byte, error) {
	c := f.join(ctx, key, ask)
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
		f.leave(key, c)
		return nil, ctx.Err()
	}
}

// join finds the search under a key that others have begun, or begins one.
func (f *flights) join(ctx context.Context, key string, ask search) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[key]; c != nil {
		c.waiting++
		return c
	}
	if f.calls == nil {
		f.calls = map[string]*flight{}
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &flight{stop: stop, waiting: 1, done: make(chan struct{})}
	f.calls[key] = c
	go f.run(ctx, key, c, ask)
	return c
}

func (f *flights) run(ctx context.Context, key string, c *flight, ask search) {
	defer close(c.done)
	defer c.stop()
	c.answer, c.err = ask(ctx, func(s stamp) {
		f.mu.Lock()
		c.sent = append(c.sent, s)
		f.mu.Unlock()
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(key, c)
}

// leave ends a wait before the search has ended. The last one ends that too.
func (f *flights) leave(key string, c *flight) {
	f.mu.Lock()
	c.waiting--
	last := c.waiting == 0
	if last {
		f.forget(key, c) // who asks now is not to wait for what is given up
	}
	f.mu.Unlock()
	if last {
		c.stop()
		<-c.done
	}
}

// forget has the next one who asks begin anew. f.mu is held.
func (f *flights) forget(key string, c *flight) {
	if f.calls[key] == c {
		delete(f.calls, key)
	}
}

// isOurs reports whether a query is one that we have sent ourselves, and that has
// found its way back to us.
func (f *flights) isOurs(key []byte, s stamp) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls[string(key)]
	return c != nil && slices.Contains(c.sent, s)
}
