package router

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/conflist"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netlists"
)

// listed are the networks of which runtimes of a host are to have a list: of those that it
// has, the ones that stay, but the default one, whose list is the operator's.
func listed(here []ledger.Network, stands func(ledger.Network) bool) []netlists.Network {
	var out []netlists.Network
	for _, n := range here {
		if n.Name != DefaultNetwork && !n.Closing {
			out = append(out, netlists.Network{Network: listOf(n), Ready: stands(n)})
		}
	}
	return out
}

// listOf is what the network's list has otherwise than the default one's.
func listOf(n ledger.Network) conflist.Network {
	out := conflist.Network{Name: n.Name, ID: n.ID, Subnets: slices.Clone(n.Subnets), Internal: n.Internal}
	if !overlaid(n) {
		out.Bridge = bridgeName(n)
	}
	return out
}

// awaitList waits until the list of a network that stands here is written, or it is known
// why it is not.
func (r *Router) awaitList(ctx context.Context, n *ctl.Net) {
	if n.State != netReady {
		return
	}
	r.lists.Await(ctx, n.ID)
	if n.Conflist = r.lists.File(n.Name); n.Conflist == "" {
		n.Waiting = cmp.Or(n.Waiting, strings.Join(r.lists.Problems(), "; "))
	}
}
