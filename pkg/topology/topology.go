// Package topology draws the cluster: its hosts, the gossip links between them by their
// states, and its networks. All of it is a function of a ctl.Topology, with the same
// outcome each time: a picture in a document changes only when the cluster does.
package topology

import (
	"cmp"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Told is what one host says of one link of its own.
type Told struct {
	Peer  string
	State string // as ctl.Peer has it
}

// states in the order of their worth: what is told of a link by both of its ends is
// shown as the better of the two.
var states = []string{"connected", "relayed", "refused", "dialling"}

func rank(state string) int {
	if i := slices.Index(states, state); i >= 0 {
		return i
	}
	return len(states)
}

// Merge makes one link of what its two ends tell. What a host has told whose router is
// not up any more is old, and left out.
func Merge(up map[string]bool, told map[string][]Told) []ctl.TopologyLink {
	best := map[[2]string]string{}
	for host, links := range told {
		for _, l := range links {
			if !up[host] || l.Peer == host {
				continue
			}
			ends := [2]string{min(host, l.Peer), max(host, l.Peer)}
			if had, ok := best[ends]; !ok || rank(l.State) < rank(had) {
				best[ends] = l.State
			}
		}
	}
	var out []ctl.TopologyLink
	for ends, state := range best {
		out = append(out, ctl.TopologyLink{A: ends[0], B: ends[1], State: state})
	}
	slices.SortFunc(out, func(x, y ctl.TopologyLink) int {
		return cmp.Or(strings.Compare(x.A, y.A), strings.Compare(x.B, y.B))
	})
	return out
}

// Endpoints counts a host's endpoints, and the networks that they are on.
func Endpoints(t ctl.Topology, host string) (endpoints, networks int) {
	for _, n := range t.Networks {
		for _, h := range n.Hosts {
			if h.Host == host && h.Endpoints > 0 {
				endpoints += h.Endpoints
				networks++
			}
		}
	}
	return endpoints, networks
}

// Caption is a network in one line: its subnets, and who has how many endpoints.
func Caption(n ctl.TopologyNetwork) string {
	parts := []string{n.Name}
	for _, s := range n.Subnets {
		parts = append(parts, s.String())
	}
	line := strings.Join(parts, "  ")
	if len(n.Hosts) == 0 {
		return line + "  –  no endpoints"
	}
	var on []string
	for _, h := range n.Hosts {
		on = append(on, h.Host+" "+plural(h.Endpoints, "endpoint"))
	}
	return line + "  –  " + strings.Join(on, ", ")
}
