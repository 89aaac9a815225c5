package ipam_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func TestTheStepsOfAnAllocationTellWhatItWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.found(t, 1, "10.32.0.0/24")
		l.slow = 30 * time.Millisecond
		h := start(t, l, 1, t.TempDir())
		log := calllog.New(10, 1<<20, time.Now)
		for i, want := range [][]string{
			{"looked for an address here: none yet", "asked the ledger: the ledger must give this host more addresses of 10.32.0.0/24 first", "allocated from this host's blocks", "claim written"},
			{"allocated from this host's blocks", "claim written"},
		} {
			call := log.Begin(ctl.TracedCall{Call: calllog.Allocate, Key: key(i)})
			if _, err := h.Allocate(calllog.With(t.Context(), call), request(i)); err != nil {
				t.Fatal(err)
			}
			call.End(0, "")
			k, _ := log.Find(key(i).ContainerID, 1)
			var got []string
			for _, s := range k.Calls[0].Steps {
				got = append(got, s.What)
				if strings.HasPrefix(s.What, "asked") && s.Took != l.slow {
					t.Errorf("it waited %v", s.Took)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("steps %q, want %q", got, want)
			}
		}
	})
}
