package names

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	headerLen = 12
	optLen    = 11
	rrLen     = 12 // a record's fixed part with a pointer for its name

	// maxUDP is the largest answer by UDP, whatever the client offers: it fits
	// into any IPv6 path's packet.
	maxUDP = 1232
	// plainUDP is the largest answer by UDP to a client without EDNS.
	plainUDP = 512
	// maxQuery is the longest query that is read at all.
	maxQuery = 2048

	ttl = 1 // second, of all that is ours
)

// Bits of the header's flags.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagAD = 1 << 5
	flagCD = 1 << 4
)

// query is what matters of a well-formed query.
type query struct {
	begun     time.Time // when it was read
	id, flags uint16
	question  []byte // name, type and class, a part of the message
	name      string // lower-case, no trailing dot, "" for the root; a dot inside a label shows as NUL
	qtype     uint16
	labels    int
	offsets   [128]uint8 // of each label in question

	edns    bool
	do      bool // DNSSEC records are wanted
	version uint8
	offer   int // the longest answer by UDP that an EDNS client takes, in bytes
	limit   int // the longest that it gets
}

// parse takes a query apart. When it is not a query that can be served, rcode is
// what to answer; silent is to answer nothing at all, so that no answer of
// anybody's is ever answered.
func (q *query) parse(msg []byte, tcp bool) (rcode int, silent bool) {
	if len(msg) < headerLen {
		return 0, true
	}
	q.id, q.flags = binary.BigEndian.Uint16(msg), binary.BigEndian.Uint16(msg[2:])
	if q.flags&flagQR != 0 {
		return 0, true
	}
	if q.flags>>11&0xf != dns.OpcodeQuery {
		return dns.RcodeNotImplemented, false
	}
	count := func(i int) uint16 { return binary.BigEndian.Uint16(msg[4+2*i:]) }
	if count(0) != 1 || count(1) != 0 || count(2) != 0 || count(3) > 2 {
		return dns.RcodeFormatError, false
	}
	if !q.parseQuestion(msg[headerLen:]) || !q.parseAdditional(msg[headerLen+len(q.question):], int(count(3))) {
		return dns.RcodeFormatError, false
	}
	q.limit = q.size(tcp)
	if class := binary.BigEndian.Uint16(q.question[len(q.question)-2:]); class != dns.ClassINET {
		return dns.RcodeRefused, false
	}
	return dns.RcodeSuccess, false
}

// size bounds the answer.
func (q *query) size(tcp bool) int {
	switch {
	case tcp:
		return dns.MaxMsgSize - 1
	case q.edns:
		return min(max(q.offer, plainUDP), maxUDP)
	}
	return plainUDP
}

// parseQuestion reads the name, in which no pointer makes sense, type and class.
func (q *query) parseQuestion(b []byte) bool {
	var name [255]byte
	n, off := 0, 0
	for {
		if off >= len(b) {
			return false
		}
		l := int(b[off])
		if l == 0 {
			break
		}
		if l > maxLabel || off+1+l >= len(b) || off+1+l > 254 {
			return false
		}
		if n > 0 {
			name[n] = '.'
			n++
		}
		q.offsets[q.labels] = uint8(off)
		q.labels++
		for _, c := range b[off+1 : off+1+l] {
			name[n] = lower(c)
			n++
		}
		off += 1 + l
	}
	if len(b) < off+5 {
		return false
	}
	q.question, q.name = b[:off+5], string(name[:n])
	q.qtype = binary.BigEndian.Uint16(b[off+1:])
	return true
}

