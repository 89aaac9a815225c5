package names

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/weave-cni/weave-cni/pkg/endpoint"
)

// Limits on what one owner has besides its names: what is above them is left out.
const (
	MaxServices = endpoint.MaxServices
	MaxTexts    = endpoint.MaxTexts
	// MaxText is the longest text, in bytes: what one string of DNS holds.
	MaxText = endpoint.MaxTXT
)

// Service is a port that an owner offers: _NAME._PROTO.HOST in DNS.
type Service struct {
	Name  string // without '_': "http"
	Proto string // "tcp", "udp" or "sctp"
	Port  uint16
}

// ValidService brings a service into the form that DNS knows it by, or says in words
// fit for a user what is wrong with it.
func ValidService(s Service) (Service, error) { return s.valid() }

// Set is all that one owner has.
type Set struct {
	Network  string
	Host     string
	Names    []string
	Addrs    []netip.Addr
	Services []Service // of each of the names
	Texts    []string  // likewise
	ByHand   bool
}

// PutSet gives an owner all this and nothing else. What no query could ever name is
// passed over, like what is above a limit. A set without names says only whose the
// addresses are.
func (t *Table) PutSet(owner string, s Set) {
	var records []Record
	names := s.Names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		for _, a := range s.Addrs {
			records = append(records, Record{Name: n, Network: s.Network, Host: s.Host, Addr: a, ByHand: s.ByHand})
		}
	}
	items := usable(records)
	if len(items) == 0 && len(s.Names) > 0 && !s.ByHand { // none of its names is one: its addresses are its own all the same
		t.PutSet(owner, Set{Network: s.Network, Host: s.Host, Addrs: s.Addrs})
		return
	}
	services := s.services()
	if len(services) > 0 && slices.ContainsFunc(items, func(it *item) bool { return it.Name != "" }) {
		items = append(items, targets(items)...)
	}
	t.put(&owned{owner, items, services, s.texts()})
}

// services are those that are usable.
func (s Set) services() (out []Service) {
	for _, x := range s.Services {
		if x, err := x.valid(); err == nil && len(out) < MaxServices {
			out = append(out, x)
		}
	}
	return out
}

// texts are those that are usable.
func (s Set) texts() (out []string) {
	for _, x := range s.Texts {
		if x != "" && len(x) <= MaxText && len(out) < MaxTexts {
			out = append(out, x)
		}
	}
	return out
}

// targets are the owner's addresses again, under a name that no other owner has: what a
// service leads to where all the names of its owner are others' too.
func targets(items []*item) (out []*item) {
	seen := map[netip.Addr]bool{}
	for _, it := range items {
		if seen[it.Addr] {
			continue
		}
		seen[it.Addr] = true
		r := it.Record
		r.Name = targetName(items[0].Record)
		out = append(out, &item{Record: r, hidden: true})
	}
	return out
}

// targetName is made of an owner's first address, which it alone has.
func targetName(r Record) string {
	h := sha256.Sum256([]byte(r.Network + "\x00" + r.Addr.String()))
	return "ep-" + strings.ToLower(base32.HexEncoding.EncodeToString(h[:10]))
}

// target is where a service is had.
type target struct {
	name  string // relative to the domain
	port  uint16
	addrs []netip.Addr
}

// services are the targets of a name like "_http._tcp.web", each once, and at most so
// many: where there are more, as many one after the other as the table has them, from any
// on. A query for a name of a thousand containers so costs what its answer can hold.
func (t *Table) services(network, name string, most int) (out []target) {
	service, proto, host, _ := cutService(name)
	t.mu.RLock()
	defer t.mu.RUnlock()
	type port struct {
		name string
		port uint16
	}
	items := t.names[nameKey{network, host}]
	seen := make(map[port]bool, min(len(items), most))
	first := anyPlace(items, most)
	for i := range items {
		it := items[(first+i)%len(items)]
		if !it.answers() || !it.offers(service, proto) {
			continue
		}
		x := target{name: t.ownName(it.owner)}
		for _, i := range it.owner.items {
			if i.answers() && !slices.Contains(x.addrs, i.Addr) {
				x.addrs = append(x.addrs, i.Addr)
			}
		}
		for _, s := range it.owner.services {
			if x.port = s.Port; s.Name != service || s.Proto != proto || seen[port{x.name, x.port}] {
				continue
			}
			if len(out) == most {
				return out
			}
			seen[port{x.name, x.port}] = true
			out = append(out, x)
		}
	}
	return out
}

// anyPlace is where to begin with items of which at most so many are wanted.
func anyPlace(items []*item, most int) int {
	if len(items) <= most {
		return 0
	}
	return rand.IntN(len(items))
}

