package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// errReset ends a life that the operator ended.
var errReset = errors.New("this host has left its cluster")

// someNames is how many containers a refusal lists.
const someNames = 3

// turnWithin bounds the wait for another reset: one that was broken off ends by itself.
const turnWithin = 3 * time.Second

// apiReset leaves the cluster: what this host owns goes back to the pool. From the
// first step on nothing is allocated here, its bridges have no address, and then that
// it gives all back is on disk. Only then the ledger is told, so nothing of it is used
// twice whatever breaks. One that fails is taken back, and settle makes the bridges anew.
func (r *Router) apiReset(ctx context.Context, in ctl.ResetRequest) (nothing, error) {
	if !r.takeTurn(ctx) {
		return nothing{}, &ctl.Error{Code: ctl.CodeTryAgain, Msg: "another `weave reset` is under way on this host",
			Details: fmt.Sprintf("its answer comes within %v; `weave status` shows what came of it", leaveWithin)}
	}
	if err := r.reset(ctx, in.Abandon); err != nil {
		r.resetting.Store(false)
		poke(r.kick)
		<-r.resetTurn
		return nothing{}, err
	}
	r.stopping.Store(in.Stop)
	poke(r.resets) // the turn is not given back: this life ends
	return nothing{}, nil
}

// takeTurn reports whether no other reset is under way.
func (r *Router) takeTurn(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, turnWithin)
	defer cancel()
	select {
	case r.resetTurn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Router) reset(ctx context.Context, abandon bool) error {
	held, err := r.ipam.Leave(r.bare)
	if err != nil {
		return &ctl.Error{Code: ctl.CodeInternal, Msg: "this host has not left its cluster", Details: err.Error()}
	}
	if len(held) > 0 {
		return stillHere(string(r.id.Name()), held, r.ipam.Claims())
	}
	err = r.leave(ctx)
	if err == nil || abandon || r.replica.Spent() != "" {
		return nil
	}
	r.ipam.Stay()
	return &ctl.Error{Code: ctl.CodeTryAgain, Msg: "this host has not left its cluster, and serves no ADD until the cluster has taken its addresses back", Details: err.Error() +
		"; once a majority of the voters is there the host goes on by itself, with other addresses; --abandon forgets the cluster without telling it, then `weave rmpeer --destroyed " +
		string(r.id.Name()) + "` on another host frees what this one owned"}
}

// bare takes the host's own addresses off its bridges, and keeps them off as long as
// the host is leaving.
func (r *Router) bare() error {
	r.bridges.Lock()
	defer r.bridges.Unlock()
	r.resetting.Store(true)
	var errs []error
	for _, n := range r.here() {
		r.mu.Lock()
		delete(r.networks, n.ID)
		r.metrics.dropped(n.ID)
		r.mu.Unlock()
		r.seeks.forget(n.ID)
		r.withdraw(ipam.HostKey(n.Name).Hash())
		has, err := netdev.BridgeAddrs(bridgeName(n))
		if err == nil {
			err = r.dropStale(n, has, nil)
		}
		if !errors.Is(err, netdev.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	poke(r.kick)
	return errors.Join(errs...)
}

// leaveWithin bounds the leaving of a voter, which goes on voting until it is relieved.
const leaveWithin = 25 * time.Second

// leave returns once the cluster does without this host, and soon with an error when
// nobody leads it.
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
	if r.leads(ctx) {
		r.closeOwn(ctx)
	}
	res, err := r.proposeLed(ctx, ledger.Command{Leave: &ledger.Leave{ID: self}})
	switch {
	case errors.Is(err, replica.ErrGone):
		return nil // as it asked for
	case err != nil:
		return err
	}
	return res.Error()
}

// closeOwn closes the networks that this host alone has: nobody else can use them, and
// they go with what it gives back. Where that fails they stay until somebody removes them.
func (r *Router) closeOwn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, decideWithin)
	defer cancel()
	for _, n := range r.replica.State().Networks() {
		if n.Host != string(r.id.Name()) || n.Closing {
			continue
		}
		if _, err := r.replica.Propose(ctx, ledger.Command{CloseNetwork: &ledger.CloseNetwork{Name: n.Name, ID: n.ID}}); err != nil {
			r.log.Warn("a network of this host alone stays defined", "network", n.Name, "error", err)
		}
	}
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

// stillHere refuses to leave while containers are attached, which are held by their ids.
func stillHere(host string, held []string, claims []ipam.Claim) error {
	return ctl.Errorf(ctl.CodeInvalidConfig, "containers are attached to this host, %s: %s: remove them first, `weave ps` lists them; what was plugged: weave net unplug CONTAINER ENDPOINT",
		host, strings.Join(firstOf(called(held, claims)), ", "))
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
	errs := []error{r.forgetDevices()}
	for _, c := range r.ipam.Claims() {
		if c.Host() {
			errs = append(errs, removeFile(filepath.Join(r.config.RunDir, ctl.ClaimsDir, c.Hash)))
		}
	}
	errs = append(errs, removeFile(filepath.Join(r.config.RunDir, ctl.ClaimsDir, ipam.HostKey(DefaultNetwork).Hash())))
	for _, name := range []string{identityFile, ledgerFile, knownHostsFile, targetsFile} {
		errs = append(errs, removeFile(filepath.Join(r.config.StateDir, name)))
	}
	errs = append(errs, r.lists.Clear())
	return errors.Join(errs...)
}

// forgetDevices deletes the bridges and tunnels of all networks. It goes by the kernel: a
// network that was removed while this host left is in the ledger no more.
func (r *Router) forgetDevices() error {
	devices, err := networkDevices()
	all := []string{DefaultDevice, DefaultBridge}
	for _, names := range devices {
		all = append(all, names...)
	}
	return errors.Join(append(netdev.DeleteLinks(all...), err)...)
}

// removeFile is content when there is none.
func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
