package names

import (
	"context"
	"sync"
)

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
// under the same key. The answer is not the caller's to change.
func (f *flights) do(ctx context.Context, key string, ask func(noted func(stamp)) ([]byte, error)) ([]byte, error) {
	f.mu.Lock()
	if f.calls == nil {
		f.calls = map[string]*flight{}
	}
	if c := f.calls[key]; c != nil {
		f.mu.Unlock()
		select {
		case <-c.done:
			return c.answer, c.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c := &flight{done: make(chan struct{})}
	f.calls[key] = c
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.calls, key)
		f.mu.Unlock()
		close(c.done)
	}()
	c.err = errNotUsable // should ask panic
	c.answer, c.err = ask(func(s stamp) {
		f.mu.Lock()
		c.sent = append(c.sent, s)
		f.mu.Unlock()
	})
	return c.answer, c.err
}

// isOurs reports whether a query is one that we have sent ourselves, and that has
// found its way back to us.
func (f *flights) isOurs(key []byte, s stamp) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls[string(key)]
	if c == nil {
		return false
	}
	for _, sent := range c.sent {
		if sent == s {
			return true
		}
	}
	return false
}
