package names

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

const silentUpstream = "192.0.2.1:53"

// floodServer has an upstream that is silent, and for one client another that is not.
func floodServer(wellServed netip.Addr) (*Server, *pipes) {
	const quick = "192.0.2.2:53"
	s := New(Config{
		Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{silentUpstream} },
		UpstreamsOf: func(client netip.Addr) []string {
			if client == wellServed {
				return []string{quick}
			}
			return nil
		},
	})
	p := &pipes{upstreams: map[string]func(netConn){silentUpstream: silence, quick: answerAfter(time.Millisecond)}}
	s.forwarder.dialer = p
	return s, p
}

// missed asks for a name of others that nobody has asked for before.
func missed(t testing.TB, s *Server, client netip.Addr, i int) *dns.Msg {
	t.Helper()
	return unpacked(t, forwarded(t, s, client, parsed(t, question(fmt.Sprintf("m%d.example.com.", i), dns.TypeA))))
}

func TestForWhomItIsTooLateNobodyIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := floodServer(netip.Addr{})
		told := make(chan time.Duration)
		for i := range maxInFlight {
			go func() {
				begin := time.Now()
				if got := missed(t, s, netip.MustParseAddr("10.0.0.1"), i); got.Rcode != dns.RcodeServerFailure {
					t.Errorf("%d: %v", i, got)
				}
				told <- time.Since(begin)
			}()
		}
		for range maxInFlight {
			if took := <-told; took != forwardBudget {
				t.Errorf("told after %v", took)
			}
		}
		if n := p.asked.Load(); n != 2*maxInFlight/2 {
			t.Errorf("%d questions, want two for each that had its turn, %d", n, 2*maxInFlight/2)
		}
	})
}

// One container asks a silent upstream for 6400 names a second. What is begun, and what
// waits, is counted; another container, with servers of its own, is answered as ever.
func TestAFloodOfASilentUpstreamSoonHoldsNextToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flooder, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		s, p := floodServer(other)
		const second, least = 100, maxInFlight / vainShare
		for tick := range 10 * second {
			for i := range 64 {
				go missed(t, s, flooder, 64*tick+i)
			}
			time.Sleep(time.Second / second)
			synctest.Wait()
			if n, waiting := s.slots.stats(); n > maxInFlight/2 || waiting > maxWaiting/2 {
				t.Fatalf("%d under way, %d wait", n, waiting)
			} else if tick > 5*second && (n > least || waiting > maxWaiting/vainShare) {
				t.Fatalf("%v: %d under way, %d wait", time.Duration(tick)*time.Second/second, n, waiting)
			}
			if tick == 5*second {
				p.asked.Store(0)
			}
			if tick%second == 0 {
				begin := time.Now()
				if got := missed(t, s, other, tick); got.Rcode != dns.RcodeSuccess || time.Since(begin) > 10*time.Millisecond {
					t.Errorf("another waited %v for %v", time.Since(begin), got)
				}
			}
		}
		if n := p.asked.Load(); n > 5*least*2+10 { // in 5 s, each has two questions in 2 s
			t.Errorf("%d questions", n)
		}
		time.Sleep(2 * forwardBudget)
		if n, waiting := s.slots.stats(); n != 0 || waiting != 0 || len(s.flights.calls) != 0 {
			t.Errorf("left: %d, %d, %d", n, waiting, len(s.flights.calls))
		}
	})
}

func TestAnAnswerGivesAClientAllItsPlacesBack(t *testing.T) {
	var s slots
	a := netip.MustParseAddr("10.0.0.1")
	got := map[netip.Addr]int{}
	for range 2 * maxInFlight {
		s.take(a, func() {})
		s.found(a, false)
		s.give(a)
	}
	if fill(&s, a, got); got[a] != maxInFlight/vainShare {
		t.Errorf("%d under way of who asks in vain", got[a])
	}
	s.found(a, true)
	if fill(&s, a, got); got[a] != maxInFlight/vainShare {
		t.Errorf("%d passed those that wait", got[a])
	}
	s.give(a)
	if got[a] != maxInFlight/2+1 {
		t.Errorf("%d under way after an answer", got[a])
	}
}

func TestSoManyAreRememberedForAskingInVain(t *testing.T) {
	var s slots
	for i := range 3 * maxVain {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(i))
		a := netip.AddrFrom4(b)
		s.take(a, func() {})
		s.found(a, i%2 == 0)
		s.give(a)
	}
	if n := len(s.vain); n == 0 || n > maxVain || len(s.clients) != 0 {
		t.Errorf("%d are remembered, and %d clients", n, len(s.clients))
	}
}

func TestAQueryTooManyAllocatesNothing(t *testing.T) {
	s, _ := floodServer(netip.Addr{})
	client := netip.MustParseAddrPort("10.0.0.1:1")
	fill(&s.slots, client.Addr(), map[netip.Addr]int{})
	q, out := parsed(t, question("example.com.", dns.TypeA)), make([]byte, 0, maxUDP)
	n := testing.AllocsPerRun(1000, func() {
		if answer, e := s.atOnce(out, q, false, false, client); e != nil || answer[3]&0xf != rcodeFailed {
			t.Fatalf("%v, %x", e, answer)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}
