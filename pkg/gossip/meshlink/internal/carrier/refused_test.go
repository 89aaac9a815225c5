package carrier

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// shows reports whether n has a line with these.
func (n *node) shows(name gossip.Peer, state State, addr, words string) bool {
	for _, l := range n.Status() {
		if l.Name == name && l.State == state && strings.HasPrefix(l.Addr, addr) && strings.Contains(l.Detail, words) {
			return true
		}
	}
	return false
}

func TestARefusalShowsOnBothSidesUntilItIsMended(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s, inCluster("1111"))
	b := start(t, "b", s, inCluster("2222"), calls(a.addr))
	eventually(t, "lines on both sides", func() bool {
		return a.shows("b", Refused, "127.", "weave reset") && b.shows("a", Refused, a.addr.String(), "weave reset")
	})
	if st := a.Status(); len(st) != 1 || st[0].Count == 0 || time.Since(st[0].Last) > time.Minute || st[0].Member != b.id.MemberID() {
		t.Errorf("status %+v", st)
	}
	if !a.Status()[0].Theirs == !b.Status()[0].Theirs {
		t.Error("both or none say that the other refuses")
	}
	b.cluster.set("1111")
	b.Recheck()
	eventually(t, "one line, connected", func() bool {
		return a.shows("b", Connected, "", "") && len(a.Status()) == 1 && b.shows("a", Connected, "", "") && len(b.Status()) == 1
	})
	b.stop()
	eventually(t, "b is gone, and no old refusal comes back", func() bool { return len(a.Status()) == 0 })
}

func TestAnotherSecretShowsOnBothSides(t *testing.T) {
	t.Parallel()
	a := start(t, "a", loadSecret(t, secretFile(t)))
	b := start(t, "b", loadSecret(t, secretFile(t)), calls(a.addr))
	eventually(t, "lines on both sides", func() bool {
		return a.shows("", Refused, "127.", "another cluster secret") && b.shows("", Refused, a.addr.String(), "is the cluster secret the same")
	})
	conn, err := net.Dial("tcp", a.addr.String()) // one that is no router makes no line
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
	conn.Close()
	eventually(t, "the stranger is counted", func() bool { return a.stats.Strangers.Load() > 1 })
	if st := a.Status(); len(st) != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestATwinIsShownBesideTheOneThatIsConnected(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s)
	first := start(t, "twin", s, calls(a.addr))
	eventually(t, "the first twin", func() bool { return a.has("twin") })
	second := start(t, "twin", s, calls(a.addr, first.addr))
	const words = "with another key"
	eventually(t, "both twins at a, refusals at both twins", func() bool {
		return a.shows("twin", Connected, "", "") && a.shows("twin", Refused, "127.", words) &&
			second.shows("a", Refused, a.addr.String(), words) && second.shows("twin", Refused, first.addr.String(), words) &&
			first.shows("twin", Refused, "127.", words)
	})
}

func TestACopyOfAPeersStateIsRefusedAndShownWhileThatOneLives(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	for _, name := range []string{"b", "y"} { // below and above the other's name
		m, dir := start(t, "m", s), t.TempDir()
		first := start(t, name, s, stateDir(dir), calls(m.addr))
		eventually(t, "the original", func() bool { return m.has(gossip.Peer(name)) })
		second := start(t, name, s, stateDir(dir), calls(m.addr, first.addr))
		shown := func(n *node, name gossip.Peer) bool {
			return slices.ContainsFunc(n.Status(), func(l Status) bool { return l.Name == name && l.State == Refused && l.Twin })
		}
		eventually(t, "both at m, refusals at both", func() bool {
			return m.shows(gossip.Peer(name), Connected, "", "") && shown(m, gossip.Peer(name)) &&
				shown(first, gossip.Peer(name)) && shown(second, "m") && shown(second, gossip.Peer(name))
		})
		if m.stats.Dropped.Load() != 0 {
			t.Errorf("%s suffered from its copy", name)
		}
		first.stop()
		eventually(t, "the second is let in when the first has ended, and no line is left of that", func() bool {
			st := m.Status()
			return len(st) == 1 && st[0].State == Connected && st[0].Hello.Incarnation == 2
		})
	}
}

// A router that is called and refuses is called again after its penalty, not after
// the minutes for which an address is believed to lead to the same peer.
func TestARefusedAddressIsCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook("a", DefaultPort)
		addr, nobody := netip.MustParseAddrPort("192.0.2.1:6783"), func(gossip.Peer) bool { return false }
		b.claim(asker{peer: "b"}, addr, nobody)
		no := &Refusal{Code: conflict, Words: "twin", Peer: "a", Member: 7}
		b.settle(addr, "a", no, no)
		time.Sleep(2 * maxPenalty)
		if !b.claim(asker{peer: "b"}, addr, nobody) {
			t.Error("it is not called again")
		}
	})
}

// What made a peer refuse us, or us it, may have ended with our own change.
func TestARefusedAddressIsCalledAtOnceWhenAllIsForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook("a", DefaultPort)
		addr, nobody := netip.MustParseAddrPort("192.0.2.1:6783"), func(gossip.Peer) bool { return false }
		b.claim(asker{peer: "b"}, addr, nobody)
		no := &Refusal{Code: refused, Words: "cluster", Peer: "b", Member: 7}
		b.settle(addr, "b", no, no)
		if b.claim(asker{peer: "b"}, addr, nobody) {
			t.Error("there is no penalty")
		}
		b.forgive()
		if !b.claim(asker{peer: "b"}, addr, nobody) {
			t.Error("it is not called again")
		}
	})
}

