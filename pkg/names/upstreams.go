package names

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// upstreamsFresh is how long the servers of all who have none of their own are
	// taken as they were: a query that the cache answers must not ask anew who they are,
	// nor may a flood of queries be one of reads of a file that names none.
	upstreamsFresh = 100 * time.Millisecond
	// maxUpstreamStats bounds the upstreams that are counted by themselves.
	maxUpstreamStats = 64
)

// upstreamSet is whom a query is put to, in that order.
type upstreamSet struct {
	addrs []netip.AddrPort
	id    string    // the same for the same servers in the same order, and for no others
	at    time.Time // when it was asked for
}

// newUpstreamSet passes over what is no address, and what own says is ourselves.
func newUpstreamSet(servers []string, own func(netip.AddrPort) bool) upstreamSet {
	var set upstreamSet
	for _, text := range servers {
		if ap, err := netip.ParseAddrPort(text); err == nil && !own(ap) {
			set.addrs = append(set.addrs, ap)
		}
	}
	var id strings.Builder
	for _, ap := range set.addrs {
		id.WriteString(ap.String() + " ")
	}
	set.id = id.String()
	return set
}

// upstreamsOf is whom to ask on behalf of a client: its own servers, or else those
// of all; never ourselves.
func (s *Server) upstreamsOf(client netip.Addr) upstreamSet {
	own := func(ap netip.AddrPort) bool {
		return ap.Port() == s.port && slices.Contains(*s.own.Load(), ap.Addr().Unmap())
	}
	if s.cfg.UpstreamsOf != nil {
		if theirs := s.cfg.UpstreamsOf(client); len(theirs) > 0 {
			return newUpstreamSet(theirs, own)
		}
	}
	now := time.Now()
	if set := s.common.Load(); set != nil && now.Sub(set.at) < upstreamsFresh {
		return *set
	}
	var set upstreamSet
	if s.cfg.Upstreams != nil {
		set = newUpstreamSet(s.cfg.Upstreams(), own)
	}
	set.at = now
	s.common.Store(&set)
	return set
}

// UpstreamStats is what became of the queries to one upstream.
type UpstreamStats struct {
	Addr     netip.AddrPort `json:"addr"`     // the zero value: all that are too many to be counted by themselves
	Answered uint64         `json:"answered"` // with an answer that could be used
	Failed   uint64         `json:"failed"`   // silent, refused, or no such answer
	Took     Histogram      `json:"took"`     // of all of them
}

// upstreamCounts counts by upstream. The zero value is ready.
type upstreamCounts struct {
	mu   sync.Mutex
	list map[netip.AddrPort]*upstreamCount
}

type upstreamCount struct {
	answered, failed uint64
	took             durations
}

func (u *upstreamCounts) note(up netip.AddrPort, took time.Duration, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.list == nil {
		u.list = map[netip.AddrPort]*upstreamCount{}
	}
	if u.list[up] == nil && len(u.list) >= maxUpstreamStats {
		up = netip.AddrPort{}
	}
	c := u.list[up]
	if c == nil {
		c = &upstreamCount{}
		u.list[up] = c
	}
	c.took.note(took)
	if err == nil {
		c.answered++
	} else {
		c.failed++
	}
}

// stats is in order of address.
func (u *upstreamCounts) stats() []UpstreamStats {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []UpstreamStats
	for up, c := range u.list {
		out = append(out, UpstreamStats{Addr: up, Answered: c.answered, Failed: c.failed, Took: c.took.histogram()})
	}
	slices.SortFunc(out, func(a, b UpstreamStats) int { return a.Addr.Compare(b.Addr) })
	return out
}
