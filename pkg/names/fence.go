package names

import (
	"net/netip"

	"github.com/miekg/dns"
)

// fence is whom a listener does not answer. A host answers for each of its addresses
// on each of its bridges, so the address that is asked does not tell who asks: only
// where the query comes from does. Whoever forges that gets no answer.
type fence struct {
	network string // the listener's own
	served
}

// served is what all listeners together serve. They share it.
type served struct {
	subnets []subnet
	host    map[netip.Addr]bool // that are served: the host asks from them
}

type subnet struct {
	netip.Prefix
	network string
}

func newServed(all map[netip.Addr]Listener) served {
	s := served{host: make(map[netip.Addr]bool, len(all))}
	for a, l := range all {
		s.host[a] = true
		for _, p := range l.Subnets {
			s.subnets = append(s.subnets, subnet{p.Masked(), l.Network})
		}
	}
	return s
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
	others := false
	for _, s := range f.subnets {
		if !s.Contains(client) {
			continue
		}
		if s.network == f.network {
			return true
		}
		others = true
	}
	return !others
}

// serveAt is serve for a client of a listener, or refuses.
func (s *Server) serveAt(p *socketPair, client netip.Addr, dst, msg []byte, q *query, tcp bool) (answer []byte, o outcome) {
	if p.fence.Load().admits(client) {
		return s.serve(dst, msg, q, tcp, *p.scope.Load())
	}
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
