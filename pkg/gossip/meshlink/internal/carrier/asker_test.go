package carrier

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

func TestATargetThatIsForgottenIsShownNoMoreUnlessAPeerIsThereToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook("a", DefaultPort)
		addr, anybody := netip.MustParseAddrPort("192.0.2.1:6783"), func(gossip.Peer) bool { return true }
		target, peer := asker{target: addr.String()}, asker{peer: "b"}
		dial := func(by asker) {
			t.Helper()
			if !b.claim(by, addr, anybody) {
				t.Fatalf("not dialled for %+v", by)
			}
			b.settle(addr, "", errors.New("nobody is there"), nil)
		}
		shown := func(want bool, when string) {
			t.Helper()
			if got := b.status(nil); (len(got) == 1) != want {
				t.Errorf("%s: %+v", when, got)
			}
		}
		if err := b.addTarget("192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		dial(target)
		shown(true, "dialled")
		b.removeTarget("192.0.2.1")
		shown(false, "forgotten")
		if b.claim(target, addr, anybody) {
			t.Error("a call that was under way dials it again")
		}
		shown(false, "after a call that was under way")

		_ = b.addTarget("192.0.2.1")
		b.learn("b", []netip.AddrPort{addr})
		dial(target)
		dial(peer)
		b.removeTarget("192.0.2.1")
		shown(true, "forgotten, but a peer's address")
		b.learn("b", nil)
		shown(false, "the peer forgotten too")

		dial(peer)
		time.Sleep(shownFor + time.Second)
		shown(false, "not asked for any more")
	})
}

// Who shows for how long a refused call counts relies on this (meshlink.FreshFor).
func TestWhoIsRefusedForGoodCallsAgainWithinFifteenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBook("a", DefaultPort)
		addr, nobody := netip.MustParseAddrPort("192.0.2.1:6783"), func(gossip.Peer) bool { return false }
		no := &Refusal{Code: conflict, Words: "twin", Peer: "b", Member: 7}
		last, longest, calls := time.Now(), time.Duration(0), 0
		for range 10000 {
			if b.claim(asker{peer: "b"}, addr, nobody) {
				longest, last, calls = max(longest, time.Since(last)), time.Now(), calls+1
				b.settle(addr, "b", no, no)
			}
			time.Sleep(dialEvery + dialJitter)
		}
		if longest > 15*time.Second+dialEvery+dialJitter {
			t.Errorf("%v without a call", longest)
		}
		if most := int(10000 * (dialEvery + dialJitter) / (maxPenalty / 2)); calls > most {
			t.Errorf("%d calls, want at most %d", calls, most)
		}
	})
}
