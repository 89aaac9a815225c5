package router

import (
	"context"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// unledWithin is how long what an operator ordered is tried with no leader that can
// decide: longer than an election takes.
const unledWithin = 2 * time.Second

// leads waits for a leader that can decide, up to leaderWithin.
func (r *Router) leads(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, leaderWithin)
	defer cancel()
	for !r.replica.Status().Led {
		select {
		case <-time.After(leaderLook):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// proposeLed is Propose, given up once no leader that can decide was heard for
// unledWithin. It may be carried out later all the same.
func (r *Router) proposeLed(ctx context.Context, c ledger.Command) (ledger.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		if unled(ctx, func() bool { return r.replica.Status().Led || r.relieving() }) {
			cancel(errNoLeader)
		}
	})
	res, err := r.replica.Propose(ctx, c)
	cancel(nil)
	watcher.Wait()
	return res, err
}

// relieving reports whether this host has left by the ledger: who decided that is there,
// and it waits for its relief.
func (r *Router) relieving() bool {
	m, ok := r.replica.State().Member(ledger.MemberID(r.id.MemberID()))
	return ok && !m.Live()
}

// unled returns true once led has said no for unledWithin, and false when ctx ends before.
func unled(ctx context.Context, led func() bool) bool {
	tick := time.NewTicker(leaderLook)
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case now := <-tick.C:
			if led() {
				heard = now
			} else if now.Sub(heard) >= unledWithin {
				return true
			}
		}
	}
}
