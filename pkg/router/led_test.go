package router

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func TestAnOrderIsGivenUpOnceNoLeaderIsHeardAndNotInAnElection(t *testing.T) {
	for name, c := range map[string]struct {
		led  func(time.Duration) bool
		want bool
		took time.Duration
	}{
		"nobody leads":     {func(time.Duration) bool { return false }, true, unledWithin},
		"somebody leads":   {func(time.Duration) bool { return true }, false, leaveWithin},
		"elections":        {func(d time.Duration) bool { return d%unledWithin > unledWithin-2*leaderLook }, false, leaveWithin},
		"the leader falls": {func(d time.Duration) bool { return d <= time.Second }, true, time.Second + unledWithin},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), leaveWithin)
			defer cancel()
			begin := time.Now()
			got := unled(ctx, func() bool { return c.led(time.Since(begin)) })
			if took := time.Since(begin); got != c.want || took != c.took {
				t.Errorf("%s: %v after %v", name, got, took)
			}
		})
	}
}

func TestASecondResetIsRefusedWhileTheFirstIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Router{resetTurn: make(chan struct{}, 1)}
		r.resetTurn <- struct{}{}
		_, err := r.apiReset(t.Context(), ctl.ResetRequest{Abandon: true})
		coded(t, err, ctl.CodeTryAgain, "another `weave reset` is under way")
	})
}
