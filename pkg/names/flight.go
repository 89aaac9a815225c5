package names

import (
	"context"
	"errors"
	"slices"
	"sync"
)

var errGivenUp = errors.New("who asked has gone")

// flights are the questions that are being put to upstreams. The same question to the
// same servers is asked once at a time, whoever wants to know. The zero value is ready.
type flights struct {
	mu    sync.Mutex
	calls map[string]*flight
}

// flight is one question under way. Its lock is that of flights.
type flight struct {
	done   chan struct{} // closed when answer and err are there
	answer []byte        // shared: it does not change any more
	err    error
	sent   []stamp
}

// stamp is what a message of ours to an upstream bears that no other does.
type stamp struct{ id, port uint16 }

// do has ask find the answer, or waits for the one that somebody else is looking for
// under the same key. Should that one give up because its own client is gone, the
// search is the caller's. The answer is not the caller's to change.
func (f *flights) do(ctx context.Context, key string, ask func(noted func(stamp)) ([]byte, error)) ([]byte, error) {
	for {
		c, others := f.join(key)
		if !others {
			return f.lead(ctx, key, c, ask)
		}
		select {
		case <-c.done:
			if c.err != errGivenUp || ctx.Err() != nil {
				return c.answer, c.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// join finds the search under a key that others have begun, or begins one.
func (f *flights) join(key string) (c *flight, others bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[string]*flight{}
	}
	if c = f.calls[key]; c != nil {
		return c, true
	}
	c = &flight{done: make(chan struct{}), err: errNotUsable} // which stays, should ask panic
	f.calls[key] = c
	return c, false
}

// lead ends the search that the caller has begun.
func (f *flights) lead(ctx context.Context, key string, c *flight, ask func(noted func(stamp)) ([]byte, error)) ([]byte, error) {
	defer func() {
		f.mu.Lock()
		delete(f.calls, key)
		f.mu.Unlock()
		close(c.done)
	}()
	c.answer, c.err = ask(func(s stamp) {
		f.mu.Lock()
		c.sent = append(c.sent, s)
		f.mu.Unlock()
	})
	if c.err != nil && errors.Is(ctx.Err(), context.Canceled) {
		c.err = errGivenUp
	}
	return c.answer, c.err
}

// isOurs reports whether a query is one that we have sent ourselves, and that has
// found its way back to us.
func (f *flights) isOurs(key []byte, s stamp) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls[string(key)]
	return c != nil && slices.Contains(c.sent, s)
}
