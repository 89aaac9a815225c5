package names

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// fill takes what there is for a client, to be run into got.
func fill(s *slots, x netip.Addr, got map[netip.Addr]int) (taken int) {
	for s.take(x, func() { got[x]++ }) {
		taken++
	}
	return taken
}

func TestAClientLeavesRoomForOthers(t *testing.T) {
	var s slots
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	got := map[netip.Addr]int{}
	na, nb, nc := fill(&s, a, got), fill(&s, b, got), fill(&s, c, got)
	if got[a] != maxInFlight/2 || got[b] < maxInFlight/4 || got[c] < maxInFlight/8 || got[a]+got[b]+got[c] > maxInFlight {
		t.Errorf("under way %v", got)
	}
	if _, waiting := s.stats(); na-got[a] != maxWaiting/2 || nb-got[b] < maxWaiting/4 || nc-got[c] < maxWaiting/8 || waiting > maxWaiting {
		t.Errorf("waiting %d, %d, %d", na-got[a], nb-got[b], nc-got[c])
	}
}

func TestWhoWaitsTakesTurns(t *testing.T) {
	var s slots
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	got := map[netip.Addr]int{}
	fill(&s, a, got)
	fill(&s, b, got)
	before := map[netip.Addr]int{a: got[a], b: got[b]}
	for range 100 { // the first has more than its share, from when it was alone
		s.give(a)
		s.give(b)
	}
	if da, db := got[a]-before[a], got[b]-before[b]; da < 50 || db != 100 || da > db {
		t.Errorf("%d and %d got on", da, db)
	}
	for range got[a] + got[b] + maxWaiting {
		for _, x := range []netip.Addr{a, b} {
			if s.clients[x] != nil && s.clients[x].used > 0 {
				s.give(x)
			}
		}
	}
	if n, waiting := s.stats(); n != 0 || waiting != 0 || len(s.clients) != 0 || len(s.turns) != 0 {
		t.Errorf("left: %d, %d, %v", n, waiting, s.clients)
	}
}

// One container asks for far more than may be under way, of an upstream that takes
// its time; another asks once.
func TestABurstIsHeldBackAndAnsweredWhileOthersAreAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const up, delay = "192.0.2.1:53", 50 * time.Millisecond
		s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{up} }})
		s.forwarder.dialer = &pipes{upstreams: map[string]func(netConn){up: answerAfter(delay)}}
		begin := time.Now()
		took := make(chan time.Duration, 1000)
		ask := func(client string, i int) {
			go func() {
				wire, _ := question(fmt.Sprintf("n%d.example.com.", i), dns.TypeA).Pack()
				var q query
				q.parse(wire, false)
				m := new(dns.Msg)
				out := forwarded(t, s, netip.MustParseAddr(client), &q)
				if err := m.Unpack(out); err != nil || m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
					t.Errorf("%s, %d: %v, %v", client, i, m, err)
				}
				took <- time.Since(begin)
			}()
		}
		const burst = 2 * maxInFlight
		for i := range burst {
			ask("10.0.0.1", i)
		}
		synctest.Wait()
		if n, waiting := s.slots.stats(); n != maxInFlight/2 || waiting != burst-maxInFlight/2 {
			t.Errorf("%d under way, %d wait", n, waiting)
		}
		ask("10.0.0.2", 1000)
		last := time.Duration(0)
		for range burst + 1 {
			last = <-took
		}
		if want := 4 * delay; last != want {
			t.Errorf("the last was answered after %v, want %v", last, want)
		}
		if n, waiting := s.slots.stats(); n != 0 || waiting != 0 {
			t.Errorf("left: %d, %d", n, waiting)
		}
	})
}
