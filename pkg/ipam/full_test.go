package ipam_test

import (
	"testing"
	"testing/synctest"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// full is what the host says of each subnet.
func (h *host) full() (out []bool) {
	for _, u := range h.Usage() {
		out = append(out, u.Full)
	}
	return out
}

func TestANetworkIsFullFromTheLastAddressUntilAContainerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/29", "fd00:1::/64")
		h := start(t, l, 1, t.TempDir())
		for i := range 6 {
			if h.full()[0] {
				t.Fatalf("full with %d of 6 addresses given", i)
			}
			h.give(request(i))
		}
		if got := h.full(); !got[0] || got[1] {
			t.Errorf("with all IPv4 addresses given: full %v, want it of that family only", got)
		}
		h.refuse(request(6), ctl.CodeNetworkFull)
		if err := h.Release(key(0)); err != nil {
			t.Fatal(err)
		}
		if h.full()[0] {
			t.Error("full although an address is free again")
		}
	})
}

// What other hosts own they may have to spare: only who has asked knows.
func TestANetworkThatOthersOwnIsFullOnceTheyWereAskedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := hoarded(t, 2, "10.32.0.0/29")
		h := start(t, l, 2, t.TempDir())
		if h.full()[0] {
			t.Error("full before anybody was asked")
		}
		h.refuse(request(1), ctl.CodeNetworkFull)
		if !h.full()[0] {
			t.Error("not full although nothing was given")
		}
		if err := l.apply(ledger.Command{Retire: &ledger.Retire{ID: 1}}).Error(); err != nil {
			t.Fatal(err)
		}
		if h.full()[0] {
			t.Error("full although all went back to the pool")
		}
	})
}
