package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// How long a change of the registry is waited for.
const (
	changeWithin = 8 * time.Second        // with a majority: a disk may be slow
	leaderWithin = time.Second            // for a leader to be heard, and for one that is heard no more
	leaderLook   = 100 * time.Millisecond // how often that is looked at
)

// errNoLeader ends a proposal that nobody answers any more.
var errNoLeader = errors.New("no leader is heard")

// change has the registry changed, and answers with how the ledger took it. Where no
// majority is reachable it is refused at once, with the reason: CodeNoMajority.
func (r *Router) change(ctx context.Context, c ledger.Command) (ledger.Result, error) {
	ctx, end := context.WithTimeout(ctx, changeWithin)
	defer end()
	if why := r.led(ctx); why != "" {
		return ledger.Result{}, r.noMajority(why, "nothing was changed")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { r.watchLeader(ctx, cancel) })
	res, err := r.replica.Propose(ctx, c)
	cancel(nil)
	watcher.Wait()
	switch {
	case errors.Is(err, replica.ErrGone), errors.Is(err, replica.ErrStopped):
		return res, &ctl.Error{Code: ctl.CodeTryAgain, Msg: "this host's router is starting again", Details: err.Error()}
	case err != nil:
		return res, r.noMajority(err.Error(), "whether this will still be done is not known, `weave net list` shows it")
	}
	return res, nil
}

// led waits for a leader that can decide, and says why there is none; "" when there is one.
func (r *Router) led(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, leaderWithin)
	defer cancel()
	for {
		changed, s := r.replica.Changed(), r.replica.Status()
		if s.Waiting == "" && s.Leader != "" {
			return ""
		}
		select {
		case <-changed:
		case <-time.After(leaderLook):
		case <-ctx.Done():
			return orWaiting(r.waiting())
		}
	}
}

func orWaiting(why string) string {
	if why == "" {
		return "no leader of the ledger is heard"
	}
	return why
}

// watchLeader ends a proposal once no leader has been heard for leaderWithin.
func (r *Router) watchLeader(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(leaderLook)
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if s := r.replica.Status(); s.Waiting == "" && s.Leader != "" {
				heard = now
			} else if now.Sub(heard) > leaderWithin {
				end(errNoLeader)
				return
			}
		}
	}
}

// noMajority says first what has become of the change, then who lacks and where that was.
func (r *Router) noMajority(why, become string) error {
	where := map[string]netip.Addr{}
	for name, h := range r.view.Hosts() {
		where[string(name)] = h.VTEP
	}
	return noMajority(why, become, r.absentMembers(), where)
}

func noMajority(why, become string, absent []string, where map[string]netip.Addr) error {
	why, _, _ = strings.Cut(why, "; the network goes on")
	parts := []string{why}
	var at []string
	for _, name := range absent {
		if a := where[name]; a.IsValid() {
			at = append(at, fmt.Sprintf("%s was at %s", name, a))
		}
	}
	if len(at) > 0 {
		parts = append(parts, strings.Join(firstOf(at), ", "))
	}
	return &ctl.Error{Code: ctl.CodeNoMajority, Msg: become + ": a change of the networks needs a majority of the voters, and none answers here",
		Details: strings.Join(append(parts, "everything that exists goes on"), "; ")}
}

// refusal says what the ledger said; nil when it did what was asked.
func refusal(res ledger.Result) error {
	switch res.Code {
	case ledger.OK:
		return nil
	case ledger.CodeOccupied:
		return ctl.Errorf(ctl.CodeInUse, "%s", res.Err)
	case ledger.CodeWrong:
		return ctl.Errorf(ctl.CodeWrongHost, "%s", res.Err)
	case ledger.CodeGone, ledger.CodeStale:
		return ctl.Errorf(ctl.CodeTryAgain, "%s", res.Err)
	case ledger.CodeEmpty:
		return ctl.Errorf(ctl.CodeNetworkFull, "%s", res.Err)
	}
	return ctl.Errorf(ctl.CodeInvalidConfig, "%s", res.Err)
}
