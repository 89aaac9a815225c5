// Package calllog remembers the latest calls about containers, each with its steps,
// how long they took and how it ended: what `weave trace` shows.
//
//	control ──> Begin ──> context ──> Step, Step … ──> End ──> ring ──> Find, Latest
//
// It is a ring in memory, bounded by the number of calls and by their bytes; the
// oldest make room. It does no I/O and knows the time from whoever made it.
//
// A nil *Log and a nil *Open do nothing, so that a part may say its steps whether
// anybody listens or not.
package calllog

import (
	"context"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Bounds of one call.
const (
	maxSteps = 24
	maxText  = 1024 // bytes of Detail, and of Error
)

// Log is the ring. Make it with New; its methods may be called from any goroutine.
type Log struct {
	now      func() time.Time
	maxCalls int
	maxBytes int

	mu     sync.Mutex
	since  time.Time
	calls  []ctl.TracedCall // ended, in the order in which they ended
	bytes  int              // of calls
	missed uint64
	open   map[*Open]bool
}

// New makes a log of at most so many calls and so many bytes of them.
func New(calls, bytes int, now func() time.Time) *Log {
	return &Log{now: now, maxCalls: calls, maxBytes: bytes, since: now(), open: map[*Open]bool{}}
}

// Open is a call that has not ended. End ends it; its other methods may be called from
// any goroutine until then.
type Open struct {
	log *Log

	mu    sync.Mutex // after log.mu, where both are held
	call  ctl.TracedCall
	ended bool
}

// Begin notes a call that begins now.
func (l *Log) Begin(c ctl.TracedCall) *Open {
	if l == nil {
		return nil
	}
	c.At, c.Running = l.now(), true
	o := &Open{log: l, call: c}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) < l.maxCalls {
		l.open[o] = true
	}
	return o
}

// Note writes down what was done at once, now.
func (l *Log) Note(c ctl.TracedCall) {
	if l == nil {
		return
	}
	c.At = l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(c)
}

// Step begins a step; the function that it returns ends it. Steps of one name in a row
// are one, with the number of times.
func (o *Open) Step(what string) (end func()) {
	if o == nil {
		return func() {}
	}
	start := o.log.now()
	return func() { o.step(what, start, o.log.now().Sub(start)) }
}

// Took notes a step that has ended just now.
func (o *Open) Took(what string, took time.Duration) {
	if o != nil {
		o.step(what, o.log.now().Add(-took), took)
	}
}

func (o *Open) step(what string, start time.Time, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended { // its steps are the ring's now, and do not change
		return
	}
	what = clip(what)
	steps := o.call.Steps
	if n := len(steps); n > 0 && (steps[n-1].What == what || n == maxSteps) {
		last := &steps[n-1]
		if last.What != what {
			last.What = "further steps"
		}
		last.Took, last.Times = last.Took+took, max(last.Times, 1)+1
		return
	}
	o.call.Steps = append(steps, ctl.TracedStep{After: max(start.Sub(o.call.At), 0), Took: took, What: what})
}

// Say adds to what was asked and what came of it.
func (o *Open) Say(detail string) {
	if o == nil || detail == "" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.call.Detail != "" {
		detail = o.call.Detail + ", " + detail
	}
	o.call.Detail = clip(detail)
}

// End ends the call: code 0 is success.
func (o *Open) End(code uint, err string) {
	if o == nil {
		return
	}
	l := o.log
	l.mu.Lock()
	defer l.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	o.ended = true
	delete(l.open, o)
	c := o.call
	c.Running, c.Took, c.Code, c.Error = false, l.now().Sub(c.At), code, clip(err)
	l.keep(c)
}

// keep puts an ended call into the ring. l.mu is held.
func (l *Log) keep(c ctl.TracedCall) {
	c.Detail, c.Error = clip(c.Detail), clip(c.Error)
	l.calls = append(l.calls, c)
	l.bytes += size(c)
	for len(l.calls) > l.maxCalls || l.bytes > l.maxBytes && len(l.calls) > 0 {
		l.since = l.calls[0].At
		l.bytes -= size(l.calls[0])
		l.calls[0] = ctl.TracedCall{} // for the garbage collector
		l.calls = l.calls[1:]
		l.missed++
	}
}

// size is about what a call takes in memory, in bytes.
func size(c ctl.TracedCall) int {
	const fixed, step, stringHead = 344, 48, 16
	n := fixed + len(c.Call) + len(c.Key.Network) + len(c.Key.ContainerID) + len(c.Key.IfName) + len(c.Network) + len(c.TraceID) + len(c.Detail) + len(c.Error)
	for _, name := range c.Names {
		n += len(name) + stringHead
	}
	for _, s := range c.Steps {
		n += step + len(s.What)
	}
	return n
}

func clip(text string) string {
	if len(text) > maxText {
		return text[:maxText] + "…"
	}
	return text
}

type contextKey struct{}

// With gives the context of a call, from which its parts say their steps.
func With(ctx context.Context, o *Open) context.Context {
	if o == nil {
		return ctx
	}
	return context.WithValue(ctx, contextKey{}, o)
}

// From is the call that a context belongs to; nil, which is of use, when none.
func From(ctx context.Context) *Open {
	o, _ := ctx.Value(contextKey{}).(*Open)
	return o
}
