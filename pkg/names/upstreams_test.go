package names

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestItIsCountedHowManyAnUpstreamFailsInARow(t *testing.T) {
	var u upstreamCounts
	up, begin := netip.MustParseAddrPort("192.0.2.1:53"), time.Now()
	fails := errors.New("silent")
	for i, c := range []struct {
		err    error
		inARow uint64
	}{{fails, 1}, {fails, 2}, {nil, 0}, {fails, 1}} {
		u.note(up, time.Millisecond, c.err)
		if got := u.stats()[0]; got.InARow != c.inARow || got.FailedAt.Before(begin) {
			t.Errorf("after %d: %+v, want %d in a row", i+1, got, c.inARow)
		}
	}
}
