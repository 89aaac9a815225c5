package names

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// What the targets of the fuzzer and TestNoneOfManyPacketsDoesHarm have in common: where
// they begin, and what has to hold of each packet.

// packet is what a target is given: its bytes, and what else the target takes.
type packet struct {
	bytes  []byte
	number uint16
	flag   bool
}

// check says what is wrong with how we take a packet, if anything is; deep, that the
// packet was more than turned away. It may write into the packet's bytes. It is for one
// goroutine.
type check func(packet) (deep bool, err error)

func handleSeeds(t testing.TB) (ps []packet) {
	for _, m := range []*dns.Msg{
		question("web.", dns.TypeA), question("web.net1.weave.local.", dns.TypeAAAA), question("3.0.48.10.in-addr.arpa.", dns.TypePTR),
		question(arpa(t, "fd00:1::2"), dns.TypePTR), question("weave.local.", dns.TypeSOA), question("example.com.", dns.TypeANY),
		question(".", dns.TypeNS), question("nosuch.", dns.TypeA).SetEdns0(4096, true),
	} {
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		wire[0], wire[1] = 1, 2
		ps = append(ps, packet{bytes: wire}, packet{bytes: wire, flag: true})
	}
	for _, c := range oddQueries() {
		ps = append(ps, packet{bytes: c.msg})
	}
	return ps
}

// handleCheck has any bytes be a query: it must not panic, nor answer at greater
// length than it may, nor with something that is no answer. The flag is for TCP.
func handleCheck() check {
	r := testResolver()
	return func(p packet) (deep bool, err error) {
		var q query
		msg, tcp := p.bytes, p.flag
		out, o := r.handle(nil, msg, &q, tcp, scope{"net1", "net1"}, testZones)
		if o == forward {
			if ask, err := q.upstreamQuery(true); err != nil || new(dns.Msg).Unpack(ask) != nil {
				return true, fmt.Errorf("asks upstream %x, %v", ask, err)
			}
			return true, nil
		}
		if out == nil {
			return false, nil
		}
		deep = o != malformed
		if !tcp && len(out) > maxUDP || q.limit > 0 && len(out) > q.limit {
			return deep, fmt.Errorf("%d bytes", len(out))
		}
		if o != answered && onTheWire(out) > 2*onTheWire(msg) {
			return deep, fmt.Errorf("%d bytes are answered, %v, with %d", len(msg), o, len(out))
		}
		var m dns.Msg
		if err := m.Unpack(out); err != nil || !m.Response || !bytes.Equal(out[:2], msg[:2]) {
			return deep, fmt.Errorf("answer %x: %v", out, err)
		}
		return deep, nil
	}
}

func upstreamSeeds(t testing.TB) (ps []packet) {
	m := question("example.com.", dns.TypeA)
	m.Id = 0x0102
	for _, more := range []int{0, 2, 5} { // texts: the client may have no room for two, and has none for five
		r := new(dns.Msg).SetReply(m)
		for _, text := range append([]string{"A 198.51.100.1", "A 198.51.100.2"}, slices.Repeat([]string{"TXT " + strings.Repeat("x", 240)}, more)...) {
			rr, err := dns.NewRR("example.com. 60 IN " + text)
			if err != nil {
				t.Fatal(err)
			}
			r.Answer = append(r.Answer, rr)
		}
		e := r.Copy()
		e.SetEdns0(4096, true)
		for _, m := range []*dns.Msg{r, e} {
			wire, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			ps = append(ps, packet{bytes: wire, flag: true}, packet{bytes: wire})
		}
	}
	return ps
}

// exampleQuery is one for example.com, with its question as it goes upstream.
func exampleQuery(t testing.TB, name string, edns bool) (q *query, ask []byte) {
	m := question(name, dns.TypeA)
	if edns {
		m.SetEdns0(1232, false)
	}
	q = parsed(t, m)
	ask, err := q.upstreamQuery(true)
	if err != nil {
		t.Fatal(err)
	}
	return q, ask
}

// upstreamCheck has any bytes be an upstream's answer: what is accepted must leave us
// whole, and no longer than the client takes. The flag is for a client with EDNS.
func upstreamCheck(t testing.TB) check {
	plainQ, plainAsk := exampleQuery(t, "example.com.", false)
	ednsQ, ednsAsk := exampleQuery(t, "example.com.", true)
	return func(p packet) (deep bool, err error) {
		q, ask, msg := plainQ, plainAsk, p.bytes
		if p.flag {
			q, ask = ednsQ, ednsAsk
		}
		ask[0], ask[1] = 1, 2
		if !q.answeredBy(ask, msg) {
			return false, nil
		}
		came := bytes.Clone(msg)
		if truncated(msg) {
			msg, came = q.stub(msg), ask
		} else if !q.wellFormed(msg) {
			return false, nil
		}
		out := q.adopt(msg)
		if len(out) > q.limit || binary.BigEndian.Uint16(out) != q.id {
			return true, fmt.Errorf("%d bytes: %x", len(out), out)
		}
		if err := new(dns.Msg).Unpack(out); err != nil && whole(came) {
			return true, fmt.Errorf("%x: %w", out, err)
		}
		return true, nil
	}
}

// whole reports whether a message of an upstream is one that the client must be able to
// read: one in which no name is made of what is ours to change, as a pointer into the
// header does it, or into what RFC 1035 §4.1.4 does not know, what comes later.
func whole(msg []byte) bool {
	for i, b := range msg[1:] {
		if msg[i] == 0xc0 && b < headerLen {
			return false
		}
	}
	return new(dns.Msg).Unpack(msg) == nil && new(dns.Msg).Unpack(changed(msg)) == nil
}

