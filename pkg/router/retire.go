package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// decideWithin bounds one proposal that an operator waits for, retireWithin all of
// them: a caller waits longer than that, and a call may take longer.
const (
	decideWithin = 6 * time.Second
	retireWithin = 25 * time.Second
)

// apiRetire returns to the pool what a destroyed host owned, and what its earlier
// lives did. That it is destroyed is the operator's word: nothing proves it. Of a host
// that is seen to live only the former lives are meant.
func (r *Router) apiRetire(ctx context.Context, in ctl.RetireRequest) (ctl.Retired, error) {
	ids, alive, err := r.destroyed(in.Name)
	if err != nil {
		return ctl.Retired{}, err
	}
	propose := r.proposeLed
	if in.MajorityLost {
		propose = r.replica.Propose // whom nobody leads at first is led by this host then
	}
	retire := func(ctx context.Context, id ledger.MemberID) error { return retireBy(ctx, id, propose) }
	out, err := retireAll(ctx, ids, in, retire, r.force)
	out.Former = alive
	if err == nil || out.Members > 0 || out.Forced {
		r.log.Warn("a host was retired on the operator's word", "host", in.Name, "lives", out.Members, "of", len(ids), "it lives now", alive, "majority given up", out.Forced)
	}
	if err != nil {
		return out, undecided(err, in, out, len(ids))
	}
	out.Index = r.replica.State().Index()
	return out, nil
}

// destroyed lists the lives of a host that may be retired: all but those that are seen to live.
func (r *Router) destroyed(name string) (ids []ledger.MemberID, alive bool, err error) {
	state, here := r.replica.State(), name == string(r.id.Name())
	alive = here || slices.Contains(r.link.Peers(), gossip.Peer(name))
	living := []ledger.MemberID{ledger.MemberID(r.id.MemberID())}
	if alive {
		// The one that the ledger knows may have just been lost, and its successor not have joined yet.
		known, _ := state.MemberByName(name)
		living = append(living, known.ID, ledger.MemberID(r.view.Hosts()[gossip.Peer(name)].MemberID))
	}
	ids = lives(state, name, living)
	switch {
	case len(ids) == 0 && alive && !here:
		return nil, alive, ctl.Errorf(ctl.CodeInvalidConfig, "host %s is alive, gossip reaches it now: to take it out of the cluster run `weave reset` there", name)
	case len(ids) == 0 && here:
		return nil, alive, ctl.Errorf(ctl.CodeInvalidConfig, "this host is %s itself, and no former life of it owns anything: to take it out of the cluster run `weave reset`", name)
	case len(ids) == 0:
		return nil, alive, ctl.Errorf(ctl.CodeInvalidConfig, "no other host of the cluster is called %q: `weave status ipam` lists them", name)
	case alive:
		err = stillUsing(name, formerly(state, ids, r.containers(name, here)))
	}
	return ids, alive, err
}

// container is one of a host's, with its addresses.
type container struct {
	name, network string
	addrs         []netip.Addr
}

// containers are those of a host as far as this one knows: all of its own, of another
// those that have a name or are on the bridge.
func (r *Router) containers(host string, here bool) (out []container) {
	if here {
		for _, c := range r.ipam.Claims() {
			if !c.Host() {
				out = append(out, container{cmp.Or(c.Key.ContainerID, c.Veth()), c.Network, hosts(c.Addrs)})
			}
		}
		return out
	}
	for _, e := range r.view.Endpoints(gossip.Peer(host)) {
		if !e.Bridge {
			out = append(out, container{cmp.Or(slices.Concat(e.Names, []string{e.MAC.String()})...), e.Network, e.Addrs})
		}
	}
	return out
}

// formerly are the addresses of containers in blocks of these members, each with its container.
func formerly(state *ledger.State, ids []ledger.MemberID, all []container) (using []string) {
	for _, c := range all {
		for _, a := range c.addrs {
			if owner, ok := state.Owner(c.network, a); ok && slices.Contains(ids, owner) {
				using = append(using, fmt.Sprintf("%s of %s", a, c.name))
			}
		}
	}
	slices.Sort(using)
	return using
}

// stillUsing refuses to give away what the containers of a former life still have.
func stillUsing(name string, using []string) error {
	if len(using) == 0 {
		return nil
	}
	return ctl.Errorf(ctl.CodeInvalidConfig, "%s of host %s's former life still in use there (%s): "+
		"end these containers first, `weave ps` on %s lists them", amount(len(using), "address is", "addresses are"), name, strings.Join(firstOf(using), ", "), name)
}

// firstOf are the first few of a list, and how many more there are.
func firstOf(list []string) []string {
	if len(list) <= someNames {
		return list
	}
	return append(list[:someNames:someNames], fmt.Sprintf("and %d more", len(list)-someNames))
}

// lives are the members of a name that have or may have blocks, but for the living.
func lives(s *ledger.State, name string, living []ledger.MemberID) (ids []ledger.MemberID) {
	for _, m := range s.Members() {
		if m.Name == name && !m.Left && !slices.Contains(living, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// retireAll retires one life after the other, and gives the majority up for the first
// if it must and may. out is what was done, also when it ends with an error.
func retireAll(ctx context.Context, ids []ledger.MemberID, in ctl.RetireRequest,
	retire func(context.Context, ledger.MemberID) error, force func(context.Context) error,
) (out ctl.Retired, err error) {
	ctx, cancel := context.WithTimeout(ctx, retireWithin)
	defer cancel()
	for _, id := range ids {
		err := retire(ctx, id)
		if errors.Is(err, replica.ErrNotReady) && in.MajorityLost && !out.Forced {
			if err = force(ctx); err == nil {
				out.Forced = true
				err = retire(ctx, id)
			}
		}
		if err != nil {
			return out, err
		}
		out.Members++
	}
	return out, nil
}

// retireBy has the cluster decide on one life.
func retireBy(ctx context.Context, id ledger.MemberID, propose func(context.Context, ledger.Command) (ledger.Result, error)) error {
	ctx, cancel := context.WithTimeout(ctx, decideWithin)
	defer cancel()
	res, err := propose(ctx, ledger.Command{Retire: &ledger.Retire{ID: id}})
	if err != nil {
		return err
	}
	return res.Error()
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

// undecided says why not all lives were retired, and what was done before.
func undecided(err error, in ctl.RetireRequest, out ctl.Retired, all int) error {
	var e *ctl.Error
	switch {
	case errors.As(err, &e): // force's
		return e
	case errors.Is(err, replica.ErrNotReady):
		e = &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("host %s was not retired", in.Name), Details: err.Error()}
	default:
		e = ctl.Errorf(ctl.CodeInternal, "retire host %s: %v", in.Name, err)
	}
	switch {
	case out.Members > 0:
		e.Msg = fmt.Sprintf("of the %d lives of host %s that are left in the ledger %d were retired, the others not yet: run it again", all, in.Name, out.Members)
		e.Details = err.Error()
	case e.Code == ctl.CodeTryAgain && !in.MajorityLost:
		e.Details += "; if the voters that cannot be reached are destroyed for good, --majority-lost goes on with this host's copy of the ledger"
	}
	if out.Forced {
		e.Details += "; the majority was given up before: this host's copy of the ledger is the cluster's now"
	}
	return e
}
