package router

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
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

func TestOnlyABridgeOfAnotherClusterThatHasContainersStaysOfANetworkThatIsGone(t *testing.T) {
	const id = "0123456789ab"
	there := []ledger.Network{{ID: "ba9876543210" + strings.Repeat("0", 52)}}
	on := func(bridge string) []port { return []port{{ipam.Kernel{Veth: "v"}, bridge}} }
	for name, c := range map[string]struct {
		devices []netdev.Device
		ports   []port
		want    map[string]remains
	}{
		"of this cluster": {[]netdev.Device{{Name: "wv-" + id, Cluster: "c"}, {Name: "wx-" + id}}, on("wv-" + id),
			map[string]remains{id: {gone: []string{"wv-" + id, "wx-" + id}}}},
		"of another": {[]netdev.Device{{Name: "wv-" + id, Cluster: "d"}, {Name: "wx-" + id}}, on("wv-" + id),
			map[string]remains{id: {[]string{"wx-" + id}, "wv-" + id, on("wv-" + id)}}},
		"of an older version": {[]netdev.Device{{Name: "sb-" + id}}, on("sb-" + id),
			map[string]remains{id: {nil, "sb-" + id, on("sb-" + id)}}},
		"of another, empty": {[]netdev.Device{{Name: "sb-" + id, Cluster: "d"}}, on("weave"),
			map[string]remains{id: {gone: []string{"sb-" + id}}}},
		"a tunnel alone": {[]netdev.Device{{Name: "wx-" + id}}, nil,
			map[string]remains{id: {gone: []string{"wx-" + id}}}},
		"there": {[]netdev.Device{{Name: "wv-ba9876543210", Cluster: "d"}, {Name: "weave"}, {Name: "br0"}}, on("weave"),
			map[string]remains{}},
	} {
		if got := remainsOf("c", there, c.devices, c.ports); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// A ledger that was damaged is moved away, as its message says: containers stay as they are.
func TestAHostThatFoundsAnewKeepsTheBridgesOfItsContainersAsLongAsTheseLive(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 1})
	h := lab.Host(0)
	r := startOn(t, h, func(*Config) {})
	r.until("ready", ready)
	n := create(t, r, ctl.NetCreateRequest{Name: "n"}, r)
	empty := create(t, r, ctl.NetCreateRequest{Name: "empty", Driver: ctl.DriverSimpleBridge}, r)
	k, _ := plug(t, r, h, n, "c1")
	must(t, r.Kill())
	h.MustRun(t, "mv", r.config.StateDir+"/ledger.db", r.config.StateDir+"/ledger.db.damaged")
	must(t, r.Restart())
	r.until("what stays is said", problem("bridge "+n.Bridge+" is of no network of this cluster, and stays for 1 container: c1"))
	links := h.MustRun(t, "ip", "-o", "link")
	if !strings.Contains(links, n.Bridge) || !strings.Contains(links, k.Veth()) {
		t.Errorf("the bridge of a container is gone\n%s", links)
	}
	if strings.Contains(links, empty.Bridge) || strings.Contains(links, "wx-"+n.ID[:12]) {
		t.Errorf("what nobody needs is still there\n%s", links)
	}
	create(t, r, ctl.NetCreateRequest{Name: "next"}, r) // its VNI may be that of the former one
	h.MustRun(t, "ip", "link", "del", k.Veth())
	r.until("nothing is left to say", func(s ctl.Status) bool { return !problem(n.Bridge)(s) })
	if links := h.MustRun(t, "ip", "-o", "link"); strings.Contains(links, n.Bridge) {
		t.Errorf("the bridge is still there\n%s", links)
	}
}
