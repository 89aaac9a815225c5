package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// view is one way to look at the router's status: for people, and as JSON.
type view struct {
	name, short string
	show        func(*app, ctl.Status)
	part        func(ctl.Status) any
}

var views = []view{
	{"peers", "Show the routers that this one knows", (*app).showPeers, func(s ctl.Status) any { return s.Peers }},
	{"ipam", "Show who owns which addresses", (*app).showIPAM, func(s ctl.Status) any { return s.IPAM }},
	{"dns", "Show the names that containers can ask for", (*app).showDNS, func(s ctl.Status) any { return s.DNS }},
	{"overlay", "Show networks and the ways to other hosts", (*app).showOverlay, func(s ctl.Status) any {
		return struct {
			Networks []ctl.NetStatus `json:"networks"`
			Overlay  []ctl.Remote    `json:"overlay"`
		}{s.Networks, s.Overlay}
	}},
}

func (a *app) status() *cobra.Command {
	summary := view{"status", "Show how the network of this host does", (*app).showSummary, func(s ctl.Status) any { return s }}
	c := a.viewCommand(summary)
	for _, v := range views {
		c.AddCommand(a.viewCommand(v))
	}
	c.AddCommand(a.topology())
	return c
}

func (a *app) viewCommand(v view) *cobra.Command {
	var asJSON bool
	var state string
	c := &cobra.Command{
		Use: v.name, Short: v.short, Args: cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			var s ctl.Status
			if err := a.ask(ctx, ctl.PathStatus, &s); err != nil {
				return err
			}
			if v.name == "status" {
				if what := a.waitingFor(ctx, &here{state: state}); what != "" {
					s.Problems = append(s.Problems, what)
				}
			}
			if asJSON {
				if err := a.printJSON(v.part(s)); err != nil {
					return err
				}
			} else {
				v.show(a, s)
			}
			if v.name == "status" && s.Error != nil {
				return exit{code: exitNotReady}
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	if v.name == "status" {
		c.Flags().StringVar(&state, "state-dir", stateDir, "the directory whose plugs has what is plugged")
		c.Flags().Lookup("state-dir").Hidden = true
	}
	return c
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// showSummary is one screen: each part in one line, and under it only what is wrong.
func (a *app) showSummary(s ctl.Status) {
	fmt.Fprintf(a.out, "%s  weave %s, up %s, %s\n", s.Name, s.Version, span(s.Uptime), a.cluster(s))
	if s.Error == nil {
		fmt.Fprintln(a.out, a.paint.in(green, "ready"))
	} else {
		fmt.Fprintln(a.out, a.paint.in(red, "not ready")+"  "+s.Error.Error())
	}
	for _, p := range s.Problems {
		fmt.Fprintln(a.out, a.paint.in(amber, "problem")+"  "+p)
	}
	fmt.Fprintln(a.out)
	rows := [][]string{{"peers", a.peersLine(s.Peers)}}
	rows = append(rows, addressRows(s)...)
	rows = append(rows, []string{"ledger", ledgerLine(s.IPAM)})
	if s.IPAM.Waiting != "" {
		rows = append(rows, []string{"", a.paint.in(amber, s.IPAM.Waiting)})
	}
	rows = append(rows,
		[]string{"overlay", overlayLine(s.Overlay)},
		[]string{"dns", dnsLine(s.DNS)},
		[]string{"here", count(len(containers(s)), "container interface")})
	table(a.out, rows)
}

func (a *app) cluster(s ctl.Status) string {
	name := "in no cluster yet"
	if s.Cluster != "" {
		name = "cluster " + short(s.Cluster)
	}
	if s.Secured {
		return name
	}
	return name + ", " + a.paint.in(amber, "no secret: anybody may join")
}

func (a *app) peersLine(peers []ctl.Peer) string {
	if len(peers) == 0 {
		return "none"
	}
	var up int
	var down []string
	for _, p := range peers {
		switch {
		case p.State == "connected" || p.State == "relayed":
			up++
		case p.Count == 0: // the others called us and were refused: a problem, no peer
			down = append(down, peerName(p)+" "+p.State)
		}
	}
	line := fmt.Sprintf("%d of %d connected", up, up+len(down))
	if len(down) > 3 {
		down = append(down[:3], "…")
	}
	if len(down) > 0 {
		line += ", " + a.paint.in(amber, strings.Join(down, ", "))
	}
	return line
}

// peerName is the best that is known of a peer: before the first handshake only its address.
func peerName(p ctl.Peer) string {
	if p.Name == "" {
		return p.Address
	}
	return p.Name
}

// mostSubnets is how many have a line each.
const mostSubnets = 4

// addressRows are a line for each subnet; of many the default network's, those that are
// short of addresses, and a sum of the others. Networks of another host alone are its own.
func addressRows(s ctl.Status) [][]string {
	all := slices.DeleteFunc(slices.Clone(s.IPAM.Subnets), func(u ctl.SubnetUse) bool { return u.Host != "" && u.Host != s.Name })
	var rows [][]string
	var others []ctl.SubnetUse
	for _, u := range all {
		if len(all) <= mostSubnets || u.Network == "weave" || isShort(u) {
			rows = append(rows, []string{"addresses", subnetLine(u)})
		} else {
			others = append(others, u)
		}
	}
	if len(others) == 0 {
		return rows
	}
	var used, owned uint64
	for _, u := range others {
		mine, _ := sharesOf(u)
		used, owned = used+mine.Used, owned+min(mine.Owned, math.MaxUint64-owned)
	}
	return append(rows, []string{"addresses", fmt.Sprintf("%s more: %s used of %s here, none is short (weave status ipam)",
		count(len(others), "subnet"), number(used), number(owned))})
}

// isShort reports whether the next containers may find no address.
func isShort(u ctl.SubnetUse) bool {
	mine, owners := sharesOf(u)
	return u.Full || owners > 0 && u.Pool == 0 && mine.Owned > 0 && mine.Owned-min(mine.Used, mine.Owned) < mine.Owned/10+1
}

// sharesOf are this host's share of a subnet, and how many hosts have one.
func sharesOf(u ctl.SubnetUse) (mine ctl.HostUse, owners int) {
	for _, h := range u.Hosts {
		if h.Self {
			mine = h
		}
		if !h.Former && h.Owned > 0 {
			owners++
		}
	}
	return mine, owners
}

func subnetLine(u ctl.SubnetUse) string {
	mine, owners := sharesOf(u)
	return fmt.Sprintf("%s %s  %s used of %s here, %s in the pool, %s", u.Network, u.Subnet, number(mine.Used), number(mine.Owned), number(u.Pool), count(owners, "host"))
}

func ledgerLine(i ctl.IPAM) string {
	if i.Leader == "" {
		return fmt.Sprintf("entry %d, no leader", i.Index)
	}
	return fmt.Sprintf("entry %d, leader %s, %s", i.Index, i.Leader, count(len(i.Voters), "voter"))
}

func overlayLine(remotes []ctl.Remote) string {
	if len(remotes) == 0 {
		return "no other host has containers"
	}
	var endpoints int
	hosts := map[string]bool{}
	for _, r := range remotes {
		if endpoints += r.Endpoints; r.Endpoints > 0 {
			hosts[r.Host] = true
		}
	}
	if endpoints == 0 {
		return overlayLine(nil)
	}
	return count(endpoints, "endpoint") + " on " + count(len(hosts), "other host")
}

func dnsLine(d ctl.DNS) string {
	if !d.Enabled {
		return "off"
	}
	return fmt.Sprintf("%s in %s", count(len(d.Names), "name"), d.Domain)
}

// peerColours is constant.
var peerColours = map[string]string{"connected": green, "relayed": green, "dialling": amber, "refused": red}

func (a *app) showPeers(s ctl.Status) {
	if line := targetsLine(s.Targets); line != "" {
		defer fmt.Fprintln(a.out, "\n"+line)
	}
	if len(s.Peers) == 0 {
		fmt.Fprintln(a.out, "no peers")
		return
	}
	rows := [][]string{{"PEER", a.paint.in(plain, "STATE"), "ADDRESS", "DETAIL"}}
	for _, p := range s.Peers {
		rows = append(rows, []string{orDash(p.Name), a.paint.in(orPlain(peerColours[p.State]), p.State), orDash(p.Address), p.Detail + a.often(p)})
	}
	table(a.out, rows)
}

// often is how often a peer was refused when it called, and when last.
func (a *app) often(p ctl.Peer) string {
	if p.Count == 0 {
		return ""
	}
	times := "once"
	if p.Count > 1 {
		times = number(p.Count) + " times"
	}
	return fmt.Sprintf(" (%s, last %s ago)", times, span(max(a.now().Sub(p.Last), 0)))
}

func (a *app) showIPAM(s ctl.Status) {
	fmt.Fprintln(a.out, ledgerLine(s.IPAM)+votersLine(s.IPAM.Voters))
	if s.IPAM.Waiting != "" {
		fmt.Fprintln(a.out, a.paint.in(amber, "waiting: "+s.IPAM.Waiting))
	}
	for _, u := range s.IPAM.Subnets {
		fmt.Fprintf(a.out, "\n%s  %s, %s in the pool\n", u.Network, u.Subnet, count(u.Pool, "address"))
		rows := [][]string{{"HOST", "OWNED", "USED", "BLOCKS"}}
		for _, h := range u.Hosts {
			host, used := h.Host, "-"
			switch {
			case h.Self:
				host, used = host+" (here)", number(h.Used)
			case h.Former:
				host += " (former life)"
			}
			if h.Foreign > 0 {
				used += fmt.Sprintf(" + %s in others' blocks", number(h.Foreign))
			}
			rows = append(rows, []string{host, number(h.Owned), used, blocks(h)})
		}
		table(a.out, rows)
	}
}

func votersLine(voters []string) string {
	if len(voters) == 0 {
		return ""
	}
	return ": " + strings.Join(voters, ", ")
}

// blocks lists a host's blocks, the first few of many.
func blocks(h ctl.HostUse) string {
	const most = 4
	var parts []string
	for i, b := range h.Blocks {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(h.Blocks)-most))
			break
		}
		parts = append(parts, b.String())
	}
	return strings.Join(parts, ", ")
}

