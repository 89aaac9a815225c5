package names

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// pipes is upstreams without a network, by address, so that time can be the test's own.
type pipes struct {
	upstreams map[string]func(net.Conn)
	asked     atomic.Int32
}

func (p *pipes) DialContext(_ context.Context, _, address string) (net.Conn, error) {
	p.asked.Add(1)
	ours, theirs := net.Pipe()
	go p.upstreams[address](theirs)
	return ours, nil
}

func silence(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// answerAfter answers one datagram, that much later.
func answerAfter(d time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, upstreamRead)
		n, err := c.Read(buf)
		m := new(dns.Msg)
		if err != nil || m.Unpack(buf[:n]) != nil {
			return
		}
		time.Sleep(d)
		r := new(dns.Msg).SetReply(m)
		rr, _ := dns.NewRR(m.Question[0].Name + " 60 IN A 198.51.100.7")
		r.Answer = append(r.Answer, rr)
		wire, _ := r.Pack()
		_, _ = c.Write(wire)
	}
}

func TestWithoutAnAnswerTheClientIsToldWithinTwoSeconds(t *testing.T) {
	const (
		dead  = "192.0.2.1:53"
		dead2 = "192.0.2.2:53"
		quick = "192.0.2.3:53"
		slow  = "192.0.2.4:53"
	)
	for name, c := range map[string]struct {
		ups   []string
		tcp   bool
		rcode int
		took  time.Duration
		asked int32
	}{
		"one that is dead":         {[]string{dead}, false, dns.RcodeServerFailure, 2 * time.Second, 2},
		"one that is dead, by TCP": {[]string{dead}, true, dns.RcodeServerFailure, 2 * time.Second, 2},
		"two":                      {[]string{dead, dead2}, false, dns.RcodeServerFailure, 2 * time.Second, 2},
		"no more than three":       {[]string{dead, dead2, dead, quick}, false, dns.RcodeServerFailure, 2 * time.Second, 3},
		"the second answers":       {[]string{dead, quick}, false, dns.RcodeSuccess, time.Second, 2},
		"just in time":             {[]string{slow}, false, dns.RcodeSuccess, 990 * time.Millisecond, 1},
		"none":                     {nil, false, dns.RcodeServerFailure, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &pipes{upstreams: map[string]func(net.Conn){
				dead: silence, dead2: silence, quick: answerAfter(0), slow: answerAfter(990 * time.Millisecond),
			}}
			s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return slices.Clone(c.ups) }})
			s.forwarder.dialer = p
			wire, _ := question("example.com.", dns.TypeA).Pack()
			var q query
			q.parse(wire, c.tcp)
			begin, answer := time.Now(), new(dns.Msg)
			_, e := s.atOnce(nil, &q, c.tcp, false, netip.AddrPort{})
			if err := answer.Unpack(s.forward(t.Context(), e)); err != nil {
				t.Fatal(err)
			}
			if took, asked := time.Since(begin), p.asked.Load(); answer.Rcode != c.rcode || took != c.took || asked != c.asked {
				t.Errorf("%s: %s after %v and %d questions, want %s, %v, %d",
					name, dns.RcodeToString[answer.Rcode], took, asked, dns.RcodeToString[c.rcode], c.took, c.asked)
			}
		})
	}
}

func TestAnUpstreamWithoutEDNSIsAskedWithoutIt(t *testing.T) {
	for _, c := range []struct {
		rcode  int
		header bool // and no more, as of a query that could not be read
	}{{dns.RcodeFormatError, false}, {dns.RcodeFormatError, true}, {dns.RcodeNotImplemented, false}, {dns.RcodeNotImplemented, true}, {dns.RcodeBadVers, false}} {
		u := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
			if m.IsEdns0() == nil {
				answerA(w, m)
				return
			}
			r := new(dns.Msg).SetRcode(m, c.rcode)
			if c.header {
				r.Question = nil
			}
			if c.rcode == dns.RcodeBadVers {
				r.SetEdns0(4096, false) // which has the upper bits of it
			}
			_ = w.WriteMsg(r)
		})
		s := start(t, u.addr)
		for _, network := range []string{"udp", "tcp"} {
			m := question(network+".example.com.", dns.TypeA)
			m.SetEdns0(1232, true)
			if got := text(exchangeOver(t, network, s.addr, m)); got != "A 198.51.100.7" {
				t.Errorf("%s to OPT (header alone: %t), by %s: %s", dns.RcodeToString[c.rcode], c.header, network, got)
			}
		}
		if n := u.asked.Load(); n != 4 {
			t.Errorf("%s (header alone: %t): asked %d times, want each twice", dns.RcodeToString[c.rcode], c.header, n)
		}
	}
}

