package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// errReset ends a life that the operator ended.
var errReset = errors.New("this host has left its cluster")

// someNames is how many containers a refusal lists.
const someNames = 3

// apiReset leaves the cluster: what this host owns goes back to the pool. From the
// first step on nothing is allocated here, and that is on disk, so nothing of it is
// used twice whatever breaks.
func (r *Router) apiReset(ctx context.Context, in ctl.ResetRequest) (nothing, error) {
	held, err := r.ipam.Leave()
	if err != nil {
		return nothing{}, ctl.Errorf(ctl.CodeInternal, "%v", err)
	}
	if len(held) > 0 {
		return nothing{}, stillHere(held)
	}
	r.resetting.Store(true)
	if err := r.leave(ctx); err != nil && !in.Abandon {
		r.resetting.Store(false)
		r.ipam.Stay()
		return nothing{}, &ctl.Error{Code: ctl.CodeTryAgain, Msg: "this host has not left its cluster", Details: err.Error() +
			"; --abandon forgets the cluster without telling it, then `weave rmpeer --destroyed " + string(r.id.Name()) + "` on another host frees what this one owned"}
	}
	select {
	case r.resets <- struct{}{}:
	default:
	}
	return nothing{}, nil
}

// leaveWithin bounds the leaving of a voter, which goes on voting until it is relieved.
const leaveWithin = 25 * time.Second

// leave returns once the cluster does without this host.
func (r *Router) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	self := ledger.MemberID(r.id.MemberID())
	m, ok := r.replica.State().Member(self)
	switch {
	case !ok:
		return nil // it never joined
	case !m.Live():
		return r.relieved(ctx)
	}
	res, err := r.replica.Propose(ctx, ledger.Command{Leave: &ledger.Leave{ID: self}})
	switch {
	case errors.Is(err, replica.ErrGone):
		return nil // as it asked for
	case err != nil:
		return err
	}
	return res.Error()
}

// relieved waits until a host that has left is needed no more.
func (r *Router) relieved(ctx context.Context) error {
	for {
		changed := r.replica.Changed()
		if r.replica.Spent() != "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("it has left, and waits for the others to do without its vote: %w", ctx.Err())
		}
	}
}

func stillHere(held []string) error {
	list := held
	if len(list) > someNames {
		list = append(list[:someNames:someNames], fmt.Sprintf("and %d more", len(held)-someNames))
	}
	return ctl.Errorf(ctl.CodeInvalidConfig, "containers are attached here (%v): remove them first, `weave ps` lists them", list)
}

// watchReset ends the life once the caller has been answered.
func (r *Router) watchReset(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.resets:
		return errReset
	}
}

// forget removes what the host knew of its cluster, also from the kernel. No
// container is attached.
func (r *Router) forget() error {
	var errs []error
	for _, n := range r.standing() {
		errs = append(errs, netdev.DeleteLink(deviceName(n.Network)), netdev.DeleteLink(bridgeName(n.Network)))
	}
	for _, name := range []string{identityFile, ledgerFile, knownHostsFile} {
		if err := os.Remove(filepath.Join(r.config.StateDir, name)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
