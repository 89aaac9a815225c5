package router

import (
	"context"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/names"
)

// measure gives a scrape every number that the parts have. It says the same as
// `weave status`, from the same source.
func (r *Router) measure(ctx context.Context, s sink) {
	status, err := r.apiStatus(ctx)
	if err != nil {
		s.ch <- prometheus.NewInvalidMetric(s.c.descs["weave_ready"], err)
		return
	}
	s.put("weave_build_info", 1, r.config.Version)
	s.flag("weave_ready", status.Error == nil)
	s.put("weave_problems", float64(len(status.Problems)))
	inHand, shed := r.server.Load()
	s.put("weave_calls_in_hand", float64(inHand))
	s.put("weave_calls_shed_total", float64(shed))
	s.addresses(status)
	s.attachments(r.ipam.Claims())
	s.put("weave_networks", float64(len(r.replica.State().Networks())))
	s.put("weave_networks_standing", float64(len(status.Networks)))
	r.reportLedger(s)
	r.reportGossip(s, status)
	s.dns(r.dns.Stats())
	r.reportKernel(s)
}

// share is what this host has of one network's addresses of one family.
type share struct {
	owned, used, foreign, pool uint64
	blocks                     int
	full                       bool
}

func (s sink) addresses(status ctl.Status) {
	shares := map[[2]string]*share{}
	for _, u := range status.IPAM.Subnets {
		key := [2]string{u.Network, familyOf(u.Subnet)}
		sum := shares[key]
		if sum == nil {
			sum = &share{}
			shares[key] = sum
		}
		sum.pool = plus(sum.pool, u.Pool)
		sum.full = sum.full || u.Full
		for _, h := range u.Hosts {
			if h.Self {
				sum.owned, sum.used, sum.foreign = plus(sum.owned, h.Owned), sum.used+h.Used, sum.foreign+h.Foreign
				sum.blocks += len(h.Blocks)
			}
		}
	}
	for key, sum := range shares {
		of := key[:]
		s.put("weave_addresses_owned", float64(sum.owned), of...)
		s.put("weave_addresses_used", float64(sum.used), of...)
		s.put("weave_addresses_free", float64(sum.owned-min(sum.used, sum.owned)), of...)
		s.put("weave_addresses_foreign", float64(sum.foreign), of...)
		s.put("weave_addresses_pool", float64(sum.pool), of...)
		s.put("weave_blocks", float64(sum.blocks), of...)
		s.flag("weave_network_full", sum.full, of...)
	}
	contested := 0
	for _, n := range status.Networks {
		contested += len(n.Contested)
	}
	for _, a := range status.Attachments {
		contested += len(a.Contested)
	}
	s.put("weave_addresses_contested", float64(contested))
}

