package router

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// contested are, of the addresses of a claim, those that are not this host's alone: the
// ledger gave the block to another host, or another host says that it has the address.
// One of the pool is asked for at once, and no news. elsewhere is for the claim's network.
func contested(c ipam.Claim, self ledger.MemberID, state *ledger.State, elsewhere map[netip.Addr]gossip.Peer) (out []ctl.Contested) {
	for _, p := range c.Addrs {
		at := ctl.Contested{Address: p.Addr(), UsedBy: string(elsewhere[p.Addr()])}
		if id, owned := state.Owner(c.Network, p.Addr()); owned && id != self {
			m, _ := state.Member(id)
			at.Owner = m.Name
		}
		if at.Owner != "" || at.UsedBy != "" {
			out = append(out, at)
		}
	}
	return out
}

// contestedOf is that of each claim, by its hash.
func (r *Router) contestedOf(claims []ipam.Claim) map[string][]ctl.Contested {
	mine := map[string]map[netip.Addr]bool{} // by network
	for _, c := range claims {
		for _, p := range c.Addrs {
			if mine[c.Network] == nil {
				mine[c.Network] = map[netip.Addr]bool{}
			}
			mine[c.Network][p.Addr()] = true
		}
	}
	elsewhere := map[string]map[netip.Addr]gossip.Peer{}
	for network, addrs := range mine {
		elsewhere[network] = r.view.HoldersOf(network, addrs)
	}
	out := map[string][]ctl.Contested{}
	state := r.replica.State()
	for _, c := range claims {
		if at := contested(c, ledger.MemberID(r.id.MemberID()), state, elsewhere[c.Network]); len(at) > 0 {
			out[c.Hash] = at
		}
	}
	return out
}

// sayContested logs each address that has come to be in another host's block, once. A
// former life of this host gives it to nobody.
func (r *Router) sayContested(state *ledger.State) {
	now := map[string]bool{}
	for _, c := range r.ipam.Claims() {
		for _, at := range contested(c, ledger.MemberID(r.id.MemberID()), state, nil) {
			id := c.Hash + " " + at.Address.String()
			if at.Owner == string(r.id.Name()) {
				continue
			}
			if now[id] = true; !r.said[id] {
				r.log.Warn("an address here is in another host's block, which may give it to another container",
					"container", c.Key.ContainerID, "attachment", c.Hash, "address", at.Address, "owner", at.Owner)
			}
		}
	}
	r.said = now
}

// contestedProblems are a line for the addresses here that are another host's, and one
// for those of this host that another uses. What is in a block of a former life of this
// host is nobody else's.
func contestedProblems(s ctl.Status) (out []string) {
	var theirs, shared []string
	all := func(what string, list []ctl.Contested) {
		for _, at := range list {
			switch {
			case at.Owner != "" && at.Owner != s.Name:
				theirs = append(theirs, fmt.Sprintf("%s%s of %s", at.Address, what, at.Owner))
			case at.UsedBy != "":
				shared = append(shared, fmt.Sprintf("%s%s on %s", at.Address, what, at.UsedBy))
			}
		}
	}
	for _, a := range s.Attachments {
		all("", a.Contested)
	}
	for _, n := range s.Networks {
		all(" (bridge)", n.Contested)
	}
	if n := len(theirs); n > 0 {
		out = append(out, fmt.Sprintf("%s in other hosts' blocks, where others may have the same: %s; DEL and ADD give a container another; see `weave ps`",
			amount(n, "address here is", "addresses here are"), strings.Join(firstOf(theirs), ", ")))
	}
	if n := len(shared); n > 0 {
		out = append(out, fmt.Sprintf("%s in use elsewhere too: %s; see `weave ps` there", amount(n, "address of this host is", "addresses of this host are"), strings.Join(firstOf(shared), ", ")))
	}
	return out
}

// unused finds the first of some addresses that no host says it has.
func (r *Router) unused(network string, of []netip.Addr) (netip.Addr, bool) {
	ask := make(map[netip.Addr]bool, len(of))
	for _, a := range of {
		ask[a] = true
	}
	held := r.view.HoldersOf(network, ask)
	i := slices.IndexFunc(of, func(a netip.Addr) bool { _, has := held[a]; return !has })
	if i < 0 {
		return netip.Addr{}, false
	}
	return of[i], true
}
