package names

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// fence is whom a listener does not answer. A host answers for each of its addresses
// on each of its bridges, so the address that is asked does not tell who asks: only
// where the query comes from does. Whoever forges that gets no answer.
type fence struct {
	own []netip.Prefix // of the listener's own network
	*served
}

// served is what all listeners together serve. They share it.
type served struct {
	subnets []netip.Prefix      // each once
	host    map[netip.Addr]bool // that are served: the host asks from them
}

func newServed(all map[netip.Addr]Listener) *served {
	s := &served{host: make(map[netip.Addr]bool, len(all))}
	for a, l := range all {
		s.host[a] = true
		s.subnets = append(s.subnets, masked(l.Subnets)...)
	}
	slices.SortFunc(s.subnets, netip.Prefix.Compare)
	s.subnets = slices.Compact(s.subnets)
	return s
}

func newFence(l Listener, all *served) *fence { return &fence{masked(l.Subnets), all} }

func masked(ps []netip.Prefix) (out []netip.Prefix) {
	for _, p := range ps {
		out = append(out, p.Masked())
	}
	return out
}

// admits reports whether a client is answered. An IPv6 address of one link says nothing of
// the network that the link is of, and answers to it find their way on any; none of those who
// have business here needs one.
func (f *fence) admits(client netip.Addr) bool {
	client = client.Unmap().WithZone("")
	switch {
	case client.Is6() && client.IsLinkLocalUnicast():
		return false
	case f.host[client]:
		return true
	}
	has := func(p netip.Prefix) bool { return p.Contains(client) }
	return slices.ContainsFunc(f.own, has) || !slices.ContainsFunc(f.subnets, has)
}

// serveAt is serve for a client of a listener, or refuses.
func (s *Server) serveAt(p *socketPair, client netip.Addr, dst, msg []byte, q *query, tcp bool) (answer []byte, o outcome) {
	if p.fence.Load().admits(client) {
		return s.serve(dst, msg, q, tcp, *p.scope.Load())
	}
	q.begun = time.Now()
	o = panicked // until there is another
	defer s.survive(msg)
	answer, o = q.refuse(dst, msg, tcp)
	s.counters.count(o)
	return answer, o
}

// refuse answers a query of one who is not served, with nothing of what there is.
func (q *query) refuse(dst, msg []byte, tcp bool) ([]byte, outcome) {
	rcode, silent := q.parse(msg, tcp)
	switch {
	case silent:
		return nil, dropped
	case rcode == dns.RcodeNotImplemented, rcode == dns.RcodeFormatError:
		return q.bare(dst, rcode), malformed
	}
	return q.empty(dst, dns.RcodeRefused, 0), refused
}
