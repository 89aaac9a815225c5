package router

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// kind is how a metric behaves.
type kind string

const (
	gauge     kind = "gauge"
	counter   kind = "counter"
	histogram kind = "histogram"
)

// metric is one metric that the router exports. docs/operate/metrics.md lists them too,
// and a test compares.
type metric struct {
	name   string
	kind   kind
	labels []string
	help   string
}

// catalogue is all of them. What a label may be is bounded: by code, or by the ledger's
// limit of 1024 networks; nothing is labelled by container, address or remote host.
func catalogue() []metric {
	subnets := []string{"network", "family"}
	return []metric{
		{"weave_build_info", gauge, []string{"version"}, "1, with the version of the router."},
		{"weave_ready", gauge, nil, "Whether an ADD can be served here (1), as CNI's STATUS says."},
		{"weave_problems", gauge, nil, "Lines that begin with `problem` in `weave status`."},

		{"weave_calls_total", counter, []string{"call", "code"}, "Calls over the control socket, by CNI error code; 0 is success."},
		{"weave_call_duration_seconds", histogram, []string{"call"}, "How long calls over the control socket took."},
		{"weave_calls_in_hand", gauge, nil, "Calls over the control socket that have not ended."},
		{"weave_calls_shed_total", counter, nil, "Calls turned away because too many were in hand."},
		{"weave_adds_total", counter, []string{"code"}, "ADDs by CNI error code, 0 for success, or `abandoned`; see below."},
		{"weave_add_duration_seconds", histogram, nil, "How long ADDs took that succeeded, from first call to commit."},

		{"weave_addresses_owned", gauge, subnets, "Addresses in the blocks of this host."},
		{"weave_addresses_used", gauge, subnets, "Addresses of this host's blocks in use here."},
		{"weave_addresses_free", gauge, subnets, "Addresses of this host's blocks not in use."},
		{"weave_addresses_foreign", gauge, subnets, "Addresses in use here that are not in this host's blocks."},
		{"weave_addresses_pool", gauge, subnets, "Addresses of the network that no host owns."},
		{"weave_blocks", gauge, subnets, "Blocks of this host, adjacent ones counted as one."},
		{"weave_network_full", gauge, subnets, "Whether no address can be had here any more (1)."},
		{"weave_addresses_contested", gauge, nil, "Addresses in use here that another host has a claim to."},
		{"weave_networks", gauge, nil, "Networks of the cluster."},
		{"weave_networks_standing", gauge, nil, "Networks whose bridge stands on this host."},
		{"weave_attachments", gauge, []string{"network", "state"}, "Container interfaces here: `reserved` by an ADD, or `attached`."},

		{"weave_ledger_index", gauge, nil, "Last entry of the ledger that is applied here."},
		{"weave_ledger_lag_entries", gauge, nil, "Entries of the ledger that are decided and not applied here."},
		{"weave_ledger_leader_known", gauge, nil, "Whether this host hears the ledger's leader (1)."},
		{"weave_ledger_leads", gauge, nil, "Whether this host is the leader (1)."},
		{"weave_ledger_votes", gauge, nil, "Whether this host is a voter (1)."},
		{"weave_ledger_voters", gauge, nil, "Voters of the ledger."},
		{"weave_ledger_members", gauge, nil, "Hosts that are members of the cluster."},
		{"weave_ledger_dropped_messages_total", counter, []string{"reason"}, "Messages about the ledger that were dropped."},

		{"weave_peers", gauge, []string{"state"}, "Other routers, as `weave status peers` has them."},
		{"weave_hosts", gauge, []string{"path"}, "Other hosts by the way that packets take; `none`: there is none."},
		{"weave_gossip_sent_bytes_total", counter, nil, "Bytes of gossip sent to other hosts."},
		{"weave_gossip_received_bytes_total", counter, nil, "Bytes of gossip received from other hosts."},
		{"weave_gossip_sent_messages_total", counter, []string{"way"}, "Gossip messages sent: `unicast`, `broadcast`."},
		{"weave_gossip_received_messages_total", counter, nil, "Gossip messages received."},
		{"weave_gossip_dropped_messages_total", counter, []string{"reason"}, "Gossip messages dropped."},
		{"weave_gossip_connections_total", counter, nil, "Connections with other routers that both sides agreed to."},
		{"weave_gossip_connections_lost_total", counter, nil, "Of those, the ones that have ended."},
		{"weave_gossip_refusals_total", counter, nil, "Connections that this router or the other refused."},
		{"weave_gossip_dial_failures_total", counter, nil, "Calls to other routers that reached nobody."},
		{"weave_record_hosts", gauge, nil, "Hosts whose addresses and names are known here."},
		{"weave_record_dropped_messages_total", counter, []string{"reason"}, "Messages with addresses and names that were dropped."},

		{"weave_dns_queries_total", counter, []string{"outcome"}, "DNS queries by how they ended."},
		{"weave_dns_query_duration_seconds", histogram, []string{"source"}, "How long DNS answers took: `own`, `cached`, `forwarded`."},
		{"weave_dns_names", gauge, nil, "Names of containers and hosts that are answered here."},
		{"weave_dns_records", gauge, nil, "Addresses behind those names."},
		{"weave_dns_forwarding", gauge, nil, "DNS queries that wait for an upstream."},
		{"weave_dns_waiting", gauge, nil, "DNS queries held back until it is their client's turn to ask an upstream."},
		{"weave_dns_upstream_queries_total", counter, []string{"outcome"}, "Queries to upstreams: `answered`, `failed`."},
		{"weave_dns_upstream_duration_seconds", histogram, nil, "How long these took."},
		{"weave_dns_cache_lookups_total", counter, []string{"result"}, "Queries for names of others: `hit`, `miss`."},
		{"weave_dns_cache_entries", gauge, nil, "Answers of upstreams that are kept."},
		{"weave_dns_cache_bytes", gauge, nil, "Memory that they take."},
		{"weave_dns_cache_evictions_total", counter, nil, "Answers that were not kept longer for want of room."},
		{"weave_dns_rebinds_filtered_total", counter, nil, "Answers out of which addresses were taken (`--dns-stop-rebind`)."},
		{"weave_dns_tcp_connections", gauge, nil, "Open TCP connections of DNS clients."},
		{"weave_dns_tcp_refused_total", counter, nil, "TCP connections of DNS clients over the bound, refused."},
		{"weave_dns_tcp_evicted_total", counter, nil, "Idle ones that were closed to make room for others."},
		{"weave_dns_addresses_unserved", gauge, nil, "Addresses of bridges on which DNS cannot be served."},

		{"weave_forwarding_entries", gauge, []string{"network", "table"}, "Entries to other hosts: `fdb`, `neighbours`, `flood`."},
		{"weave_forwarding_repairs_total", counter, nil, "Entries corrected because somebody had changed them."},
		{"weave_firewall_set_elements", gauge, []string{"set"}, "Elements of the sets in the host's table `inet weave`."},
		{"weave_firewall_repairs_total", counter, nil, "Times that it was written again because somebody changed it."},
		{"weave_reconciliations_total", counter, []string{"result"}, "Comparisons of kernel and ledger: `ok`, `failed`."},
		{"weave_reconciliation_duration_seconds", histogram, nil, "How long these took."},
		{"weave_reconciled_attachments_total", counter, []string{"change"}, "Found gone (`released`), or there unknown (`adopted`)."},
		{"weave_links_deleted_total", counter, nil, "Links of containers that the router deleted."},
		{"weave_link_deletions_failed_total", counter, nil, "Links of containers that it could not delete."},
		{"weave_link_deletion_batches_total", counter, nil, "Batches in which links were deleted."},
		{"weave_metrics_gather_seconds", gauge, nil, "How long the last reading of these numbers took."},
	}
}

