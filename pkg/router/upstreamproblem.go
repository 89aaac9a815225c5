package router

import (
	"fmt"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

const (
	// deadQueries is how many queries in a row each upstream has to fail until it is said. One
	// name whose own servers are broken is asked for some four times, by each type twice.
	deadQueries = 20
	// deadFresh is how long it is said after the latest of them: where nobody asks, nothing is known.
	deadFresh = 5 * time.Minute
)

// upstreamProblem is what is said where all servers for names of others have stopped
// answering; "" when one has not, or was not asked so often.
func upstreamProblem(d ctl.DNS, now time.Time) string {
	least := uint64(0)
	for i, up := range d.Upstreams {
		at := slices.IndexFunc(d.Traffic.Upstreams, func(u ctl.DNSUpstream) bool { return u.Addr == up })
		if at < 0 {
			return ""
		}
		u := d.Traffic.Upstreams[at]
		if u.InARow < deadQueries || now.Sub(u.FailedAt) > deadFresh {
			return ""
		}
		if i == 0 || u.InARow < least {
			least = u.InARow
		}
	}
	if least == 0 {
		return ""
	}
	return fmt.Sprintf("containers are answered no names but ours: each upstream has failed the last %d queries or more; see `weave status dns`", least)
}