func (a *app) showDNS(s ctl.Status) {
	if !s.DNS.Enabled {
		fmt.Fprintln(a.out, "off: this host serves no names (--no-dns); the other hosts do, also those of its containers")
		return
	}
	fmt.Fprintf(a.out, "domain %s, other names from %s\n", s.DNS.Domain, orDash(strings.Join(s.DNS.Upstreams, ", ")))
	for _, e := range s.DNS.Errors {
		fmt.Fprintln(a.out, a.paint.in(amber, "not served")+"  "+e)
	}
	a.showDNSTraffic(s.DNS.Traffic)
	if len(s.DNS.Names) == 0 {
		return
	}
	fmt.Fprintln(a.out)
	table(a.out, nameRows(s.DNS.Names))
}

func (a *app) showOverlay(s ctl.Status) {
	rows := [][]string{{"NETWORK", "BRIDGE", "DEVICE", "VNI", "MTU", "GATEWAY", "SUBNETS"}}
	for _, n := range s.Networks {
		rows = append(rows, []string{n.Name, n.Bridge, orDash(n.Device), fmt.Sprint(n.VNI), fmt.Sprint(n.MTU), orDash(join(n.Gateways)), orDash(join(n.Subnets))})
	}
	table(a.out, rows)
	fmt.Fprintln(a.out)
	if len(s.Overlay) == 0 {
		fmt.Fprintln(a.out, overlayLine(nil))
		return
	}
	rows = [][]string{{"HOST", "NETWORK", "REACHED AT", "BY", "ENDPOINTS"}}
	for _, r := range s.Overlay {
		rows = append(rows, []string{r.Host, r.Network, r.VTEP.String(), r.Path, fmt.Sprint(r.Endpoints)})
	}
	table(a.out, rows)
}

func join[T netip.Addr | netip.Prefix](xs []T) string {
	var parts []string
	for _, x := range xs {
		parts = append(parts, fmt.Sprint(x))
	}
	return strings.Join(parts, ", ")
}
