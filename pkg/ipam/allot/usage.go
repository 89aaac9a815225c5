package allot

import (
	"math"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Usage counts every subnet of the ledger, by host.
func (a *Core) Usage() (out []ctl.SubnetUse) {
	for _, n := range a.synced.Networks() {
		for _, p := range n.Subnets {
			out = append(out, ctl.SubnetUse{
				Network: n.Name, Subnet: p, Host: n.Host, Pool: a.synced.Pool(n.Name, p), Full: a.isFull(n, p.Addr().Is4()), Hosts: a.hostUse(n.Name, p),
			})
		}
	}
	return out
}

// isFull reports whether no address of a family can be had here: none of this host's is
// free, the pool is empty, and there are no other hosts to ask or they were asked in
// vain. As long as the ledger shows that need they give what they can spare.
func (a *Core) isFull(n ledger.Network, is4 bool) bool {
	if a.unready() != nil || a.givingBack(n, is4) != "" {
		return false // that is the reason then
	}
	others, asked := false, false
	for _, p := range n.Subnets {
		if p.Addr().Is4() != is4 {
			continue
		}
		if a.book.Use(n.Name, p, false).Free() > 0 || a.poolHelps(n.Name, p) {
			return false
		}
		others = others || slices.ContainsFunc(a.synced.Owners(n.Name, p), func(o ledger.Ownership) bool { return o.Member != a.config.Self })
		asked = asked || slices.ContainsFunc(a.synced.Needs(), func(d ledger.Need) bool {
			return d.Member == a.config.Self && d.Network == n.Name && d.Subnet == p && !d.Addr.IsValid()
		})
	}
	return asked || !others
}

// poolHelps reports whether somebody may have an address of a subnet's pool: the first
// and the last of the subnet may be all that is there.
func (a *Core) poolHelps(network string, p netip.Prefix) bool {
	var ends uint64
	for _, x := range []netip.Addr{p.Masked().Addr(), addr.LastOf(p)} {
		if _, owned := a.synced.Owner(network, x); !owned && a.book.Reserved(x) {
			ends++
		}
	}
	return a.synced.Pool(network, p) > ends
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
			m, _ := a.synced.Member(o.Member)
			hosts = append(hosts, ctl.HostUse{Host: a.hostName(o.Member), Former: !m.Live()})
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
		if !a.inUse[n.Name] || n.Closing || !a.belongs(n) {
			continue
		}
		for _, is4 := range []bool{true, false} {
			if l := a.wantEarly(n, is4); l != nil {
				return n.Name, l.after(a.givingBack(n, is4)).Why
			}
		}
	}
	return "", ""
}
