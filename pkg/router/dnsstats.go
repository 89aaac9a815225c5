package router

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/names"
)

// histogram hands on one that has been counted elsewhere.
func (s sink) histogram(metric string, h names.Histogram, labels ...string) {
	buckets := map[float64]uint64{}
	for i, b := range h.Bounds {
		buckets[b] = h.Counts[i]
	}
	m, err := prometheus.NewConstHistogram(s.c.descs[metric], h.Count, h.Sum, buckets, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(s.c.descs[metric], err)
	}
	s.ch <- m
}

// dnsUpstreams sums the upstreams up: which there are, users decide, and `weave status dns` tells.
func (s sink) dnsUpstreams(d names.Stats) {
	sum := names.UpstreamStats{Took: names.Histogram{Bounds: d.Forwarded.Bounds, Counts: make([]uint64, len(d.Forwarded.Bounds))}}
	for _, u := range d.Upstreams {
		sum.Answered += u.Answered
		sum.Failed += u.Failed
		sum.Took.Count += u.Took.Count
		sum.Took.Sum += u.Took.Sum
		for i, n := range u.Took.Counts {
			sum.Took.Counts[i] += n
		}
	}
	s.counts("weave_dns_upstream_queries_total", map[string]uint64{"answered": sum.Answered, "failed": sum.Failed})
	s.histogram("weave_dns_upstream_duration_seconds", sum.Took)
	s.counts("weave_dns_cache_lookups_total", map[string]uint64{"hit": d.Cache.Hits, "miss": d.Cache.Misses})
	s.put("weave_dns_cache_entries", float64(d.Cache.Entries))
	s.put("weave_dns_cache_bytes", float64(d.Cache.Bytes))
	s.put("weave_dns_cache_evictions_total", float64(d.Cache.Evicted))
	s.put("weave_dns_rebinds_filtered_total", float64(d.Rebinds))
	s.put("weave_dns_waiting", float64(d.Waiting))
}

// dnsTraffic is what `weave status dns` tells of the server beside its names.
func dnsTraffic(d names.Stats) ctl.DNSTraffic {
	out := ctl.DNSTraffic{Queries: d.Queries, Waiting: d.Waiting, Cache: ctl.DNSCache{
		Entries: d.Cache.Entries, Bytes: d.Cache.Bytes, Limit: d.Cache.Limit, Hits: d.Cache.Hits, Misses: d.Cache.Misses,
	}}
	for _, u := range d.Upstreams {
		x := ctl.DNSUpstream{Answered: u.Answered, Failed: u.Failed}
		if u.Addr.IsValid() {
			x.Addr = u.Addr.String()
		}
		if u.Took.Count > 0 {
			x.MeanSeconds = u.Took.Sum / float64(u.Took.Count)
		}
		out.Upstreams = append(out.Upstreams, x)
	}
	return out
}
