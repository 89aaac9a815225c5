package router

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/knownhosts"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

const targetsFile = "peers" // in the state directory: those named while a router ran

// targets are the PEERs as the link dials them, HOST:PORT each: those of the start, which
// come back at the next one, and those named since, which are on disk. One that is both is
// of the start.
type targets struct {
	mu    sync.Mutex
	list  []ctl.Target
	named []string // on disk
}

// loadTargets reads whom a life before was told to dial. That it cannot is no reason not to start.
func (r *Router) loadTargets() {
	named, err := knownhosts.LoadTargets(r.targetsPath())
	if err != nil {
		r.log.Warn("PEERs that `weave connect` named before are forgotten: name them again", "error", err)
	}
	for _, p := range r.config.Peers {
		if t, err := meshlink.Target(p, r.config.Port); err == nil { // else the link refuses it
			r.targets.add(ctl.Target{Peer: t, AtStart: true})
		}
	}
	for _, p := range named {
		if t, err := meshlink.Target(p, r.config.Port); err == nil && len(r.targets.named) < ctl.MaxTargets {
			r.targets.named = append(r.targets.named, t)
			r.targets.add(ctl.Target{Peer: t})
		}
	}
}

func (r *Router) targetsPath() string { return filepath.Join(r.config.StateDir, targetsFile) }

// add adds a target unless it is there.
func (t *targets) add(one ctl.Target) {
	if t.index(one.Peer) < 0 {
		t.list = append(t.list, one)
	}
}

func (t *targets) index(peer string) int {
	return slices.IndexFunc(t.list, func(x ctl.Target) bool { return x.Peer == peer })
}

// all are the targets, those of the start first.
func (t *targets) all() []ctl.Target {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.list)
}

// apiConnect has the router dial more hosts. A name is looked up once here, so that a
// wrong one is told at once, and then again and again.
func (r *Router) apiConnect(ctx context.Context, in ctl.PeersRequest) (ctl.PeersReply, error) {
	peers, err := r.completed(in.Peers)
	if err != nil {
		return ctl.PeersReply{}, err
	}
	for _, p := range peers {
		if err := r.leadsAway(ctx, p); err != nil {
			return ctl.PeersReply{}, err
		}
	}
	r.targets.mu.Lock()
	defer r.targets.mu.Unlock()
	return r.retarget(peers, r.targets.connected(peers), func(p string) error { return r.link.Connect(p) })
}

// apiForgetPeer has the router dial some hosts no more.
func (r *Router) apiForgetPeer(_ context.Context, in ctl.PeersRequest) (ctl.PeersReply, error) {
	peers, err := r.completed(in.Peers)
	if err != nil {
		return ctl.PeersReply{}, err
	}
	r.targets.mu.Lock()
	defer r.targets.mu.Unlock()
	for _, p := range peers {
		if r.targets.index(p) < 0 {
			return ctl.PeersReply{}, noTarget(p, r.targets.list)
		}
	}
	next := r.targets.forgotten(peers)
	return r.retarget(peers, next, func(p string) error {
		r.link.Forget(p)
		return nil
	})
}

// retarget puts another list in the place of this one, first on disk, and has the link
// follow in what was asked for. r.targets.mu is held.
func (r *Router) retarget(asked []string, next targetList, follow func(string) error) (out ctl.PeersReply, err error) {
	if len(next.named) > ctl.MaxTargets {
		return out, ctl.Errorf(ctl.CodeInvalidConfig, "%d PEERs named, at most %d: one is enough to find all of a cluster; `weave forget` some", len(next.named), ctl.MaxTargets)
	}
	if !slices.Equal(next.named, r.targets.named) {
		if err := knownhosts.SaveTargets(r.targetsPath(), next.named); err != nil {
			return out, &ctl.Error{Code: ctl.CodeInternal, Msg: "the PEERs stay as they were", Details: err.Error()}
		}
	}
	before := r.targets.list
	r.targets.list, r.targets.named = next.list, next.named
	for _, p := range asked {
		if err := follow(p); err != nil {
			return out, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
		}
		out.Peers = append(out.Peers, outcome(p, before, next.list))
	}
	return out, nil
}