// callBuckets, in seconds: from a call that asks nobody to one at its bound.
func callBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15}
}

// metrics are the router's numbers that are counted as things happen; the rest, collector
// asks for when it is scraped. Nobody has to scrape it. A nil *metrics counts nothing.
type metrics struct {
	calls       *prometheus.CounterVec
	callTimes   *prometheus.HistogramVec
	adds        *prometheus.CounterVec
	addTimes    prometheus.Histogram
	passes      *prometheus.CounterVec
	passTimes   prometheus.Histogram
	reconciled  *prometheus.CounterVec
	entryRepair prometheus.Counter

	mu      sync.Mutex
	seed    maphash.Seed
	written map[string]written // by the network's id
}

// written is what was written into the kernel for a network last.
type written struct {
	fdb, neighbours, flood int
	sum                    uint64 // of all of it
}

func newMetrics() *metrics {
	m := &metrics{seed: maphash.MakeSeed(), written: map[string]written{}}
	all := map[string]metric{}
	for _, one := range catalogue() {
		all[one.name] = one
	}
	counts := func(name string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: all[name].help}, all[name].labels)
	}
	times := func(name string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: all[name].help, Buckets: callBuckets()}, all[name].labels)
	}
	m.calls, m.callTimes = counts("weave_calls_total"), times("weave_call_duration_seconds")
	m.adds, m.addTimes = counts("weave_adds_total"), times("weave_add_duration_seconds").WithLabelValues().(prometheus.Histogram)
	m.passes, m.passTimes = counts("weave_reconciliations_total"), times("weave_reconciliation_duration_seconds").WithLabelValues().(prometheus.Histogram)
	m.reconciled = counts("weave_reconciled_attachments_total")
	m.entryRepair = counts("weave_forwarding_repairs_total").WithLabelValues()
	for _, result := range []string{"ok", "failed"} {
		m.passes.WithLabelValues(result)
	}
	for _, change := range []string{"released", "adopted"} {
		m.reconciled.WithLabelValues(change)
	}
	m.adds.WithLabelValues("0")
	m.adds.WithLabelValues(codeAbandoned)
	return m
}

