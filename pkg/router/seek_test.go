package router

import (
	"fmt"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// Each network waited hostAddrWithin for the ledger, one after the other.
func TestSettlingManyNetworksDoesNotWaitForASilentLedger(t *testing.T) {
	const many = int(patience/hostAddrWithin) + 5
	lab, all := cluster3(t)
	for i := range many {
		_, err := call[ctl.Net](all[0], ctl.PathNetCreate, ctl.NetCreateRequest{Name: fmt.Sprint("n", i)})
		must(t, err)
	}
	stand(t, all[0], many)
	for _, r := range all {
		must(t, r.Kill())
	}
	h := lab.Host(0)
	h.MustRun(t, "sh", "-c", "rm -r /run/weave/witness; nft delete table inet weave")
	must(t, all[0].Restart()) // it has its claims, and no majority that says that its state is the present one
	must(t, netlab.Wait(patience, "the firewall stands", func() error {
		_, err := h.Run("nft", "list", "table", "inet", "weave")
		return err
	}))
	must(t, all[1].Restart())
	stand(t, all[0], many)
}

// stand waits until so many networks stand on a host, beside the default one.
func stand(t *testing.T, r *lone, many int) {
	t.Helper()
	must(t, netlab.Wait(patience, "all networks stand", func() error {
		got, err := call[ctl.NetList](r, ctl.PathNets, nil)
		if err == nil && len(got.Networks) != many+1 {
			err = fmt.Errorf("%d networks", len(got.Networks))
		}
		for _, n := range got.Networks {
			if n.State != netReady {
				return fmt.Errorf("%+v", n)
			}
		}
		return err
	}))
}
