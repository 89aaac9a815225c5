package names

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// pairAnswers plays musl's resolver: both questions from one socket that is not
// connected, one right after the other and, as musl does when a while has passed, all of
// it again with the same ids; answers are taken in any order, by id, and only from the
// address that was asked. It returns the answer to each question.
func pairAnswers(t *testing.T, server, name string, times int) (a, aaaa *dns.Msg) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	to := netip.MustParseAddrPort(server)
	answers := map[uint16]*dns.Msg{}
	for range times {
		for i, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			m := question(name, qtype)
			m.Id = uint16(0x1000 + i)
			b, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 512) // musl's: it asks without EDNS
	for got := 0; got < 2*times; got++ {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("%s: %d of %d answers: %v", name, got, 2*times, err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil || from != to || len(m.Question) != 1 {
			t.Fatalf("%s: from %v: %v (%v)", name, from, m, err)
		}
		if before := answers[m.Id]; before != nil && before.Rcode != m.Rcode {
			t.Errorf("%s: %v was answered with %d and with %d", name, m.Question[0], before.Rcode, m.Rcode)
		}
		answers[m.Id] = m
	}
	return answers[0x1000], answers[0x1001]
}

// TestResolversThatAskForBothFamiliesAtOnceAreAnswered: musl takes NXDOMAIN to one of the
// two questions for the answer to both, so what has one family only must not have it.
func TestResolversThatAskForBothFamiliesAtOnceAreAnswered(t *testing.T) {
	u := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		if m.Question[0].Qtype == dns.TypeA {
			answerA(w, m)
			return
		}
		_ = w.WriteMsg(new(dns.Msg).SetReply(m)) // there is the name, and no such address
	})
	s := start(t, u.addr)
	for _, c := range []struct {
		name    string
		a, aaaa int // addresses
		rcode   int
	}{
		{"web.weave.local.", 2, 1, dns.RcodeSuccess},
		{"WEB.", 2, 1, dns.RcodeSuccess},
		{"only4.weave.local.", 1, 0, dns.RcodeSuccess},
		{"only4.net1.weave.local.", 1, 0, dns.RcodeSuccess},
		{"gone.weave.local.", 0, 0, dns.RcodeNameError},
		{"gone.", 0, 0, dns.RcodeNameError},
		{"example.com.", 1, 0, dns.RcodeSuccess},
	} {
		for _, times := range []int{1, 3} {
			a, aaaa := pairAnswers(t, s.addr, c.name, times)
			if a.Question[0].Qtype != dns.TypeA || aaaa.Question[0].Qtype != dns.TypeAAAA {
				t.Errorf("%s: an answer has the other's id", c.name)
			}
			if a.Rcode != c.rcode || aaaa.Rcode != c.rcode || len(a.Answer) != c.a || len(aaaa.Answer) != c.aaaa {
				t.Errorf("%s: A %s, AAAA %s, want rcode %d with %d and %d addresses", c.name, text(a), text(aaaa), c.rcode, c.a, c.aaaa)
			}
		}
	}
}

// TestASlowAnswerToOneFamilyHoldsUpNoOther: the two questions are one client's.
func TestASlowAnswerToOneFamilyHoldsUpNoOther(t *testing.T) {
	slow := make(chan struct{})
	u := newUpstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		if m.Question[0].Qtype == dns.TypeAAAA {
			<-slow
		}
		answerA(w, m)
	})
	s := start(t, u.addr)
	c, err := net.Dial("udp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, qtype := range []uint16{dns.TypeAAAA, dns.TypeA} {
		m := question("example.com.", qtype)
		m.Id = uint16(i)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	close(slow)
	m := new(dns.Msg)
	if err != nil || m.Unpack(buf[:n]) != nil || m.Id != 1 {
		t.Fatalf("%v came first (%v)", m, err)
	}
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
}
