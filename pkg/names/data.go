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
)

// Limits on what one owner has besides its names: what is above them is left out.
const (
	maxServices = 32
	maxTexts    = 16
	// MaxText is the longest text, in bytes: what one string of DNS holds.
	MaxText = 255
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

// datum is a service or a text under one name.
type datum struct {
	nameKey
	owner *owned
	place int // in Table.data
	port  uint16
	text  string // of a text; then there is no port
}

// answers reports whether the datum is to be answered: as long as its owner has an
// address that is.
func (d *datum) answers() bool { return slices.ContainsFunc(d.owner.items, (*item).answers) }

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
	data := s.data(items)
	if slices.ContainsFunc(data, func(d *datum) bool { return d.port != 0 }) {
		items = append(items, targets(items)...)
	}
	t.put(owner, items, data)
}

// data are the services and texts under each of the names that are usable.
func (s Set) data(items []*item) (out []*datum) {
	seen := map[string]bool{"": true}
	for _, it := range items {
		if seen[it.Name] {
			continue
		}
		seen[it.Name] = true
		n := 0
		for _, x := range s.Services {
			x, err := x.valid()
			name := "_" + x.Name + "._" + x.Proto + "." + it.Name
			if err != nil || len(name) > maxName || n == maxServices {
				continue
			}
			n++
			out = append(out, &datum{nameKey: nameKey{s.Network, name}, port: x.Port})
		}
		n = 0
		for _, x := range s.Texts {
			if x == "" || len(x) > MaxText || n == maxTexts {
				continue
			}
			n++
			out = append(out, &datum{nameKey: nameKey{s.Network, it.Name}, text: x})
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

func (t *Table) insertDatum(d *datum) {
	d.place = len(t.data[d.nameKey])
	t.data[d.nameKey] = append(t.data[d.nameKey], d)
	t.count(d.nameKey, 1)
}

func (t *Table) removeDatum(d *datum) {
	same := t.data[d.nameKey]
	last := same[len(same)-1]
	same[d.place], last.place = last, d.place
	same[len(same)-1] = nil
	if t.data[d.nameKey] = same[:len(same)-1]; len(same) == 1 {
		delete(t.data, d.nameKey)
	}
	t.count(d.nameKey, -1)
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
	t.mu.RLock()
	defer t.mu.RUnlock()
	type port struct {
		name string
		port uint16
	}
	data, first := t.data[nameKey{network, name}], 0
	if len(data) > most {
		first = rand.IntN(len(data))
	}
	seen := make(map[port]bool, min(len(data), most))
	for i := range data {
		d := data[(first+i)%len(data)]
		if len(out) == most {
			break
		}
		if d.port == 0 || !d.answers() {
			continue
		}
		x := target{name: t.ownName(d.owner), port: d.port}
		if seen[port{x.name, x.port}] {
			continue
		}
		seen[port{x.name, x.port}] = true
		for _, it := range d.owner.items {
			if it.answers() && !slices.Contains(x.addrs, it.Addr) {
				x.addrs = append(x.addrs, it.Addr)
			}
		}
		out = append(out, x)
	}
	return out
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

// texts are those of a name, each once, in order.
func (t *Table) texts(network, name string) (out []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, d := range t.data[nameKey{network, name}] {
		if d.port == 0 && d.answers() {
			out = append(out, d.text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// isService reports whether a name begins like that of a service.
func isService(name string) bool {
	service, rest, ok := strings.Cut(name, ".")
	return ok && strings.HasPrefix(service, "_") && slices.ContainsFunc(protocols[:], func(p string) bool { return strings.HasPrefix(rest, "_"+p+".") })
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
