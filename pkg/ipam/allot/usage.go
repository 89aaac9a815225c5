package allot

import (
	"math"
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Usage counts every subnet of the ledger, by host.
func (a *Core) Usage() (out []ctl.SubnetUse) {
	for _, n := range a.synced.Networks() {
		for _, p := range n.Subnets {
			out = append(out, ctl.SubnetUse{Network: n.Name, Subnet: p, Pool: a.synced.Pool(n.Name, p), Hosts: a.hostUse(n.Name, p)})
		}
	}
	return out
}

func (a *Core) hostUse(network string, p netip.Prefix) []ctl.HostUse {
	own := a.book.Use(network, p, true)
	self := ctl.HostUse{Host: a.hostName(a.config.Self), Self: true, Used: own.Used, Foreign: own.Foreign}
	hosts := []ctl.HostUse{self}
	at := map[ledger.MemberID]int{a.config.Self: 0}
	for _, o := range a.synced.Owners(network, p) {
		i, ok := at[o.Member]
		if !ok {
			i, at[o.Member] = len(hosts), len(hosts)
			hosts = append(hosts, ctl.HostUse{Host: a.hostName(o.Member)})
		}
		hosts[i].Blocks = append(hosts[i].Blocks, o.Range)
		hosts[i].Owned = plus(hosts[i].Owned, o.Range.Size())
	}
	return hosts
}

// plus adds, at most to math.MaxUint64.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// Unready says in one sentence what nothing can be given without; "" when that is not so.
func (a *Core) Unready() string {
	if l := a.unready(); l != nil {
		return l.Why
	}
	return ""
}

// RunsShort names a network in use here of which the host should have more than it
// has, and what would help; "" when there is none.
func (a *Core) RunsShort() (network, why string) {
	for _, n := range a.synced.Networks() {
		for _, is4 := range []bool{true, false} {
			if l := a.wantEarly(n, is4); l != nil && a.inUse[n.Name] {
				return n.Name, l.Why
			}
		}
	}
	return "", ""
}
