package router

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestAHostThatComesBackAsAnotherMemberKeepsNothingOfANetworkThatIsGone(t *testing.T) {
	lab, all := cluster3(t)
	was := create(t, all[0], ctl.NetCreateRequest{Name: "n"}, all...)
	_, p := plug(t, all[2], lab.Host(2), was, "c1")
	must(t, all[2].Kill())
	must(t, netlab.Wait(patience, "h2 counts as destroyed", func() error { _, err := all[0].retires("h2"); return err }))
	_, err := call[ctl.NetRemoved](all[0], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n", Force: true})
	must(t, err)
	vanishes(t, was, all[0], all[1])
	is := create(t, all[0], ctl.NetCreateRequest{Name: "n", Subnets: was.Subnets}, all[0], all[1])
	_ = all[2].Restart() // it learns that it is retired, and starts itself again
	must(t, netlab.Wait(patience, "the new network stands on h2, and nothing of the old one", func() error {
		select {
		case <-all[2].Done():
			_ = all[2].Restart()
		default:
		}
		got, err := call[ctl.Net](all[2], ctl.PathNetInspect, ctl.NetRef{Ref: is.ID})
		if links := lab.Host(2).MustRun(t, "ip", "-o", "link"); err == nil && (got.State != netReady || strings.Contains(links, was.ID[:12])) {
			err = fmt.Errorf("%+v\n%s", got, links)
		}
		return err
	}))
	for _, r := range all {
		got, err := call[ctl.NetList](r, ctl.PathNets, nil)
		must(t, err)
		if hasEndpoint(got.Networks, "n", "h2", p) {
			t.Errorf("%s takes the container of the network that is gone for one of the new: %+v", r.config.Name, got)
		}
	}
	if names := lab.Host(2).MustRun(t, "ip", "-o", "link"); !strings.Contains(names, "inc1") {
		t.Errorf("the container's interface was taken away\n%s", names)
	}
	_, err = call[ctl.NetRemoved](all[1], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n"})
	must(t, err)
	vanishes(t, is, all...)
}