// offers reports whether an item's owner has such a service; "" is any of the protocol.
func (it *item) offers(service, proto string) bool {
	return slices.ContainsFunc(it.owner.services, func(s Service) bool { return s.Proto == proto && (service == "" || s.Name == service) })
}

// offered reports whether a name is one of services, or has such names below it. t.mu is held.
func (t *Table) offered(network, name string) bool {
	has := func(service, proto, host string) bool {
		return slices.ContainsFunc(t.names[nameKey{network, host}], func(it *item) bool { return it.answers() && it.offers(service, proto) })
	}
	if proto, host, ok := cutProto(name); ok && has("", proto, host) {
		return true
	}
	service, proto, host, ok := cutService(name)
	return ok && has(service, proto, host)
}

// mostServices is more services than an answer has room for, whose shortest target is
// "x.DOMAIN.": four bytes more than the domain.
func (q *query) mostServices(domain string) int {
	return q.limit/(rrLen+6+4+len(domain)) + 1
}

// ownName is an owner's best name that no other owner has. There always is one, since
// whoever has a service has a hidden one too.
func (t *Table) ownName(o *owned) string {
	i := slices.IndexFunc(o.items, func(it *item) bool {
		return it.answers() && !slices.ContainsFunc(t.names[nameKey{it.Network, it.Name}], func(x *item) bool { return x.answers() && x.owner != o })
	})
	if i < 0 {
		return o.items[len(o.items)-1].Name
	}
	return o.items[i].Name
}

// texts are those of a name, each once, and at most so many: see services.
func (t *Table) texts(network, name string, most int) (out []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	items := t.names[nameKey{network, name}]
	seen := make(map[string]bool, min(len(items), most))
	var last []string
	first := anyPlace(items, most)
	for i := range items {
		it := items[(first+i)%len(items)]
		if !it.answers() || slices.Equal(it.owner.texts, last) {
			continue // most replicas have the same
		}
		last = it.owner.texts
		for _, x := range last {
			if seen[x] {
				continue
			}
			if len(out) == most {
				return out
			}
			seen[x] = true
			out = append(out, x)
		}
	}
	return out
}

// mostTexts is more texts than an answer has room for, of which the shortest is one byte.
func (q *query) mostTexts() int { return q.limit/(rrLen+2) + 1 }

// isService reports whether a name begins like that of a service.
func isService(name string) bool {
	_, _, _, ok := cutService(name)
	return ok
}

// cutService takes "_http._tcp.web" apart.
func cutService(name string) (service, proto, host string, ok bool) {
	first, rest, ok := strings.Cut(name, ".")
	if !ok || !strings.HasPrefix(first, "_") {
		return "", "", "", false
	}
	proto, host, ok = cutProto(rest)
	return first[1:], proto, host, ok
}

// cutProto takes "_tcp.web" apart.
func cutProto(name string) (proto, host string, ok bool) {
	first, host, ok := strings.Cut(name, ".")
	proto, marked := strings.CutPrefix(first, "_")
	return proto, host, ok && marked && slices.Contains(protocols[:], proto)
}

// texts answers with as many texts as fit.
func (q *query) texts(dst []byte, texts []string) []byte {
	b := q.begin(dst, dns.RcodeSuccess, flagAA)
	for _, s := range texts {
		if q.room(b) < rrLen+1+len(s) {
			b[2] |= flagTC >> 8
			break
		}
		b = record(b, answers, 0, dns.TypeTXT, append([]byte{byte(len(s))}, s...)...)
	}
	return q.opt(b, dns.RcodeSuccess)
}

const additional = 10 // offset of that section's count in the header

// services answers with as many services as fit, shuffled, and with the addresses of
// their targets where there is room left.
func (q *query) services(dst []byte, targets []target, domain string) []byte {
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	b := q.begin(dst, dns.RcodeSuccess, flagAA)
	offsets := make([]int, 0, len(targets)) // of the targets' names, behind the header
	for _, t := range targets {
		data := make([]byte, 6, 6+256) // priority and weight 0
		binary.BigEndian.PutUint16(data[4:], t.port)
		n, err := dns.PackDomainName(t.name+"."+domain+".", data[6:cap(data)], 0, nil, false)
		if err != nil || q.room(b) < rrLen+6+n {
			b[2] |= flagTC >> 8
			break
		}
		b = record(b, answers, 0, dns.TypeSRV, data[:6+n]...)
		offsets = append(offsets, len(b)-n-headerLen)
	}
	for i, off := range offsets {
		for _, a := range targets[i].addrs {
			if q.room(b) < rrLen+a.BitLen()/8 || off+headerLen >= 1<<14 {
				break
			}
			rtype := dns.TypeA
			if a.Is6() {
				rtype = dns.TypeAAAA
			}
			b = record(b, additional, off, rtype, a.AsSlice()...)
		}
	}
	return q.opt(b, dns.RcodeSuccess)
}
