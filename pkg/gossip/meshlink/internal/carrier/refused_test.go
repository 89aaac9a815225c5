package carrier

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
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
	within(t, 5*time.Second, "lines on both sides", func() bool {
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
	within(t, 2*time.Second, "one line, connected", func() bool {
		return a.shows("b", Connected, "", "") && len(a.Status()) == 1 && b.shows("a", Connected, "", "") && len(b.Status()) == 1
	})
	b.stop()
	within(t, 5*time.Second, "b is gone, and no old refusal comes back", func() bool { return len(a.Status()) == 0 })
}

func TestAnotherSecretShowsOnBothSides(t *testing.T) {
	t.Parallel()
	a := start(t, "a", loadSecret(t, secretFile(t)))
	b := start(t, "b", loadSecret(t, secretFile(t)), calls(a.addr))
	within(t, 5*time.Second, "lines on both sides", func() bool {
		return a.shows("", Refused, "127.", "another cluster secret") && b.shows("", Refused, a.addr.String(), "is the cluster secret the same")
	})
	conn, err := net.Dial("tcp", a.addr.String()) // one that is no router makes no line
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
	conn.Close()
	within(t, 5*time.Second, "the stranger is counted", func() bool { return a.stats.Strangers.Load() > 1 })
	if st := a.Status(); len(st) != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestATwinIsShownBesideTheOneThatIsConnected(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	a := start(t, "a", s)
	first := start(t, "twin", s, calls(a.addr))
	within(t, 5*time.Second, "the first twin", func() bool { return a.has("twin") })
	second := start(t, "twin", s, calls(a.addr, first.addr))
	const words = "with another key"
	within(t, 5*time.Second, "both twins at a, refusals at both twins", func() bool {
		return a.shows("twin", Connected, "", "") && a.shows("twin", Refused, "127.", words) &&
			second.shows("a", Refused, a.addr.String(), words) && second.shows("twin", Refused, first.addr.String(), words) &&
			first.shows("twin", Refused, "127.", words)
	})
}

// A router that is called and refuses is called again after its penalty, not after
// the minutes for which an address is believed to lead to the same peer.
func TestARefusedAddressIsCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook("a", DefaultPort)
		addr, nobody := netip.MustParseAddrPort("192.0.2.1:6783"), func(gossip.Peer) bool { return false }
		b.claim(addr, nobody)
		no := &Refusal{Code: conflict, Words: "twin", Peer: "a", Member: 7}
		b.settle(addr, "a", no, no)
		time.Sleep(2 * maxPenalty)
		if !b.claim(addr, nobody) {
			t.Error("it is not called again")
		}
	})
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
		r.welcome("often", 1)
		if n := len(r.all()); n != maxCallers+maxStrangers-1 {
			t.Errorf("%d remembered after a welcome", n)
		}
		if time.Sleep(rememberFor + time.Second); len(r.all()) != 0 {
			t.Errorf("after %v: %v", rememberFor, r.all())
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