// udpAlone is an upstream that is not to be reached by TCP.
type udpAlone struct{}

func (udpAlone) DialContext(_ context.Context, network, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	if network == "udp" {
		go answerAfter(20 * time.Millisecond)(theirs)
	} else {
		go silence(theirs)
	}
	return ours, nil
}

func TestWhoAsksByTCPIsAnsweredWhereTheUpstreamIsAskedByUDPAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{silentUpstream} }})
		s.forwarder.dialer = udpAlone{}
		_, e := s.atOnce(nil, parsed(t, question("popular.example.com.", dns.TypeA)), true, false, netip.MustParseAddrPort("10.48.0.66:1"))
		leads := make(chan string, 1)
		go func() { leads <- text(unpacked(t, s.forward(t.Context(), e))) }()
		synctest.Wait()
		other := text(unpacked(t, forwarded(t, s, netip.MustParseAddr("10.48.0.9"), parsed(t, question("popular.example.com.", dns.TypeA)))))
		if leader := <-leads; leader != "A 198.51.100.7" || other != leader {
			t.Errorf("by TCP %q, and who asked by UDP meanwhile %q", leader, other)
		}
	})
}

// A forger who does not see our queries has to guess port and id; this one knows the
// port. It sends more guesses than there are ids, all the time.
func TestGuessedAnswersAreNotAccepted(t *testing.T) {
	const guesses = 100_000
	var sent atomic.Int32
	u := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		if w.LocalAddr().Network() == "tcp" {
			answerA(w, m)
			return
		}
		forged := new(dns.Msg).SetReply(m)
		rr, _ := dns.NewRR(m.Question[0].Name + " 60 IN A 6.6.6.6")
		forged.Answer = append(forged.Answer, rr)
		wire, _ := forged.Pack()
		for range 2000 {
			if id := uint16(rand.Uint32()); id != m.Id { // the one in 65536 that is right proves nothing
				binary.BigEndian.PutUint16(wire, id)
				_, _ = w.Write(wire)
				sent.Add(1)
			}
		}
	})
	s := start(t, u.addr)
	right := 0
	for i := 0; sent.Load() < guesses; i++ {
		switch got := text(exchangeOver(t, "udp", s.addr, question(fmt.Sprintf("n%d.example.com.", i), dns.TypeA))); got {
		case "A 198.51.100.7":
			right++
		case "SERVFAIL": // on a machine that is busy with the guesses
		default:
			t.Fatalf("got %s", got)
		}
	}
	if right == 0 {
		t.Error("the right answer never came")
	}
}

func TestADotWhereTheNameEndsIsAnotherQuestion(t *testing.T) {
	for asked, told := range map[string]string{
		"\x07example\x00": "\x07example.",
		"\x03a.b\x00":     "\x03a\x00b\x00",
		"\x03a\x00b\x00":  "\x03a.b\x00",
	} {
		const typeAndClass = "\x00\x01\x00\x01"
		if sameQuestion([]byte(told+typeAndClass), []byte(asked+typeAndClass)) {
			t.Errorf("%q is an answer to %q", told, asked)
		}
		if !sameQuestion([]byte(strings.ToUpper(asked)+typeAndClass), []byte(asked+typeAndClass)) {
			t.Errorf("%q in capitals is not the same", asked)
		}
	}
}
