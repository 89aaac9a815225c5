package names

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// fence is whom a listener does not answer. A host answers for each of its addresses
// on each of its bridges, so the address that is asked does not tell who asks: only
// where the query comes from does. Whoever forges that gets no answer.
type fence struct {
	ours   []netip.Prefix // of the listener's own network
	others []netip.Prefix // of the other networks that are served here
	host   []netip.Addr   // that are served: the host asks from them
}

// newFence is that of a listener of one network, among all listeners.
func newFence(network string, all map[netip.Addr]Listener) *fence {
	f := &fence{}
	for a, l := range all {
		f.host = append(f.host, a)
		to := &f.others
		if l.Network == network {
			to = &f.ours
		}
		for _, p := range l.Subnets {
			*to = append(*to, p.Masked())
		}
	}
	return f
}

// admits reports whether a client is answered. An IPv6 address of one link says nothing of
// the network that the link is of, and answers to it find their way on any; none of those who
// have business here needs one.
func (f *fence) admits(client netip.Addr) bool {
	client = client.Unmap().WithZone("")
	in := func(p netip.Prefix) bool { return p.Contains(client) }
	switch {
	case client.Is6() && client.IsLinkLocalUnicast():
		return false
	case slices.ContainsFunc(f.ours, in), slices.Contains(f.host, client):
		return true
	}
	return !slices.ContainsFunc(f.others, in)
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
