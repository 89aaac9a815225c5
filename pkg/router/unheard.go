package router

import (
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
)

const onlySelf = "every PEER leads to this host itself: name another host as PEER, or start it without any and with --init new to found a cluster"

// unheard says why a host that joins has no peer, where more is known of it than that
// none can be reached; "" otherwise. Who answered and refuses, or is refused, says more
// than who does not answer, and whom we call more than who calls.
func unheard(peers []ctl.Peer, self bool, now time.Time) string {
	if self {
		return "waits to join a cluster, but " + onlySelf
	}
	caller := ""
	for _, p := range peers {
		switch {
		case p.State != string(meshlink.Refused):
		case p.Count == 0:
			return "waits to join a cluster; " + nameOf(p) + " is reached, but " + p.Detail
		case caller == "" && meshlink.Fresh(p.Count, p.Last, now):
			caller = "waits to join a cluster; " + nameOf(p) + " calls, but " + p.Detail
		}
	}
	return caller
}
