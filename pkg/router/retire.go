package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// decideWithin bounds one proposal that an operator waits for.
const decideWithin = 6 * time.Second

// apiRetire returns to the pool what a destroyed host owned, and what its earlier
// lives did. That it is destroyed is the operator's word: nothing proves it.
func (r *Router) apiRetire(ctx context.Context, in ctl.RetireRequest) (out ctl.Retired, err error) {
	ids := lives(r.replica.State(), in.Name, ledger.MemberID(r.id.MemberID()))
	switch {
	case len(ids) == 0:
		return out, ctl.Errorf(ctl.CodeInvalidConfig, "no other host of the cluster is called %q: `weave status ipam` lists them", in.Name)
	case slices.Contains(r.link.Peers(), gossip.Peer(in.Name)):
		return out, ctl.Errorf(ctl.CodeInvalidConfig, "host %s is alive, gossip reaches it now: to take it out of the cluster run `weave reset` there", in.Name)
	}
	for _, id := range ids {
		res, err := r.decide(ctx, ledger.Command{Retire: &ledger.Retire{ID: id}})
		if errors.Is(err, replica.ErrNotReady) && in.MajorityLost && !out.Forced {
			if err := r.force(ctx); err != nil {
				return out, err
			}
			out.Forced = true
			res, err = r.decide(ctx, ledger.Command{Retire: &ledger.Retire{ID: id}})
		}
		if err == nil {
			err = res.Error()
		}
		if err != nil {
			return out, undecided(err, in)
		}
		out.Members++
	}
	out.Index = r.replica.State().Index()
	r.log.Warn("a host was retired on the operator's word", "host", in.Name, "lives", out.Members, "majority given up", out.Forced)
	return out, nil
}

// lives are the members of a name that have or may have blocks, but for self.
func lives(s *ledger.State, name string, self ledger.MemberID) (ids []ledger.MemberID) {
	for _, m := range s.Members() {
		if m.Name == name && !m.Left && m.ID != self {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (r *Router) decide(ctx context.Context, c ledger.Command) (ledger.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, decideWithin)
	defer cancel()
	return r.replica.Propose(ctx, c)
}

// force makes this host's copy of the ledger the cluster's.
func (r *Router) force(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*decideWithin)
	defer cancel()
	if err := r.replica.Force(ctx); err != nil {
		return &ctl.Error{Code: ctl.CodeTryAgain, Msg: "the majority was not given up", Details: err.Error()}
	}
	return nil
}

func undecided(err error, in ctl.RetireRequest) error {
	if !errors.Is(err, replica.ErrNotReady) {
		return ctl.Errorf(ctl.CodeInternal, "retire host %s: %v", in.Name, err)
	}
	e := &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("host %s was not retired", in.Name), Details: err.Error()}
	if !in.MajorityLost {
		e.Details += "; if the voters that cannot be reached are destroyed for good, --majority-lost goes on with this host's copy of the ledger"
	}
	return e
}