// changed gives a message that the library can read without the OPT record at its end, and
// with times to live none of whose bytes can be a label's length.
func changed(msg []byte) []byte {
	out := bytes.Clone(msg)
	_, off, err := dns.UnpackDomainName(msg, headerLen)
	off += 4
	for err == nil && off < len(msg) {
		at := off
		_, name, _ := dns.UnpackDomainName(msg, at)
		var record dns.RR
		if record, off, err = dns.UnpackRR(msg, at); err != nil {
			break
		}
		copy(out[name+4:], "@@@@")
		if off == len(msg) && record.Header().Rrtype == dns.TypeOPT {
			binary.BigEndian.PutUint16(out[10:], binary.BigEndian.Uint16(out[10:])-1)
			out = out[:at]
		}
	}
	return out
}

func cacheSeeds(t testing.TB) (ps []packet) {
	m := question("example.com.", dns.TypeA)
	m.Id = 0x0102
	for _, records := range [][]string{
		{"example.com. 60 IN A 192.0.2.1"}, {"example.com. 60 IN CNAME www.example.com.", "www.example.com. 60 IN A 192.0.2.1"},
		{"example.com. 60 IN SOA ns.example.com. root.example.com. 1 2 3 4 5"},
	} {
		ps = append(ps,
			packet{bytes: reply(t, m, 0, records...), number: 10, flag: true},
			packet{bytes: reply(t, m, dns.RcodeNameError, records...)})
	}
	return ps
}

// cacheCheck keeps whatever an upstream may say, and answers with it some seconds later,
// the number; the flag is for a client with EDNS.
func cacheCheck(t testing.TB) check {
	plainQ, plainAsk := exampleQuery(t, "eXample.com.", false)
	ednsQ, ednsAsk := exampleQuery(t, "eXample.com.", true)
	return func(p packet) (deep bool, err error) {
		q, ask, msg := plainQ, plainAsk, p.bytes
		if p.flag {
			q, ask = ednsQ, ednsAsk
		}
		if len(msg) < headerLen {
			return false, nil
		}
		copy(ask, msg[:2])
		if !q.answeredBy(ask, msg) || truncated(msg) || !q.wellFormed(msg) {
			return false, nil
		}
		cache, now := newCache(), time.Now()
		key := q.forwardKey(nil, upstreamSet{})
		cache.put(key, q, msg, now)
		out := cache.answer(nil, key, q, now.Add(time.Duration(p.number)*time.Second))
		if out == nil {
			return true, nil
		}
		if len(out) > q.limit || binary.BigEndian.Uint16(out) != q.id || !q.wellFormed(out) {
			return true, fmt.Errorf("%d bytes: %x", len(out), out)
		}
		q.eachRecord(out, func(_ int, r rr, _ []byte) {
			if r.rtype != dns.TypeOPT && (r.ttl == 0 || r.ttl > 1<<31-1) {
				err = errors.Join(err, fmt.Errorf("a record lives %d s: %x", r.ttl, out))
			}
		})
		if bad := new(dns.Msg).Unpack(out); bad != nil && whole(msg) {
			err = errors.Join(err, fmt.Errorf("%x: %w", out, bad))
		}
		return true, err
	}
}

// The texts of a set are the packet's bytes, each behind its length; what is there too
// little of is empty.
const setTexts = 5

func join(texts ...string) (b []byte) {
	for _, s := range texts {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	return b
}

func split(b []byte) (texts [setTexts]string) {
	for i := range texts {
		if len(b) < 2 {
			break
		}
		n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
		texts[i], b = string(b[2:2+n]), b[2+n:]
	}
	return texts
}

func setSeeds() []packet {
	return []packet{
		{bytes: join("web", "http", "tcp", "text", "_http._tcp.web.weave.local."), number: 80},
		{bytes: join("a.b", "x-y", "udp", "\x00\xff", "b.weave.local."), number: 1},
		{bytes: join("web", "http", "tcp", "text", "web.weave.local."), number: 80},
	}
}

// setCheck has a peer say anything of its container: a name, a service, its protocol, a
// text, and what is asked for; the number is the port.
func setCheck() check {
	return func(p packet) (deep bool, err error) {
		s := split(p.bytes)
		tab := NewTable()
		tab.PutSet("o", Set{
			Network: "n", Host: "h", Names: []string{s[0]}, Addrs: addrs("10.0.0.1"),
			Services: []Service{{s[1], s[2], p.number}}, Texts: []string{s[3]},
		})
		r := newResolver("weave.local", tab)
		wire, err := question(dns.Fqdn(s[4]), 0).Pack()
		if err != nil {
			return false, nil
		}
		for _, qtype := range []uint16{dns.TypeSRV, dns.TypeTXT, dns.TypeA} {
			binary.BigEndian.PutUint16(wire[len(wire)-4:], qtype)
			var q query
			out, o := r.handle(nil, wire, &q, false, scope{"n", "n"}, nil)
			deep = deep || o == answered
			if out != nil && new(dns.Msg).Unpack(out) != nil {
				return deep, fmt.Errorf("answer %x", out)
			}
		}
		tab.Drop("o")
		if len(tab.below)+len(tab.names)+len(tab.addrs) != 0 {
			return deep, errors.New("something is left")
		}
		return deep, nil
	}
}
