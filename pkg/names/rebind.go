package names

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

// flagBlocked marks a message of ours, never one on the wire, out of which the filter has
// taken records. It is the header's reserved bit.
const flagBlocked = 1 << 6

// rebindFilter takes out of answers of others the addresses that no name of others has
// business with: a web page whose name leads to one of them would have its reader's
// browser, or a server that fetches for it, ask there as if that were the page's own.
type rebindFilter struct {
	on      bool
	ok      []string // domains below which all may be, as ValidName has them
	blocked atomic.Uint64
}

// clean gives an upstream's answer to q, which is well-formed, as it may be handed on.
// zones are the subnets of our networks.
func (f *rebindFilter) clean(q *query, msg []byte, zones []netip.Prefix) ([]byte, error) {
	msg[3] &^= flagBlocked
	if !f.on || f.allowed(q.name) || !q.leadsInside(msg, zones) {
		return msg, nil
	}
	f.blocked.Add(1)
	return q.withoutInside(msg, zones)
}

// allowed goes by the name that was asked for. By that of the record, any name could lead
// inside by way of an alias of one that may.
func (f *rebindFilter) allowed(name string) bool {
	return slices.ContainsFunc(f.ok, func(d string) bool { return name == d || strings.HasSuffix(name, "."+d) })
}

// leadsInside reports whether a message has a record, in whatever section, with an address
// that is inside.
func (q *query) leadsInside(msg []byte, zones []netip.Prefix) (found bool) {
	q.eachRecord(msg, func(_ int, r rr, rest []byte) {
		found = found || slices.ContainsFunc(addressesIn(r.rtype, rest[10:]), func(a netip.Addr) bool { return isInner(a, zones) })
	})
	return found
}

// Hints of addresses in SVCB and HTTPS records (RFC 9460), which browsers go by.
const (
	hint4 = 4
	hint6 = 6
)

// addressesIn are the addresses in a record's data.
func addressesIn(rtype uint16, data []byte) []netip.Addr {
	switch rtype {
	case dns.TypeA:
		return sliced(data, 4)
	case dns.TypeAAAA:
		return sliced(data, 16)
	case dns.TypeSVCB, dns.TypeHTTPS:
		return hints(data)
	}
	return nil
}

func sliced(data []byte, size int) (out []netip.Addr) {
	for ; len(data) >= size; data = data[size:] {
		a, _ := netip.AddrFromSlice(data[:size])
		out = append(out, a)
	}
	return out
}

func hints(data []byte) (out []netip.Addr) {
	if len(data) < 2 {
		return nil
	}
	n := skipName(data[2:])
	if n == 0 {
		return nil
	}
	for data = data[2+n:]; len(data) >= 4; {
		key, size := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
		data = data[4:]
		value := data[:min(size, len(data))]
		switch key {
		case hint4:
			out = append(out, sliced(value, 4)...)
		case hint6:
			out = append(out, sliced(value, 16)...)
		}
		data = data[len(value):]
	}
	return out
}

// Addresses that are inside besides the private ones of RFC 1918 and RFC 4193.
var (
	carriers    = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")     // 0.0.0.0 is the host itself
)

// isInner reports whether an address is one of our networks, of somebody's own, or of the
// client itself.
func isInner(a netip.Addr, zones []netip.Prefix) bool {
	a = a.Unmap()
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || carriers.Contains(a) || thisNetwork.Contains(a) ||
		slices.ContainsFunc(zones, func(z netip.Prefix) bool { return z.Contains(a) })
}

// withoutInside writes a message anew without those records, and without the signatures of
// what is not whole any more. What it cannot do that with is of no use.
func (q *query) withoutInside(msg []byte, zones []netip.Prefix) ([]byte, error) {
	var m dns.Msg
	if err := m.Unpack(msg); err != nil {
		return nil, errNotUsable
	}
	for _, section := range []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra} {
		*section = slices.DeleteFunc(*section, func(r dns.RR) bool { return hasInner(r, zones) })
	}
	m.AuthenticatedData, m.Compress = false, true
	out, err := m.Pack()
	if err != nil || len(out) < headerLen+len(q.question) || q.leadsInside(out, zones) {
		return nil, errNotUsable
	}
	out[3] |= flagBlocked
	return out, nil
}

func hasInner(r dns.RR, zones []netip.Prefix) bool {
	if sig, ok := r.(*dns.RRSIG); ok {
		return slices.Contains([]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSVCB, dns.TypeHTTPS}, sig.TypeCovered)
	}
	data := make([]byte, dns.Len(r)+1)
	n, err := dns.PackRR(r, data, 0, nil, false)
	if err != nil {
		return true
	}
	frame, size := readRR(data[:n])
	if size == 0 {
		return true
	}
	return slices.ContainsFunc(addressesIn(frame.rtype, data[frame.nameLen+10:size]), func(a netip.Addr) bool { return isInner(a, zones) })
}

// explain says in an answer's OPT record, if that is the last, why something is not there
// (RFC 8914).
func (q *query) explain(msg []byte, code uint16) []byte {
	if off := q.findOPT(msg); off == 0 || off+optLen != len(msg) {
		return msg
	}
	msg[len(msg)-1] = 6
	msg = binary.BigEndian.AppendUint16(msg, dns.EDNS0EDE)
	msg = binary.BigEndian.AppendUint16(msg, 2)
	return binary.BigEndian.AppendUint16(msg, code)
}
