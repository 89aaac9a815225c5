package names

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// forwardBudget is how long a client waits for somebody else's answer, since its query
	// was read, and how long that is looked for, since it was begun.
	forwardBudget = 2 * time.Second
	// maxUpstreams is how many upstreams one query is put to.
	maxUpstreams = 3
	// upstreamRead is the longest answer by UDP that is read.
	upstreamRead = 4096
	// maxForged is how many messages that are no answer to it one query by UDP bears.
	// Who sends more of them is guessing, and is left with none of 65536 ids but these:
	// the query is put by TCP.
	maxForged = 100
)

var (
	errNoUpstream = errors.New("no upstream resolver is known")
	errNotUsable  = errors.New("the upstream resolver could not answer")
	errForged     = errors.New("somebody forges answers of the upstream resolver")
	errPanicked   = errors.New("the search for an answer ended in a panic")
)

// dialer opens connections to upstreams, as *net.Dialer does.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// forwarder puts queries to upstreams.
type forwarder struct {
	dialer
	counts *upstreamCounts
}

// exchange asks the upstreams in turn until one has an answer, at most for
// forwardBudget, and returns it as it came. A single upstream is asked twice. Each
// question goes out under a fresh random id and from a fresh port, which sent is told;
// an answer that does not fit is not looked at further, and the right one awaited.
func (f forwarder) exchange(ctx context.Context, q *query, upstreams []netip.AddrPort, sent func(stamp)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, forwardBudget)
	defer cancel()
	if len(upstreams) == 1 {
		upstreams = append(upstreams[:1:1], upstreams[0])
	}
	upstreams = upstreams[:min(len(upstreams), maxUpstreams)]
	err := errNoUpstream
	for i, up := range upstreams {
		begin := time.Now()
		var answer []byte
		answer, err = f.attempt(ctx, q, up, len(upstreams)-i, sent)
		f.counts.note(up, time.Since(begin), err)
		if err == nil {
			return answer, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// attempt puts the question to one upstream, for its share of what is left of the time.
func (f forwarder) attempt(ctx context.Context, q *query, up netip.AddrPort, left int, sent func(stamp)) ([]byte, error) {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
	defer cancel()
	answer, err := f.ask(ctx, q, up, true, sent)
	if err == nil && q.knowsNoOPT(answer) {
		answer, err = f.ask(ctx, q, up, false, sent)
	}
	if err != nil {
		return nil, fmt.Errorf("upstream %v: %w", up, err)
	}
	switch q.rcodeOf(answer) {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return answer, nil
	}
	return nil, fmt.Errorf("upstream %v: %w", up, errNotUsable)
}

// ask puts the question once, by TCP if UDP does not do: however the client asked, since
// others may wait for the same answer, and not every upstream can be asked by TCP.
func (f forwarder) ask(ctx context.Context, q *query, up netip.AddrPort, edns bool, sent func(stamp)) ([]byte, error) {
	ask, err := q.upstreamQuery(edns)
	if err != nil {
		return nil, err
	}
	answer, err := f.askUDP(ctx, ask, q, up, sent)
	if err == nil && truncated(answer) || errors.Is(err, errForged) {
		if whole, tcpErr := f.askTCP(ctx, ask, q, up, sent); tcpErr == nil {
			answer, err = whole, nil
		} else if answer == nil {
			err = tcpErr
		}
	}
	return answer, err
}

// knowsNoOPT reports whether an answer is what a server says to an OPT record that it
// does not know, or not in that version: RFC 6891, 6.1.3 and 7.
func (q *query) knowsNoOPT(answer []byte) bool {
	switch q.rcodeOf(answer) {
	case dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeBadVers:
		return true
	}
	return false
}

// rcodeOf is the answer's code, with the bits of it that an OPT record has.
func (q *query) rcodeOf(answer []byte) int {
	code := int(answer[3] & 0xf)
	if off := q.findOPT(answer); off > 0 {
		code |= int(answer[off+5]) << 4
	}
	return code
}

// upstreamQuery is q as we ask it: under an id of our own, with our own offer of
// size, and of the client's wishes only those about recursion and DNSSEC. Without
// EDNS there is neither an offer nor DNSSEC.
func (q *query) upstreamQuery(edns bool) ([]byte, error) {
	b := make([]byte, headerLen, headerLen+len(q.question)+optLen)
	if _, err := rand.Read(b[:2]); err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(b[2:], q.flags&(flagRD|flagAD|flagCD))
	b[5] = 1 // one question
	b = append(b, q.question...)
	if !edns {
		return b, nil
	}
	b[11] = 1 // one additional record
	b = append(b, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, 0, 0, 0, 0, 0, 0)
	if q.do {
		b[len(b)-4] = 0x80
	}
	return b, nil
}

func truncated(b []byte) bool { return b[2]&(flagTC>>8) != 0 }

// dialled opens a connection that lives no longer than ctx, for that query.
func (f forwarder) dialled(ctx context.Context, network string, ask []byte, up netip.AddrPort, sent func(stamp)) (net.Conn, func(), error) {
	c, err := f.DialContext(ctx, network, up.String())
	if err != nil {
		return nil, nil, err
	}
	if local, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		sent(stamp{binary.BigEndian.Uint16(ask), local.Port()})
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return c, func() { stop(); c.Close() }, nil
}

func (f forwarder) askUDP(ctx context.Context, ask []byte, q *query, up netip.AddrPort, sent func(stamp)) ([]byte, error) {
	c, hangUp, err := f.dialled(ctx, "udp", ask, up, sent)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	if _, err := c.Write(ask); err != nil {
		return nil, err
	}
	buf := make([]byte, upstreamRead)
	for range maxForged {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if msg := q.completed(buf[:n]); q.answeredBy(ask, msg) {
			if truncated(msg) {
				return q.stub(msg), nil
			}
			if q.wellFormed(msg) {
				return msg, nil
			}
		}
	}
	return nil, errForged
}

func (f forwarder) askTCP(ctx context.Context, ask []byte, q *query, up netip.AddrPort, sent func(stamp)) ([]byte, error) {
	c, hangUp, err := f.dialled(ctx, "tcp", ask, up, sent)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(ask))), ask...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, answer); err != nil {
		return nil, err
	}
	if answer = q.completed(answer); !q.answeredBy(ask, answer) || !q.wellFormed(answer) {
		return nil, errNotUsable
	}
	return answer, nil
}

