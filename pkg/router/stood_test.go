package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// That another network stands says nothing of the one that is waited for.
func TestANetworkIsWaitedForUntilItStandsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Router{networks: map[string]*network{}, stood: make(chan struct{})}
		a, b := ledger.Network{ID: "a", Name: "a"}, ledger.Network{ID: "b", Name: "b"}
		wait := func(n ledger.Network) <-chan bool {
			done := make(chan bool, 1)
			ctx, cancel := context.WithTimeout(t.Context(), standWithin)
			go func() {
				defer cancel()
				r.untilStood(ctx, func() bool { return r.stands(n) })
				done <- r.stands(n)
			}()
			synctest.Wait()
			return done
		}
		late, never := wait(b), wait(ledger.Network{ID: "c"})
		r.enter(&network{Network: a})
		synctest.Wait()
		if len(late) > 0 || !<-wait(a) {
			t.Error("it is waited for the first network that stands")
		}
		r.enter(&network{Network: b})
		synctest.Wait()
		if len(late) == 0 || !<-late {
			t.Error("that the network stands is not heard")
		}
		if <-never {
			t.Error("what never stood stands")
		}
	})
}

func TestAHostThatHasOnlyToMakeANetworkLetsACallWait(t *testing.T) {
	_, all := cluster3(t)
	for name, ask := range map[string]func(network string) error{
		"weave-net": func(network string) error {
			_, err := call[ctl.Network](all[1], ctl.PathNetwork, ctl.NetworkRequest{Name: network})
			return err
		},
		"weave-ipam": func(network string) error {
			k := attachment.Key{Network: "other", ContainerID: network, IfName: "eth0"}
			_, err := call[ctl.AllocateReply](all[1], ctl.PathAllocate, ctl.AllocateRequest{Key: k, Network: network, Decider: ctl.DecidedByClaim})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 5 { // more than one: each may stand before it is asked for
				waited(t, all[0], fmt.Sprint(name, i), ask)
			}
		})
	}
}

// waited has a network made, and fails the test when a call for it is answered with less
// than the whole wait, and without it.
func waited(t *testing.T, on *lone, network string, ask func(network string) error) {
	t.Helper()
	made := make(chan error, 1)
	go func() {
		_, err := call[ctl.Net](on, ctl.PathNetCreate, ctl.NetCreateRequest{Name: network})
		made <- err
	}()
	for start := time.Now(); ; {
		asked := time.Now()
		err := ask(network)
		if err == nil {
			break
		}
		var coded *ctl.Error
		ailing := " is not ready on this host" // of what ails a network, which is said at once
		switch tooEarly := errors.As(err, &coded) && coded.Code == ctl.CodeTryAgain && !strings.HasSuffix(coded.Msg, ailing); {
		case tooEarly && time.Since(asked) < standWithin:
			t.Fatalf("after %v: %v", time.Since(asked), err)
		case time.Since(start) > patience:
			t.Fatal(err)
		}
	}
	must(t, <-made)
}
