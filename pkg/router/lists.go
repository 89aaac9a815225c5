package router

import (
	"slices"

	"github.com/weave-cni/weave-cni/pkg/conflist"
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
