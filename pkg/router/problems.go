package router

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
)

// problems are what is wrong although ADD may work, a sentence each. The pages of
// `weave status` have the details.
func problems(s ctl.Status, now time.Time) []string {
	var out []string
	var theirs, ours, away, named []ctl.Peer
	hosts := map[string]bool{} // that we know of ourselves, not by their calls
	for _, p := range s.Peers {
		switch {
		case p.State == string(meshlink.Refused) && !meshlink.Fresh(p.Count, p.Last, now):
			continue // it has stopped
		case p.State == string(meshlink.Refused) && p.Name != "" && p.Name == s.Name:
			named = append(named, p)
			continue
		case p.State == string(meshlink.Refused) && p.RefusesUs:
			theirs = append(theirs, p)
		case p.State == string(meshlink.Refused):
			ours = append(ours, p)
		case p.Former:
			continue // nobody is missed; its line says what to do
		case p.State == string(meshlink.Dialling):
			away = append(away, p)
		}
		if p.Count == 0 {
			hosts[nameOf(p)] = true
		}
	}
	const see = "; see `weave status peers`"
	for _, p := range named {
		out = append(out, namesake(p))
	}
	if n := len(theirs); n > 0 {
		out = append(out, fmt.Sprintf("%s us: %s%s", amount(n, "peer refuses", "peers refuse"), list(theirs), see))
	}
	if n := len(ours); n > 0 {
		out = append(out, fmt.Sprintf("%s: %s%s", amount(n, "host is refused here", "hosts are refused here"), list(ours), see))
	}
	if n := len(away); n > 0 {
		out = append(out, fmt.Sprintf("%d of %s unreachable: %s", n, amount(len(hosts), "peer", "peers"), list(away)))
	}
	return append(out, dataProblems(s)...)
}

// namesake is said of another router of this host's name, with the reason and what to do.
func namesake(p ctl.Peer) string {
	return fmt.Sprintf("another router, at %s, has this host's name: %s", cmp.Or(p.Address, "an address that is not known"), p.Detail)
}

// dataProblems are those of the overlay and of what is known of the containers here.
func dataProblems(s ctl.Status) (out []string) {
	for _, u := range s.IPAM.Subnets {
		if u.Full {
			out = append(out, fmt.Sprintf("network %q is full: no address of %s is free for this host, so ADD fails with code %d until one is; see `weave status ipam`",
				u.Network, u.Subnet, ctl.CodeNetworkFull))
		}
	}
	out = append(out, contestedProblems(s)...)
	cut := map[string]bool{}
	for _, o := range s.Overlay {
		if o.Path != pathVXLAN {
			cut[o.Host] = true
		}
	}
	if n := len(cut); n > 0 {
		out = append(out, fmt.Sprintf("no packet reaches %s; see `weave status overlay`", amount(n, "host", "hosts")))
	}
	if n := len(s.DNS.Errors); n > 0 {
		out = append(out, fmt.Sprintf("names are not served at %s here; see `weave doctor`, and `weave status dns`", amount(n, "address", "addresses")))
	}
	nameless := 0
	for _, a := range s.Attachments {
		if a.NamesLost {
			nameless++
		}
	}
	if nameless > 0 {
		out = append(out, fmt.Sprintf("%s may have lost names, known from the kernel only: "+
			"another host's router that remembers them, or DEL and ADD, gives them back; see `weave ps`",
			amount(nameless, "attachment", "attachments")))
	}
	return out
}

// silent are lines for members of the cluster that no line is about. Where an
// address is dialled and nobody has answered, it may be theirs.
func silent(lines []ctl.Peer, absent []string) []ctl.Peer {
	if slices.ContainsFunc(lines, func(p ctl.Peer) bool { return p.Name == "" && p.State == string(meshlink.Dialling) }) {
		return nil
	}
	var out []ctl.Peer
	for _, m := range absent {
		if !slices.ContainsFunc(lines, func(p ctl.Peer) bool { return p.Name == m }) {
			out = append(out, ctl.Peer{Name: m, State: string(meshlink.Dialling), Detail: "a member of the cluster; no router that is reached knows where it is"})
		}
	}
	return out
}

// nameOf is the best that is known of a peer.
func nameOf(p ctl.Peer) string { return cmp.Or(p.Name, p.Address, "?") }

// list names the first few of some peers.
func list(peers []ctl.Peer) string {
	const most = 3
	var names []string
	for _, p := range peers {
		if name := nameOf(p); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return strings.Join(names, ", ")
}

func amount(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", more)
}