// fold makes one letter of the two cases.
func fold(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// lower folds case and keeps dots that are no separators apart from those that are.
func lower(c byte) byte {
	if c == '.' {
		return 0
	}
	return fold(c)
}

// parseAdditional looks for the OPT record in a query's last section.
func (q *query) parseAdditional(b []byte, count int) bool {
	for range count {
		rr, n := readRR(b)
		if n == 0 {
			return false
		}
		if rr.rtype == dns.TypeOPT {
			if q.edns || rr.nameLen != 1 {
				return false
			}
			q.edns, q.offer, q.version = true, int(rr.class), uint8(rr.ttl>>16)
			q.do = rr.ttl&(1<<15) != 0
		}
		b = b[n:]
	}
	return true
}

// rr is a resource record's frame.
type rr struct {
	nameLen      int
	rtype, class uint16
	ttl          uint32
}

// readRR reads the frame of the record that b begins with and its length; 0 when
// b holds no whole record.
func readRR(b []byte) (r rr, n int) {
	off := skipName(b)
	if off == 0 || len(b) < off+10 {
		return rr{}, 0
	}
	r = rr{off, binary.BigEndian.Uint16(b[off:]), binary.BigEndian.Uint16(b[off+2:]), binary.BigEndian.Uint32(b[off+4:])}
	n = off + 10 + int(binary.BigEndian.Uint16(b[off+8:]))
	if n > len(b) {
		return rr{}, 0
	}
	return r, n
}

// skipName gives the length of the name that b begins with, its pointer not
// followed; 0 when there is no whole one.
func skipName(b []byte) int {
	for off := 0; off < len(b); {
		switch l := int(b[off]); {
		case l == 0:
			return off + 1
		case l >= 0xc0:
			if off+2 > len(b) {
				return 0
			}
			return off + 2
		case l > maxLabel:
			return 0
		default:
			off += 1 + l
		}
	}
	return 0
}

// The answers are put together by hand: each record's name is a pointer into the
// question, which the client's own bytes repeat.

// begin writes the header and the question. Records follow, then finish.
func (q *query) begin(dst []byte, rcode int, flags uint16) []byte {
	flags |= flagQR | flagRA | q.flags&(flagRD|flagCD) | uint16(rcode&0xf)
	dst = binary.BigEndian.AppendUint16(dst[:0], q.id)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	dst = append(dst, 0, 1, 0, 0, 0, 0, 0, 0)
	return append(dst, q.question...)
}

// bare is an answer of nothing but a header, to a query whose rest was not read.
func (q *query) bare(dst []byte, rcode int) []byte {
	flags := flagQR | q.flags&(0xf<<11|flagRD) | uint16(rcode)
	dst = binary.BigEndian.AppendUint16(dst[:0], q.id)
	dst = binary.BigEndian.AppendUint16(dst, flags)
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
}

// empty is an answer with a question and no records.
func (q *query) empty(dst []byte, rcode int, flags uint16) []byte {
	return q.opt(q.begin(dst, rcode, flags), rcode)
}

// opt appends the OPT record where the client sent one.
func (q *query) opt(b []byte, rcode int) []byte {
	if !q.edns {
		return b
	}
	bump(b, 10)
	b = append(b, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff)
	b = append(b, byte(rcode>>4), 0, 0, 0, 0, 0)
	if q.do {
		b[len(b)-4] = 0x80 // as it was asked: RFC 3225, 3
	}
	return b
}

// bump counts one record more in the section whose count is at off.
func bump(b []byte, off int) {
	binary.BigEndian.PutUint16(b[off:], binary.BigEndian.Uint16(b[off:])+1)
}

// record appends a record named by the part of the question that begins at off.
func record(b []byte, section, off int, rtype uint16, data ...byte) []byte {
	bump(b, section)
	b = binary.BigEndian.AppendUint16(b, uint16(0xc000|headerLen+off))
	b = binary.BigEndian.AppendUint16(b, rtype)
	b = binary.BigEndian.AppendUint16(b, dns.ClassINET)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// Offsets of the sections' counts in the header.
const (
	answers   = 6
	authority = 8
)

// room is what the answer has left for records, in bytes.
func (q *query) room(b []byte) int {
	if q.edns {
		return q.limit - len(b) - optLen
	}
	return q.limit - len(b)
}

// addresses answers with as many as fit, drawn in any order; they are all of one family.
// It reorders as.
func (q *query) addresses(dst []byte, as []netip.Addr) []byte {
	b := q.begin(dst, dns.RcodeSuccess, flagAA)
	for i := range as {
		drawn := i + rand.IntN(len(as)-i)
		as[i], as[drawn] = as[drawn], as[i]
		a := as[i]
		if q.room(b) < rrLen+a.BitLen()/8 {
			b[2] |= flagTC >> 8
			break
		}
		if a.Is4() {
			d := a.As4()
			b = record(b, answers, 0, dns.TypeA, d[:]...)
		} else {
			d := a.As16()
			b = record(b, answers, 0, dns.TypeAAAA, d[:]...)
		}
	}
	return q.opt(b, dns.RcodeSuccess)
}

// pointers answers with names, which are fully qualified.
func (q *query) pointers(dst []byte, names []string) []byte {
	b := q.begin(dst, dns.RcodeSuccess, flagAA)
	var data [256]byte
	for _, name := range names {
		n, err := dns.PackDomainName(name, data[:], 0, nil, false)
		if err != nil {
			continue
		}
		if q.room(b) < rrLen+n {
			b[2] |= flagTC >> 8
			break
		}
		b = record(b, answers, 0, dns.TypePTR, data[:n]...)
	}
	return q.opt(b, dns.RcodeSuccess)
}

// minimalANY answers a question for everything as RFC 8482 has it, with flagAA where the
// name is ours.
func (q *query) minimalANY(dst []byte, aa uint16) []byte {
	b := q.begin(dst, dns.RcodeSuccess, aa)
	b = record(b, answers, 0, dns.TypeHINFO, append([]byte{7}, "RFC8482\x00"...)...)
	return q.opt(b, dns.RcodeSuccess)
}

// soa is the start of authority of the zone made of the question's last labels.
func (q *query) soa(b []byte, section, labels int) []byte {
	off := int(q.offsets[q.labels-labels])
	p := uint16(0xc000 | headerLen + off)
	data := binary.BigEndian.AppendUint16(make([]byte, 0, 23), p) // the primary server: the zone itself
	data = append(data, 0)                                        // nobody's mailbox
	for _, seconds := range [...]uint32{1, 1, 1, 1, ttl} {        // serial, refresh, retry, expire, minimum
		data = binary.BigEndian.AppendUint32(data, seconds)
	}
	return record(b, section, off, dns.TypeSOA, data...)
}

// negative says, with authority for the zone of that many labels, that there is
// no such name or no such type.
func (q *query) negative(dst []byte, rcode, labels int) []byte {
	b := q.begin(dst, rcode, flagAA)
	return q.opt(q.soa(b, authority, labels), rcode)
}
