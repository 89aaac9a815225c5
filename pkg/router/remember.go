package router

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/knownhosts"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

const knownHostsFile = "known-hosts" // in the state directory

// recall has the link dial whom this host has reached in its lives before, besides
// the PEERs.
func (r *Router) recall() {
	for _, h := range r.known {
		r.link.Learn(h.Name, h.Addrs)
	}
}

// loadKnown reads the known hosts. That they cannot be read is no reason not to start.
func (r *Router) loadKnown() {
	var err error
	if r.known, err = knownhosts.Load(filepath.Join(r.config.StateDir, knownHostsFile)); err != nil {
		r.log.Warn("hosts that were reached before are forgotten; PEERs are needed", "error", err)
	}
}

// remember keeps on disk where the other hosts are reached, until ctx ends.
func (r *Router) remember(ctx context.Context) error {
	tick := time.NewTicker(rememberEvery)
	defer tick.Stop()
	path := filepath.Join(r.config.StateDir, knownHostsFile)
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.forgetLeft()
		if r.heldBack != "" && r.replica.State().Cluster() == "" {
			continue // whoever connects may wait like this host: to know it must not keep this one from founding later
		}
		next := knownhosts.Merge(r.known, r.reached(time.Now().Round(0)), r.left)
		if knownhosts.Equal(next, r.known) {
			continue
		}
		err := knownhosts.Save(path, next)
		if err == nil {
			r.known = next
		} else if !failed {
			r.log.Warn("known hosts are not kept: after a restart this router needs PEERs that are up", "error", err)
		}
		failed = err != nil
	}
}

// reached are the hosts that gossip reaches now, with what they say of where they are.
func (r *Router) reached(now time.Time) []knownhosts.Host {
	hosts := r.view.Hosts()
	var out []knownhosts.Host
	for _, p := range r.link.Peers() {
		if h, ok := hosts[p]; ok {
			out = append(out, knownhosts.Host{Name: p, Member: h.MemberID, Addrs: slices.Clone(h.Gossip), Seen: now})
		}
	}
	return out
}

// left reports that a host is no member of the cluster any more.
func (r *Router) left(h knownhosts.Host) bool { return hasLeft(r.replica.State(), h) }

// hasLeft is false for a host that the ledger does not know: it may join yet.
func hasLeft(state *ledger.State, h knownhosts.Host) bool {
	if m, ok := state.Member(ledger.MemberID(h.Member)); ok {
		return !m.Live() || m.Name != string(h.Name)
	}
	_, again := state.MemberByName(string(h.Name))
	return again
}

// forgetLeft has the link dial those no more that have left for good, and that
// nobody else has taken the name of. A record that came late may have told again
// where they were.
func (r *Router) forgetLeft() {
	for name := range gone(r.replica.State()) {
		r.link.Learn(gossip.Peer(name), nil)
	}
}

// gone are the names of former members that no member has now.
func gone(state *ledger.State) map[string]ledger.Member {
	out := map[string]ledger.Member{}
	for m := range state.AllMembers() {
		if _, again := state.MemberByName(m.Name); !m.Live() && !again {
			out[m.Name] = m
		}
	}
	return out
}