// outcome is what has become of one target.
func outcome(peer string, before, after []ctl.Target) ctl.Target {
	is := func(t ctl.Target) bool { return t.Peer == peer }
	now := ctl.Target{Peer: peer, Forgotten: true}
	i, j := slices.IndexFunc(before, is), slices.IndexFunc(after, is)
	if j >= 0 {
		now = after[j]
	}
	now.Unchanged = i >= 0 && j >= 0 && before[i] == after[j]
	return now
}

// targetList is what targets change to.
type targetList struct {
	list  []ctl.Target
	named []string
}

// connected is the list with some more; t.mu is held.
func (t *targets) connected(peers []string) targetList {
	next := targetList{slices.Clone(t.list), slices.Clone(t.named)}
	for _, p := range peers {
		i := slices.IndexFunc(next.list, func(x ctl.Target) bool { return x.Peer == p })
		switch {
		case i < 0:
			next.list = append(next.list, ctl.Target{Peer: p})
			next.named = append(next.named, p)
		default:
			next.list[i].Forgotten = false
		}
	}
	return next
}

// forgotten is the list without some; those of the start stay in it, to be seen. t.mu is held.
func (t *targets) forgotten(peers []string) targetList {
	next := targetList{named: slices.Clone(t.named)}
	for _, x := range t.list {
		switch {
		case !slices.Contains(peers, x.Peer):
			next.list = append(next.list, x)
		case x.AtStart:
			x.Forgotten = true
			next.list = append(next.list, x)
		}
	}
	next.named = slices.DeleteFunc(next.named, func(p string) bool { return slices.Contains(peers, p) })
	return next
}

// completed checks what a request names, without repeats.
func (r *Router) completed(asked []string) (out []string, err error) {
	if len(asked) == 0 {
		return nil, ctl.Errorf(ctl.CodeInvalidConfig, "no PEER named: want HOST or HOST:PORT")
	}
	for _, a := range asked {
		t, err := meshlink.Target(a, r.config.Port)
		if err != nil || strings.Contains(a, ",") {
			return nil, ctl.Errorf(ctl.CodeInvalidConfig, "PEER %.100q: want HOST or HOST:PORT, several with blanks between them", a)
		}
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out, nil
}

// leadsAway refuses a target that leads nowhere, or to this very router.
func (r *Router) leadsAway(ctx context.Context, target string) error {
	addrs, err := peerAddrs(ctx, target)
	if err != nil {
		return &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("PEER %s is not dialled", target),
			Details: fmt.Sprintf("%v; give its address, or mend the name and run it again", err)}
	}
	_, port, err := net.SplitHostPort(target)
	if err != nil {
		return ctl.Errorf(ctl.CodeInvalidConfig, "PEER %q: %v", target, err)
	}
	if port == strconv.Itoa(int(r.config.Port)) && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !isOwn(a) }) {
		return ctl.Errorf(ctl.CodeInvalidConfig, "PEER %s is this host itself (%s): name another host", target, addrs[0])
	}
	return nil
}

// isOwn reports whether an address is one of this host's. What cannot be reached is not.
func isOwn(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	own, err := netdev.LocalAddrFor(a)
	return err == nil && own == a
}

// noTarget says what there is to forget.
func noTarget(peer string, list []ctl.Target) error {
	var have []string
	for _, t := range list {
		have = append(have, t.Peer)
	}
	what := "this router was told of none"
	if len(have) > 0 {
		what = "this router was told of " + strings.Join(have, ", ")
	}
	return &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("%s is no PEER of this router", peer), Details: what +
		"; a host that is in the cluster is dialled for that, until it leaves (`weave reset --stop` there) or is destroyed (`weave rmpeer`)"}
}
