package names

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// scope is what a listener answers for.
type scope struct {
	network string // as the table has it
	label   string // as it is asked for: lower-case
}

// resolver answers what is ours. It does no I/O.
type resolver struct {
	domain string // lower-case, no dots at the ends
	labels int    // of domain
	table  *Table
}

func newResolver(domain string, t *Table) resolver {
	d := strings.ToLower(strings.Trim(domain, "."))
	return resolver{d, strings.Count(d, ".") + 1, t}
}

// handle answers a message in dst's memory. With outcome forward the answer is
// somebody else's to give, and q what to ask; with dropped there is none.
// zones are the subnets of all networks.
func (r resolver) handle(dst, msg []byte, q *query, tcp bool, sc scope, zones []netip.Prefix) ([]byte, outcome) {
	rcode, silent := q.parse(msg, tcp)
	switch {
	case silent:
		return nil, dropped
	case rcode == dns.RcodeNotImplemented, rcode == dns.RcodeFormatError:
		return q.bare(dst, rcode), malformed
	case rcode != dns.RcodeSuccess:
		return q.empty(dst, rcode, 0), refused
	case q.edns && q.version != 0:
		return q.empty(dst, dns.RcodeBadVers, 0), malformed
	case !servedType(q.qtype):
		return q.empty(dst, dns.RcodeRefused, 0), refused
	}
	return r.resolve(dst, q, sc, zones)
}

// servedType refuses what is no type of data: transfers, transaction keys, OPT.
func servedType(t uint16) bool {
	return t != dns.TypeNone && t != dns.TypeOPT && (t < dns.TypeTKEY || t >= dns.TypeANY)
}

func (r resolver) resolve(dst []byte, q *query, sc scope, zones []netip.Prefix) ([]byte, outcome) {
	if q.name == localhost {
		return loopback(dst, q)
	}
	if q.name == r.domain && (q.labels > 1 || !r.table.exists(sc.network, q.name)) {
		return apex(dst, q, r.labels)
	}
	if q.labels == 1 && zoneType(q.qtype) && !r.table.exists(sc.network, q.name) {
		return nil, forward
	}
	if q.labels == 1 || q.labels == 3 && isService(q.name) {
		return r.answer(dst, q, sc, q.name, 1)
	}
	if rel, ok := cutSuffix(q.name, r.domain); ok {
		return r.answer(dst, q, sc, rel, r.labels)
	}
	if _, below := cutSuffix(q.name, localhost); below {
		return loopback(dst, q)
	}
	if p, ok := reverseZone(q.name); ok {
		if zone := slices.IndexFunc(zones, func(z netip.Prefix) bool { return covers(z, p) }); zone >= 0 {
			return r.reverse(dst, q, sc, p, zones[zone])
		}
	}
	if q.qtype == dns.TypeANY {
		return q.minimalANY(dst, 0), answered // of others' names too: nobody asks it in earnest
	}
	return nil, forward
}

// loopback answers for localhost and all below it, whatever anybody is called: RFC 6761, 6.3.
func loopback(dst []byte, q *query) ([]byte, outcome) {
	switch q.qtype {
	case dns.TypeA:
		return q.addresses(dst, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}), answered
	case dns.TypeAAAA:
		return q.addresses(dst, []netip.Addr{netip.IPv6Loopback()}), answered
	case dns.TypeANY:
		return q.minimalANY(dst, flagAA), answered
	}
	return q.negative(dst, dns.RcodeSuccess, 1), noData
}

// zoneType reports whether a type is asked of a zone, not of a host. A single label that
// is not ours may be a top-level domain: who validates, or looks for its servers, would by
// our NXDOMAIN hold that there is nothing below it either (RFC 8020).
func zoneType(t uint16) bool {
	return t == dns.TypeDS || t == dns.TypeDNSKEY || t == dns.TypeNS || t == dns.TypeSOA
}

// cutSuffix cuts ".suffix" from a name.
func cutSuffix(name, suffix string) (string, bool) {
	n := len(name) - len(suffix) - 1
	if n < 0 || name[n] != '.' || name[n+1:] != suffix {
		return "", false
	}
	return name[:n], true
}

// apex answers for the domain itself, which exists and has no addresses.
func apex(dst []byte, q *query, labels int) ([]byte, outcome) {
	switch q.qtype {
	case dns.TypeSOA:
		b := q.begin(dst, dns.RcodeSuccess, flagAA)
		return q.opt(q.soa(b, answers, labels), dns.RcodeSuccess), answered
	case dns.TypeANY:
		return q.minimalANY(dst, flagAA), answered
	}
	return q.negative(dst, dns.RcodeSuccess, labels), noData
}

