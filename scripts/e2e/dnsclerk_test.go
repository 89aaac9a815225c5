package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/weave-cni/weave-cni/scripts/e2e/answers"
)

const (
	clerkEvery  = 50 * time.Millisecond  // each question is asked once in it
	clerkWithin = 500 * time.Millisecond // for one answer
)

// clerk asks the server of its host all questions over and over, by both families in
// turn, until it is quiet.
type clerk struct {
	s     *survey
	h     *office
	conns []net.Conn
	last  map[answers.Question][]answers.Fact // repeats share memory
	id    uint16
}

func (s *survey) clerk(h *office) {
	c := &clerk{s: s, h: h, last: map[answers.Question][]answers.Fact{}}
	for _, gw := range h.gateways {
		err := h.Do(func() error {
			var d net.Dialer
			conn, err := d.DialContext(context.Background(), "udp", netip.AddrPortFrom(gw, 53).String())
			c.conns = append(c.conns, conn)
			return err
		})
		if err != nil {
			s.wrong("%v", err)
			return
		}
	}
	defer func() {
		for _, conn := range c.conns {
			conn.Close()
		}
	}()
	for round := 0; !s.quiet.Load(); round++ {
		began := time.Now()
		for _, q := range c.questions() {
			c.ask(c.conns[round%len(c.conns)], q)
		}
		time.Sleep(clerkEvery - time.Since(began)) // the pace of the questions
	}
}

func (c *clerk) questions() (list []answers.Question) {
	for i := range namePool {
		n := fmt.Sprintf("n%d", i)
		list = append(list, answers.Question{Name: n}, answers.Question{Name: n, V6: true})
	}
	for _, a := range *c.s.recent.Load() {
		list = append(list, answers.Question{Addr: a})
	}
	return list
}

// ask puts one question. A router that is not there answers none.
func (c *clerk) ask(conn net.Conn, q answers.Question) {
	c.id++
	msg, err := message(c.id, q).Pack()
	if err != nil {
		c.s.wrong("%v: %v", q, err)
		return
	}
	begin := c.s.now()
	if _, err := conn.Write(msg); err != nil {
		c.s.unheard.Add(1)
		return
	}
	reply, err := c.await(conn)
	end := c.s.now()
	switch {
	case err != nil:
		c.s.unheard.Add(1)
	case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
		c.s.wrong("at %v h%d answered %v with %s", begin, c.h.index, q, dns.RcodeToString[reply.Rcode])
	default:
		c.h.answers = append(c.h.answers, answers.Answer{Host: c.h.index, Question: q, Begin: begin, End: end, Facts: c.facts(q, reply)})
	}
}

func (c *clerk) await(conn net.Conn) (*dns.Msg, error) {
	_ = conn.SetReadDeadline(time.Now().Add(clerkWithin))
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			return nil, err
		}
		if m.Id == c.id {
			return m, nil
		}
	}
}

func message(id uint16, q answers.Question) *dns.Msg {
	m := new(dns.Msg)
	switch {
	case q.Addr.IsValid():
		name, _ := dns.ReverseAddr(q.Addr.String())
		m.SetQuestion(name, dns.TypePTR)
	case q.V6:
		m.SetQuestion(q.Name+".weave.local.", dns.TypeAAAA)
	default:
		m.SetQuestion(q.Name+".weave.local.", dns.TypeA)
	}
	m.Id = id
	return m
}

// facts are what the reply says. The names of hosts are not asked about.
func (c *clerk) facts(q answers.Question, reply *dns.Msg) (list []answers.Fact) {
	for _, rr := range reply.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A.To4())
			list = append(list, answers.Fact{Name: q.Name, Addr: a})
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA)
			list = append(list, answers.Fact{Name: q.Name, Addr: a})
		case *dns.PTR:
			list = append(list, answers.Fact{Name: strings.TrimSuffix(rr.Ptr, ".weave.local."), Addr: q.Addr})
		}
	}
	slices.SortFunc(list, func(a, b answers.Fact) int { return strings.Compare(a.String(), b.String()) })
	if slices.Equal(list, c.last[q]) {
		return c.last[q]
	}
	c.last[q] = list
	return list
}
