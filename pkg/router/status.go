package router

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/place"
	"github.com/weave-cni/weave-cni/pkg/reaper"
)

const (
	hostResolvConf = "/etc/resolv.conf"
	// resolvedServers is what systemd-resolved writes beside its stub's.
	resolvedServers = "/run/systemd/resolve/resolv.conf"
)

// pathVXLAN is the one way that there is for packets to another host.
const pathVXLAN = "vxlan"

func (r *Router) openDNS() {
	r.dns = names.New(names.Config{
		Domain: r.config.DNSDomain, Table: r.table, Upstreams: r.upstreams, Log: r.log.With("part", "dns"),
		UpstreamsOf: r.clients.Of, StopRebind: r.config.DNSStopRebind, RebindOK: r.config.DNSRebindOK,
	})
}

func (r *Router) openReaper() {
	r.reaper = reaper.New(r.log.With("part", "reaper"), netdev.DeleteBatch)
}

// upstreams are the servers for names that are not ours, never ourselves.
func (r *Router) upstreams() []string {
	var up []string
	if len(r.config.DNSUpstream) != 0 {
		for _, u := range r.config.DNSUpstream {
			if _, _, err := net.SplitHostPort(u); err != nil {
				u = net.JoinHostPort(u, "53")
			}
			up = append(up, u)
		}
	} else {
		up = r.resolvConf.Upstreams()
	}
	var own []string
	for _, n := range r.standing() {
		for _, a := range n.gateways() {
			own = append(own, net.JoinHostPort(a.String(), "53"))
		}
	}
	return slices.DeleteFunc(up, func(u string) bool { return slices.Contains(own, u) })
}

func (r *Router) apiStatus(context.Context) (ctl.Status, error) {
	raft, claims := r.replica.Status(), r.ipam.Claims()
	contested := r.contestedOf(claims)
	s := ctl.Status{
		Version:  r.config.Version,
		Name:     string(r.id.Name()),
		Cluster:  r.replica.State().Cluster(),
		Secured:  r.id.Secured(),
		Uptime:   time.Since(r.started).Round(time.Second),
		StateDir: r.config.StateDir,
		Port:     r.config.Port,
		Error:    r.readiness(),
		Peers:    r.statusPeers(),
		Targets:  r.targets.all(),
		IPAM: ctl.IPAM{
			Waiting: r.waiting(), Index: raft.Index, Leader: raft.Leader, Voters: raft.Voters, Subnets: r.ipam.Usage(),
		},
		Overlay:     r.statusOverlay(),
		DNS:         r.statusDNS(),
		Attachments: r.statusAttachments(claims, contested),
	}
	for _, n := range r.standing() {
		s.Networks = append(s.Networks, ctl.NetStatus{
			Network: n.describe(), VNI: n.VNI, Subnets: n.Subnets, Device: tunnelOf(n.Network), Contested: contested[ipam.HostKey(n.Name).Hash()],
		})
	}
	slices.SortFunc(s.Networks, func(a, b ctl.NetStatus) int { return strings.Compare(a.Name, b.Name) })
	s.Problems = append(problems(s, time.Now()), ailingProblems(r.ailing())...)
	s.Problems = append(s.Problems, r.lists.Problems()...)
	if r.link.OnlySelf() {
		s.Problems = append(s.Problems, onlySelf)
	}
	s.Problems = append(s.Problems, r.unscraped()...)
	s.Problems = append(s.Problems, r.strays()...)
	if place.HomeOf(r.place).Nowhere() {
		s.Problems = append(s.Problems, homeless)
	}
	return s, nil
}

// tunnelOf is the device that leads to other hosts, "" for a network of one host.
func tunnelOf(n ledger.Network) string {
	if n.Driver != ctl.DriverWeave {
		return ""
	}
	return deviceName(n)
}

func (r *Router) statusPeers() []ctl.Peer {
	var out []ctl.Peer
	former, hosts, targets := gone(r.replica.State()), r.view.Hosts(), r.targets.all()
	for _, p := range r.link.Status() {
		line := ctl.Peer{
			Name: string(p.Name), Address: p.Addr, State: string(p.State), Detail: p.Detail, RefusesUs: p.Theirs, Count: p.Count, Last: p.Last,
		}
		if m, ok := former[line.Name]; ok && p.State == meshlink.Dialling {
			named := slices.ContainsFunc(targets, func(t ctl.Target) bool { return t.Peer == p.Addr && !t.Forgotten })
			line.Former, line.Detail = true, formerWords(m, named)
		}
		if h, known := hosts[p.Name]; known && line.Address == "" && h.VTEP.IsValid() {
			line.Address = h.VTEP.String()
		}
		out = append(out, line)
	}
	return append(out, silent(out, r.absentMembers())...)
}