// completed gives a header alone the question that it lacks: that is how servers tell that
// they cannot read a query. Of one that tells more nobody knows what it is about.
func (q *query) completed(msg []byte) []byte {
	if len(msg) != headerLen || [8]byte(msg[4:]) != [8]byte{} {
		return msg
	}
	switch msg[3] & 0xf {
	case dns.RcodeFormatError, dns.RcodeNotImplemented:
		msg = append(msg, q.question...)
		msg[5] = 1
	}
	return msg
}

// answeredBy reports whether a message answers the question that was sent as ask:
// same id, same question.
func (q *query) answeredBy(ask, msg []byte) bool {
	if len(msg) < headerLen+len(q.question) || !bytes.Equal(msg[:2], ask[:2]) {
		return false
	}
	flags, questions := binary.BigEndian.Uint16(msg[2:]), binary.BigEndian.Uint16(msg[4:])
	if flags&flagQR == 0 || flags>>11&0xf != dns.OpcodeQuery || questions != 1 {
		return false
	}
	return sameQuestion(msg[headerLen:headerLen+len(q.question)], q.question)
}

// sameQuestion compares without regard to case. Lengths of labels are no letters;
// type and class are compared as they are. A dot is a dot: by lower it would be the
// name's end.
func sameQuestion(a, b []byte) bool {
	for i := range len(b) - 4 {
		if fold(a[i]) != fold(b[i]) {
			return false
		}
	}
	return bytes.Equal(a[len(b)-4:], b[len(b)-4:])
}

// stub is what may be trusted of a truncated answer: that it is one.
func (q *query) stub(msg []byte) []byte {
	clear(msg[answers:headerLen])
	return msg[:headerLen+len(q.question)]
}

// wellFormed reports whether the message has as many records as it says, and nothing behind them.
func (q *query) wellFormed(msg []byte) bool {
	b := msg[headerLen+len(q.question):]
	records := 0
	for off := answers; off < headerLen; off += 2 {
		records += int(binary.BigEndian.Uint16(msg[off:]))
	}
	for range records {
		_, n := readRR(b)
		if n == 0 {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

// adopt makes an upstream's answer, which answeredBy has accepted, one of ours to
// q: with q's id and spelling, and no longer than q's client can take.
func (q *query) adopt(msg []byte) []byte {
	flags := binary.BigEndian.Uint16(msg[2:])
	blocked := flags&flagBlocked != 0
	flags = flags&^(flagAA|flagRD|flagBlocked) | flagRA | q.flags&flagRD
	binary.BigEndian.PutUint16(msg, q.id)
	binary.BigEndian.PutUint16(msg[2:], flags)
	copy(msg[headerLen:], q.question)
	msg = q.fitOPT(msg)
	if blocked {
		msg = q.explain(msg, dns.ExtendedErrorCodeBlocked)
	}
	if len(msg) <= q.limit {
		return msg
	}
	short := q.begin(nil, int(flags&0xf), flagTC|flags&flagAD)
	return q.opt(short, 0)
}

// fitOPT sees to it that there is an OPT record if and only if the client sent one, and
// that it is ours: what else the upstream's says is between that and us.
func (q *query) fitOPT(msg []byte) []byte {
	msg = q.withoutOPT(msg)
	if off := q.findOPT(msg); q.edns && off > 0 {
		binary.BigEndian.PutUint16(msg[off+3:], maxUDP)
		return msg
	}
	return q.opt(msg, 0)
}

// withoutOPT takes the OPT record away. Upstreams put it last; elsewhere it stays,
// which every client passes over.
func (q *query) withoutOPT(msg []byte) []byte {
	off := q.findOPT(msg)
	if off == 0 {
		return msg
	}
	if _, n := readRR(msg[off:]); off+n == len(msg) {
		binary.BigEndian.PutUint16(msg[10:], binary.BigEndian.Uint16(msg[10:])-1)
		return msg[:off]
	}
	return msg
}

// findOPT gives the offset of the OPT record in a well-formed message; 0: there is none.
func (q *query) findOPT(msg []byte) int {
	additional := int(binary.BigEndian.Uint16(msg[10:]))
	before := int(binary.BigEndian.Uint16(msg[answers:])) + int(binary.BigEndian.Uint16(msg[authority:]))
	off := headerLen + len(q.question)
	for i := range before + additional {
		r, n := readRR(msg[off:])
		if n == 0 {
			return 0
		}
		if i >= before && r.rtype == dns.TypeOPT && r.nameLen == 1 {
			return off
		}
		off += n
	}
	return 0
}