// counted are those that count by themselves.
func (m *metrics) counted() []prometheus.Collector {
	return []prometheus.Collector{m.calls, m.callTimes, m.adds, m.addTimes, m.passes, m.passTimes, m.reconciled, m.entryRepair}
}

// registry gathers everything that is exported.
func (r *Router) registry() (*prometheus.Registry, error) {
	reg := prometheus.NewRegistry()
	all := append(r.metrics.counted(), newCollector(r), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register a metric: %w", err)
		}
	}
	return reg, nil
}

// exemplar leads from a number to the trace of one of the calls behind it.
func exemplar(traceID string) prometheus.Labels {
	if traceID == "" {
		return nil
	}
	return prometheus.Labels{"trace_id": traceID}
}

func observe(h prometheus.Observer, took time.Duration, traceID string) {
	if e, ok := h.(prometheus.ExemplarObserver); ok && traceID != "" {
		e.ObserveWithExemplar(took.Seconds(), exemplar(traceID))
		return
	}
	h.Observe(took.Seconds())
}

func count(c prometheus.Counter, traceID string) {
	if e, ok := c.(prometheus.ExemplarAdder); ok && traceID != "" {
		e.AddWithExemplar(1, exemplar(traceID))
		return
	}
	c.Inc()
}

// called counts a call that has ended.
func (m *metrics) called(call string, code uint, took time.Duration, traceID string) {
	if m == nil {
		return
	}
	count(m.calls.WithLabelValues(call, codeLabel(code)), traceID)
	observe(m.callTimes.WithLabelValues(call), took, traceID)
}

// codeOther is the label of every code that is neither CNI's own nor ours: what a call of
// attachd's hands on is whatever a plugin of others has made up.
const codeOther = "other"

func codeLabel(code uint) string {
	const last = 119 // CNI's end with 99, ours begin with 100
	if code > last {
		return codeOther
	}
	return fmt.Sprint(code)
}

// added counts an ADD that has ended.
func (m *metrics) added(code string, took time.Duration, traceID string) {
	if m == nil {
		return
	}
	count(m.adds.WithLabelValues(code), traceID)
	if code == "0" {
		observe(m.addTimes, took, traceID)
	}
}