func familyOf(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// plus adds two numbers of which each may stand for more than there is room for.
func plus(a, b uint64) uint64 {
	if a+b < a {
		return ^uint64(0)
	}
	return a + b
}

func (s sink) attachments(claims []ipam.Claim) {
	count := map[[2]string]int{}
	for _, c := range claims {
		if c.Host() {
			continue
		}
		for _, state := range []book.State{book.Reserved, book.Attached} {
			count[[2]string{c.Network, string(state)}] += 0
		}
		count[[2]string{c.Network, string(c.State)}]++
	}
	for key, n := range count {
		s.put("weave_attachments", float64(n), key[:]...)
	}
}

func (r *Router) reportLedger(s sink) {
	l := r.replica.Status()
	s.put("weave_ledger_index", float64(l.Index))
	s.put("weave_ledger_lag_entries", float64(l.Decided-min(l.Decided, l.Index)))
	s.flag("weave_ledger_leader_known", l.Leader != "")
	s.flag("weave_ledger_leads", l.Leads)
	s.flag("weave_ledger_votes", l.Votes)
	s.put("weave_ledger_voters", float64(len(l.Voters)))
	s.put("weave_ledger_members", float64(l.Members))
	c := l.Counters
	s.counts("weave_ledger_dropped_messages_total", map[string]uint64{
		"malformed": c.Malformed, "wrong_cluster": c.WrongCluster, "wrong_member": c.WrongMember, "wrong_life": c.WrongLife, "refused": c.Refused,
		"impossible": c.Impossible, "panic": c.Panics, "no_route": c.NoRoute, "too_large": c.TooLarge, "queue_full": l.Lost,
	})
}

// counts gives a counter of one label.
func (s sink) counts(name string, by map[string]uint64) {
	for label, n := range by {
		s.put(name, float64(n), label)
	}
}

func (r *Router) reportGossip(s sink, status ctl.Status) {
	peers := map[string]int{string(meshlink.Connected): 0, string(meshlink.Relayed): 0, string(meshlink.Dialling): 0, string(meshlink.Refused): 0}
	for _, p := range status.Peers {
		peers[p.State]++
	}
	for state, n := range peers {
		s.put("weave_peers", float64(n), state)
	}
	for path, n := range hostsByPath(status.Overlay) {
		s.put("weave_hosts", float64(n), path)
	}
	g := r.link.Stats()
	s.put("weave_gossip_sent_bytes_total", float64(g.Carrier.BytesSent.Load()))
	s.put("weave_gossip_received_bytes_total", float64(g.Carrier.BytesReceived.Load()))
	s.counts("weave_gossip_sent_messages_total", map[string]uint64{"unicast": g.UnicastsSent.Load(), "broadcast": g.BroadcastsSent.Load()})
	s.put("weave_gossip_received_messages_total", float64(g.Received.Load()))
	s.counts("weave_gossip_dropped_messages_total", map[string]uint64{
		"queue_full": g.Busy.Load(), "late": g.Late.Load(), "no_route": g.Undelivered.Load(), "slow_neighbour": g.LostBroadcasts.Load(),
		"slow_handler": g.Overrun.Load(), "malformed": g.BadFrames.Load(), "unknown_channel": g.UnknownChannel.Load(), "panic": g.HandlerPanics.Load(),
	})
	s.put("weave_gossip_connections_total", float64(g.Carrier.Sessions.Load()))
	s.put("weave_gossip_connections_lost_total", float64(g.Carrier.Dropped.Load()))
	s.put("weave_gossip_refusals_total", float64(g.Carrier.Refused.Load()))
	s.put("weave_gossip_dial_failures_total", float64(g.Carrier.DialFailures.Load()))
	x := r.exchange.Stats()
	s.put("weave_record_hosts", float64(x.Origins))
	s.counts("weave_record_dropped_messages_total", map[string]uint64{"malformed": x.Malformed, "queue_full": x.Dropped, "too_soon": x.Hurried})
}

// hostsByPath counts other hosts, each once, by the way to them.
func hostsByPath(overlay []ctl.Remote) map[string]int {
	paths := map[string]string{}
	for _, o := range overlay {
		path, _, _ := strings.Cut(o.Path, ":") // the rest says why
		paths[o.Host] = path
	}
	out := map[string]int{pathVXLAN: 0, "none": 0}
	for _, p := range paths {
		out[p]++
	}
	return out
}

func (s sink) dns(d names.Stats) {
	s.counts("weave_dns_queries_total", d.Queries)
	for source, h := range map[string]names.Histogram{"own": d.Own, "cached": d.Cached, "forwarded": d.Forwarded} {
		s.histogram("weave_dns_query_duration_seconds", h, source)
	}
	s.dnsUpstreams(d)
	s.put("weave_dns_names", float64(d.Names))
	s.put("weave_dns_records", float64(d.Records))
	s.put("weave_dns_forwarding", float64(d.Forwarding))
	s.put("weave_dns_tcp_connections", float64(d.TCPConnections))
	s.put("weave_dns_tcp_refused_total", float64(d.TCPRefused))
	s.put("weave_dns_tcp_evicted_total", float64(d.TCPEvicted))
	unserved := 0
	for _, l := range d.Listeners {
		if l.Error != "" {
			unserved++
		}
	}
	s.put("weave_dns_addresses_unserved", float64(unserved))
}

func (r *Router) reportKernel(s sink) {
	for name, w := range r.metrics.forwarding(r.standing()) {
		s.put("weave_forwarding_entries", float64(w.fdb), name, "fdb")
		s.put("weave_forwarding_entries", float64(w.neighbours), name, "neighbours")
		s.put("weave_forwarding_entries", float64(w.flood), name, "flood")
	}
	fw := r.fw.Stats()
	for set, n := range fw.Elements {
		s.put("weave_firewall_set_elements", float64(n), set)
	}
	s.put("weave_firewall_repairs_total", float64(fw.Repairs))
	links := r.reaper.Stats()
	s.put("weave_links_deleted_total", float64(links.Links-links.Failed))
	s.put("weave_link_deletions_failed_total", float64(links.Failed))
	s.put("weave_link_deletion_batches_total", float64(links.Batches))
}
