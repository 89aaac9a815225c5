package router

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/wire"
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

func TestContainersOfAnotherPluginKeepANetworkFromEveryHost(t *testing.T) {
	_, all := cluster3(t)
	n := create(t, all[0], ctl.NetCreateRequest{Name: "n"}, all...)
	k := lent(t, all[1], n, "c1")
	must(t, netlab.Wait(patience, "h0 has heard of it", func() error {
		if log := all[0].Log(); !strings.Contains(log, "host=h1 key=use/"+n.ID+" containers=1") {
			return fmt.Errorf("%s", log)
		}
		return nil
	}))
	_, err := call[ctl.NetRemoved](all[0], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n"})
	coded(t, err, ctl.CodeInUse, "1 container of another main plugin on host h1")
	_, err = call[ctl.NetRemoved](all[0], ctl.PathNetRemove, ctl.NetRemoveRequest{Ref: "n", Force: true})
	must(t, err)
	must(t, netlab.Wait(patience, "h0 says what it waits for", func() error {
		got, err := call[ctl.Net](all[0], ctl.PathNetInspect, ctl.NetRef{Ref: "n"})
		if err == nil && !strings.HasPrefix(got.Waiting, "1 container of another main plugin on host h1, which --force does not detach") {
			err = fmt.Errorf("%+v", got)
		}
		return err
	}))
	_, err = call[struct{}](all[1], ctl.PathRelease, ctl.KeyRequest{Key: k})
	must(t, err)
	vanishes(t, n, all...)
}

func FuzzUseOfAPeer(f *testing.F) {
	codec := wire.New()
	good, err := codec.Encode(overlay.Use{Containers: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("n", good)
	f.Add("", []byte("\xa1\x01\x20"))
	f.Fuzz(func(t *testing.T, id string, b []byte) {
		var u overlay.Use
		if codec.Decode(b, &u) != nil {
			return
		}
		v := overlay.NewView()
		v.SetUse("a", overlay.UsePrefix+id, &u)
		if got := v.Uses(id)["a"]; got < 0 || (got > 0) != u.Valid() {
			t.Errorf("%d of %+v", got, u)
		}
		if v.SetUse("a", overlay.UsePrefix+id, nil); len(v.Uses(id)) > 0 {
			t.Errorf("it stays")
		}
	})
}