// converged counts a pass of settle.
func (m *metrics) converged(took time.Duration, err error) {
	if m == nil {
		return
	}
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.passes.WithLabelValues(result).Inc()
	m.passTimes.Observe(took.Seconds())
}

// settledWith counts what a comparison with the kernel's attachments found.
func (m *metrics) settledWith(released, adopted int) {
	if m != nil {
		m.reconciled.WithLabelValues("released").Add(float64(released))
		m.reconciled.WithLabelValues("adopted").Add(float64(adopted))
	}
}

// forwarded notes what was written for a network, and that the kernel had changed entries
// of it. Where the same had been written before, somebody else changed it meanwhile.
func (m *metrics) forwarded(id string, want netdev.Forwarding, changed int) {
	if m == nil {
		return
	}
	var h maphash.Hash
	h.SetSeed(m.seed)
	w := written{fdb: len(want.Remotes), flood: len(want.Flood)}
	for _, e := range want.Remotes {
		w.neighbours += len(e.Addrs)
		maphash.WriteComparable(&h, fmt.Sprint(e.MAC, e.VTEP, e.Addrs))
	}
	maphash.WriteComparable(&h, fmt.Sprint(want.Flood))
	w.sum = h.Sum64()
	m.mu.Lock()
	defer m.mu.Unlock()
	if was, ok := m.written[id]; ok && was.sum == w.sum {
		m.entryRepair.Add(float64(changed))
	}
	m.written[id] = w
}

// dropped forgets what was written for a network that stands here no more.
func (m *metrics) dropped(id string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.written, id)
}

// forwarding is what was written last for the networks that stand, by name. It forgets
// the others: what was being written as its network went is noted after dropped.
func (m *metrics) forwarding(standing []*network) map[string]written {
	m.mu.Lock()
	defer m.mu.Unlock()
	out, there := map[string]written{}, map[string]written{}
	for _, n := range standing {
		if w, ok := m.written[n.ID]; ok {
			out[n.Name], there[n.ID] = w, w
		}
	}
	m.written = there
	return out
}

// scrapeWithin bounds one reading of the numbers.
const scrapeWithin = 10 * time.Second

// collector asks the router's parts when it is scraped.
type collector struct {
	r     *Router
	descs map[string]*prometheus.Desc
	kinds map[string]kind
}

func newCollector(r *Router) *collector {
	c := &collector{r: r, descs: map[string]*prometheus.Desc{}, kinds: map[string]kind{}}
	counted := map[string]bool{}
	for _, one := range r.metrics.counted() {
		ch := make(chan *prometheus.Desc, 1)
		one.Describe(ch)
		counted[(<-ch).String()] = true
	}
	for _, m := range catalogue() {
		d := prometheus.NewDesc(m.name, m.help, m.labels, nil)
		if !counted[d.String()] {
			c.descs[m.name], c.kinds[m.name] = d, m.kind
		}
	}
	return c
}

// Describe is prometheus.Collector's.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect is prometheus.Collector's. A fault in it costs the scrape, not the router.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	defer func() {
		if p := recover(); p != nil {
			c.r.log.Error("gathering metrics panicked", "panic", p)
			ch <- prometheus.NewInvalidMetric(c.descs["weave_ready"], fmt.Errorf("panic: %v", p))
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), scrapeWithin)
	defer cancel()
	start := time.Now()
	s := sink{c, ch}
	c.r.measure(ctx, s)
	s.put("weave_metrics_gather_seconds", time.Since(start).Seconds())
}

// sink takes the numbers of one scrape.
type sink struct {
	c  *collector
	ch chan<- prometheus.Metric
}

func (s sink) put(name string, value float64, labels ...string) {
	kinds := map[kind]prometheus.ValueType{gauge: prometheus.GaugeValue, counter: prometheus.CounterValue}
	m, err := prometheus.NewConstMetric(s.c.descs[name], kinds[s.c.kinds[name]], value, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(s.c.descs[name], err)
	}
	s.ch <- m
}

// flag is 1 for true.
func (s sink) flag(name string, is bool, labels ...string) {
	value := 0.0
	if is {
		value = 1
	}
	s.put(name, value, labels...)
}
