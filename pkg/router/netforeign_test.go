package router

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// lent has an address given as weave-ipam asks for it under another main plugin.
func lent(t *testing.T, r *lone, n ctl.Net, container string) attachment.Key {
	t.Helper()
	k := attachment.Key{Network: "other", ContainerID: container, IfName: "eth0"}
	_, err := call[ctl.AllocateReply](r, ctl.PathAllocate, ctl.AllocateRequest{Key: k, Network: n.Name, Decider: ctl.DecidedByClaim})
	must(t, err)
	return k
}

func TestAForcedRemovalSaysWhatEndsTheStayOfAnotherPluginsContainers(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	r := startOn(t, h, func(*Config) {})
	r.until("it is ready", ready)
	n := create(t, r, ctl.NetCreateRequest{Name: "n"}, r)
	k := lent(t, r, n, "c1")
	_, err := call[ctl.NetRemoved](r, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n"})
	coded(t, err, ctl.CodeInUse, "c1", "but for those that another main plugin attached")
	plug(t, r, h, n, "c2")
	_, err = call[ctl.NetRemoved](r, ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n", Force: true})
	must(t, err)
	must(t, netlab.Wait(patience, "only c1 is left, and it says what to do", func() error {
		got, err := call[ctl.Net](r, ctl.PathNetInspect, ctl.NetRef{Ref: "n"})
		if links := h.MustRun(t, "ip", "-o", "link"); err == nil && (strings.Contains(links, "inc2") || !strings.Contains(got.Waiting, "(c1)") ||
			!strings.Contains(got.Waiting, "CNI GC") || strings.Contains(got.Waiting, "weave net rm --force")) {
			err = fmt.Errorf("%+v\n%s", got, links)
		}
		return err
	}))
	_, err = call[struct{}](r, ctl.PathRelease, ctl.KeyRequest{Key: k})
	must(t, err)
	vanishes(t, n, r)
}