// formerWords say why nobody answers where a former member was. One that is not named as
// a PEER is dialled for some seconds more.
func formerWords(m ledger.Member, named bool) string {
	how := "has left the cluster"
	if m.Retired {
		how = "was retired as destroyed"
	}
	if !named {
		return how
	}
	return how + ", and is named as a PEER here: take it out of the PEERs"
}

// absentMembers are the other members of the cluster that gossip does not reach.
func (r *Router) absentMembers() []string {
	reached := map[string]bool{string(r.id.Name()): true}
	for _, p := range r.link.Peers() {
		reached[string(p)] = true
	}
	var out []string
	for _, m := range r.replica.State().Members() {
		if m.Live() && !reached[m.Name] {
			out = append(out, m.Name)
		}
	}
	return out
}

func (r *Router) statusOverlay() []ctl.Remote {
	var out []ctl.Remote
	members, hosts := r.view.Members(), r.view.Hosts()
	for _, n := range r.standing() {
		if n.Driver != ctl.DriverWeave {
			continue // no other host has a part of it
		}
		for h, rec := range hosts {
			path := pathVXLAN
			if rec.VTEP.Is4() != r.vtep.Is4() {
				path = "none: it is reached by the other address family"
			}
			out = append(out, ctl.Remote{Network: n.Name, Host: string(h), VTEP: rec.VTEP, Path: path, Endpoints: members[n.Name][h]})
		}
	}
	slices.SortFunc(out, func(a, b ctl.Remote) int {
		return strings.Compare(a.Network+"\x00"+a.Host, b.Network+"\x00"+b.Host)
	})
	return out
}

func (r *Router) statusDNS() ctl.DNS {
	out := ctl.DNS{Enabled: r.config.DNS, Domain: r.config.DNSDomain, Upstreams: r.upstreams()}
	for _, n := range r.table.All() {
		out.Names = append(out.Names, ctl.NameEntry{Name: n.Name, Network: n.Network, Address: n.Addr, Host: n.Host, ByHand: n.ByHand})
	}
	stats := r.dns.Stats()
	out.Traffic = dnsTraffic(stats)
	for _, l := range stats.Listeners {
		if l.Error != "" {
			out.Errors = append(out.Errors, fmt.Sprintf("network %s at %s: %s", l.Network, l.Addr, l.Error))
		}
	}
	return out
}

func (r *Router) statusAttachments(claims []ipam.Claim, contested map[string][]ctl.Contested) []ctl.Attachment {
	var out []ctl.Attachment
	for _, c := range claims {
		// One read from the kernel before the ledger was known may have turned out to be nobody's here.
		stray := c.Key.ContainerID == "" && c.Network == "" && r.replica.State().Cluster() != ""
		if !stray && !c.Host() {
			a := describe(c)
			a.Contested, a.NamesLost = contested[c.Hash], r.namesLost(c)
			out = append(out, a)
		}
	}
	return out
}

func describe(c ipam.Claim) ctl.Attachment {
	a := ctl.Attachment{Key: c.Key, Hash: c.Hash, MAC: c.MAC.String(), Addresses: c.Addrs, Names: c.Names, State: string(c.State)}
	if c.Decider == ctl.DecidedByVeth {
		a.Veth = c.Veth()
	}
	return a
}

// namesLost reports whether an attachment may have had names that nobody here knows:
// its claim file is gone, and no other host has told what it had.
func (r *Router) namesLost(c ipam.Claim) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.Key.ContainerID == "" && len(c.Names) == 0 && !r.recalled[c.Hash]
}

// apiReport is every part's own status, for an issue. It holds no secret.
func (r *Router) apiReport(ctx context.Context) (map[string]any, error) {
	status, err := r.apiStatus(ctx)
	return map[string]any{
		"status":  status,
		"gossip":  r.link.Stats(),
		"ledger":  r.replica.Status(),
		"records": r.exchange.Stats(),
		"dns":     r.dns.Stats(),
		"config":  r.config,
	}, err
}