// answer looks up a name relative to the domain; zone is the number of labels of
// the zone that a negative answer speaks for.
func (r resolver) answer(dst []byte, q *query, sc scope, rel string, zone int) ([]byte, outcome) {
	var room [16]netip.Addr
	name, most := rel, q.mostAddresses()
	as, there := r.table.lookup(room[:0], sc.network, name, q.qtype, most)
	if !there && q.labels > 1 {
		if short, ok := cutSuffix(rel, sc.label); ok && r.table.exists(sc.network, short) {
			name = short
			as, there = r.table.lookup(as, sc.network, name, q.qtype, most)
		}
	}
	switch {
	case !there && rel == sc.label && q.labels > 1:
		return q.negative(dst, dns.RcodeSuccess, zone), noData // where names are below
	case !there && !r.table.exists(sc.network, name):
		return q.negative(dst, dns.RcodeNameError, zone), noName
	case q.qtype == dns.TypeANY:
		return q.minimalANY(dst, flagAA), answered
	case q.qtype == dns.TypeSRV || q.qtype == dns.TypeTXT:
		return r.data(dst, q, sc, name, zone)
	case len(as) == 0:
		return q.negative(dst, dns.RcodeSuccess, zone), noData
	}
	return q.addresses(dst, as), answered
}

// data answers with what a name has besides addresses.
func (r resolver) data(dst []byte, q *query, sc scope, name string, zone int) ([]byte, outcome) {
	if q.qtype == dns.TypeTXT {
		if texts := r.table.texts(sc.network, name, q.mostTexts()); len(texts) > 0 {
			return q.texts(dst, texts), answered
		}
	} else if targets := r.table.services(sc.network, name, q.mostServices(r.domain)); len(targets) > 0 {
		return q.services(dst, targets, r.domain), answered
	}
	return q.negative(dst, dns.RcodeSuccess, zone), noData
}

// mostAddresses is more addresses than an answer has room for.
func (q *query) mostAddresses() int { return q.limit/(rrLen+4) + 1 }

func hasType(a netip.Addr, qtype uint16) bool {
	return a.Is4() && qtype == dns.TypeA || a.Is6() && qtype == dns.TypeAAAA
}

// reverse answers for an address, or a zone of addresses, that lies in the subnet zone.
func (r resolver) reverse(dst []byte, q *query, sc scope, p, zone netip.Prefix) ([]byte, outcome) {
	labels := 2 + zone.Bits()/8
	if zone.Addr().Is6() {
		labels = 2 + zone.Bits()/4
	}
	var names []string
	if p.IsSingleIP() && q.labels == addressLabels(p) {
		for _, rec := range r.table.Reverse(p.Addr()) {
			if rec.Network == sc.network {
				names = append(names, rec.Name+"."+r.domain+".")
			}
		}
		names = slices.Compact(names) // they are in order
	}
	each := 8 // bits a label
	if p.Addr().Is6() {
		each = 4
	}
	switch {
	case len(names) == 0 && (p.IsSingleIP() || q.labels > 2+p.Bits()/each):
		return q.negative(dst, dns.RcodeNameError, labels), noName
	case len(names) == 0:
		return q.negative(dst, dns.RcodeSuccess, labels), noData
	case q.qtype == dns.TypeANY:
		return q.minimalANY(dst, flagAA), answered
	case q.qtype != dns.TypePTR:
		return q.negative(dst, dns.RcodeSuccess, labels), noData
	}
	return q.pointers(dst, names), answered
}

// addressLabels is how many labels the reverse name of one address has.
func addressLabels(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 2 + 4
	}
	return 2 + 32
}

// covers reports whether all of p lies in z.
func covers(z, p netip.Prefix) bool { return p.Bits() >= z.Bits() && z.Contains(p.Addr()) }

// reverseZone reads the prefix that a name in in-addr.arpa or ip6.arpa stands
// for: that of as many numbers as there are, from the right. Labels before them
// belong to the zone.
func reverseZone(name string) (netip.Prefix, bool) {
	if rest, ok := cutSuffix(name, "in-addr.arpa"); ok {
		return reverse4(rest)
	}
	if rest, ok := cutSuffix(name, "ip6.arpa"); ok {
		return reverse6(rest)
	}
	return netip.Prefix{}, false
}

func reverse4(rest string) (netip.Prefix, bool) {
	var a [4]byte
	n := 0
	for more := true; more && n < 4; n++ {
		var label string
		rest, label, more = cutLast(rest)
		v, err := strconv.ParseUint(label, 10, 8)
		if err != nil || label[0] == '0' && label != "0" {
			break
		}
		a[n] = byte(v)
	}
	return netip.PrefixFrom(netip.AddrFrom4(a), 8*n), n > 0
}

func reverse6(rest string) (netip.Prefix, bool) {
	var a [16]byte
	n := 0
	for more := true; more && n < 32; n++ {
		var label string
		rest, label, more = cutLast(rest)
		v, err := strconv.ParseUint(label, 16, 4)
		if err != nil || len(label) != 1 {
			break
		}
		a[n/2] |= byte(v) << (4 * (1 - n%2))
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), 4*n), n > 0
}

// cutLast cuts the last label off; more says whether there are others before it.
func cutLast(s string) (rest, label string, more bool) {
	if i := strings.LastIndexByte(s, '.'); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return "", s, false
}