// A router that was started again is refused until its earlier self is found dead:
// it asks in each round while that may be, and ever less often after.
func TestARefusalThatMayPassIsAskedAboutInEachRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook("a", DefaultPort)
		addr, nobody := netip.MustParseAddrPort("192.0.2.1:6783"), func(gossip.Peer) bool { return false }
		no := &Refusal{Code: twin, Words: "copy", Peer: "b", Member: 7}
		begin := time.Now()
		for time.Since(begin) < silence+dialEvery {
			if !b.claim(asker{peer: "b"}, addr, nobody) {
				t.Fatalf("not called after %v", time.Since(begin))
			}
			b.settle(addr, "b", no, no)
			time.Sleep(dialEvery)
		}
		calls := 0
		for range int(maxPenalty / dialEvery) {
			if b.claim(asker{peer: "b"}, addr, nobody) {
				calls++
				b.settle(addr, "b", no, no)
			}
			time.Sleep(dialEvery)
		}
		if calls > 5 { // pauses of 1, 2, 4, 5 s at least
			t.Errorf("called %d times in the %v after that", calls, maxPenalty)
		}
	})
}

func TestARefusedLineHasTheLaterReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusedCalls
		r.note(refusedCall{name: "b", member: 7, addr: netip.MustParseAddr("192.0.2.1"), words: "later", theirs: true})
		for _, older := range []bool{true, false} {
			lines := []Status{{Name: "b", Member: 7, Addr: "192.0.2.1:6783", State: Refused, Detail: "of the dial", When: time.Now().Add(time.Second)}}
			if older {
				lines[0].When = time.Now().Add(-time.Second)
			}
			out := r.status(lines)
			if l := lines[0]; len(out) != 0 || (l.Detail == "later") != older || l.Theirs != older || l.Count != 0 {
				t.Errorf("older %v: %+v, %+v", older, l, out)
			}
		}
	})
}

func TestARouterWhoseTargetsAllLeadToItselfSaysSo(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	own, other := loopback(), start(t, "b", s)
	a := start(t, "a", s, listen(own), calls(own))
	eventually(t, "it has noticed", a.OnlySelf)
	said := func() int { return strings.Count(a.log.String(), "every PEER leads to this host itself") }
	eventually(t, "it has said so", func() bool { return said() > 0 })
	if err := a.Connect(other.addr.String()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another host", func() bool { return a.has("b") })
	if a.OnlySelf() {
		t.Error("it says so beside another target")
	}
	if n := said(); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestATargetWhereAnotherRouterHasOurNameIsNotOurselves(t *testing.T) {
	b := newBook("a", DefaultPort)
	if err := b.addTarget("192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort("192.0.2.1:6783")
	for no, want := range map[*Refusal]bool{
		{Code: myself, Peer: "a", Member: 1}: true, {Code: conflict, Peer: "a", Member: 2}: false, {Code: twin, Peer: "a", Member: 1, Remote: true}: false,
	} {
		b.places[at] = &place{penalty: firstPenalty}
		b.settle(at, "a", no, no)
		b.called(b.targets[0], []netip.AddrPort{at})
		if b.onlySelf() != want {
			t.Errorf("%v: only ourselves %v", no, !want)
		}
	}
}

func TestTheMemoryOfRefusalsIsBoundedAndStrangersPushOutNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusedCalls
		addr := netip.MustParseAddr("10.0.0.0")
		r.note(refusedCall{name: "often", member: 1, addr: addr})
		for i := range 1000 {
			addr = addr.Next()
			time.Sleep(time.Millisecond)
			r.note(refusedCall{name: "often", member: 1, addr: addr, words: "new"})
			r.note(refusedCall{name: gossip.Peer(fmt.Sprint("p", i)), member: 2, addr: addr})
			r.note(refusedCall{addr: addr})
			r.note(refusedCall{addr: netip.MustParseAddr("192.0.2.9")})
		}
		found := map[string]uint64{}
		for _, c := range r.all() {
			found[string(c.name)+c.addr.String()] = c.count
		}
		if n := len(r.all()); n != maxCallers+maxStrangers || found["often"+addr.String()] != 1001 || found["192.0.2.9"] != 1000 {
			t.Errorf("%d remembered: %v", n, found)
		}
		r.welcome("often", 1, addr)
		if n := len(r.all()); n != maxCallers+maxStrangers-2 { // also the stranger that it was at its address
			t.Errorf("%d remembered after a welcome", n)
		}
		if time.Sleep(rememberFor + time.Second); len(r.all()) != 0 {
			t.Errorf("after %v: %v", rememberFor, r.all())
		}
		r.note(refusedCall{addr: netip.MustParseAddr("192.0.2.9")})
		if all := r.all(); len(r.list) != 1 || len(all) != 1 || all[0].count != 1 {
			t.Errorf("old calls are kept, or counted: %v", r.list)
		}
	})
}

// none is a listener that accepts nobody.
type none struct{ net.Listener }

func (none) Close() error { return nil }

func TestAFamilyThatTheKernelLacksIsPassedOver(t *testing.T) {
	s := loadSecret(t, secretFile(t))
	n := start(t, "a", s)
	n.cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:1"), netip.MustParseAddrPort("[::]:1")}
	lacks := func(network string, err error) func(string, string) (net.Listener, error) {
		return func(got, _ string) (net.Listener, error) {
			if got == network {
				return nil, &net.OpError{Op: "listen", Err: err}
			}
			return none{}, nil
		}
	}
	if lns, err := n.listen(lacks("tcp6", syscall.EAFNOSUPPORT)); err != nil || len(lns) != 1 {
		t.Errorf("without IPv6: %d listeners, %v", len(lns), err)
	}
	if lns, err := n.listen(lacks("tcp6", syscall.EADDRINUSE)); !errors.Is(err, syscall.EADDRINUSE) || lns != nil {
		t.Errorf("with the port in use: %d listeners, %v", len(lns), err)
	}
}
