package ipam_test

import (
	"testing"
	"testing/synctest"
)

// Each released address rests, so containers that come and go use up what is fresh.
// That must not cost a proposal each: one of the ledger is a write to five disks.
func TestContainersThatComeAndGoCostFewProposals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/12", "fd00:1::/64")
		h := start(t, l, 1, t.TempDir())
		h.provide()
		h.give(request(0))
		synctest.Wait()
		before := l.asked
		const many = 1000
		for i := 1; i <= many; i++ {
			h.give(request(i))
			if err := h.Release(key(i)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the clock stands: all of them rest
		}
		if asked := l.asked - before; asked > 2*many/100 {
			t.Errorf("%d proposals for %d containers", asked, many)
		}
	})
}
