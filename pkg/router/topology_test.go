package router

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
	"github.com/weave-cni/weave-cni/pkg/netlab"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

func TestOfTooManyLinksTheRelayedOnesAreNotTold(t *testing.T) {
	var peers []meshlink.PeerStatus
	for i := range overlay.MaxLinks {
		peers = append(peers,
			meshlink.PeerStatus{Name: gossip.Peer(fmt.Sprint("r", i)), State: meshlink.Relayed},
			meshlink.PeerStatus{Name: gossip.Peer(fmt.Sprint("c", i)), State: meshlink.Connected})
	}
	peers = append(peers, meshlink.PeerStatus{Addr: "10.0.0.9:6783", State: meshlink.Dialling},
		meshlink.PeerStatus{Name: "c0", State: meshlink.Refused, Count: 3})
	l := ownLinks(peers)
	if len(l.To) != overlay.MaxLinks || !l.Valid() {
		t.Fatalf("%d links, valid %v", len(l.To), l.Valid())
	}
	for _, to := range l.To {
		if to.State != overlay.LinkConnected {
			t.Errorf("%+v is told", to)
		}
	}
}

func FuzzLinksOfAPeer(f *testing.F) {
	codec := wire.New()
	good, err := codec.Encode(overlay.Links{To: []overlay.Link{{Peer: "beta", State: overlay.LinkRelayed}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("\xa1\x01\x81\xa2\x01\x61\x1b\x02\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l overlay.Links
		if codec.Decode(b, &l) != nil || !l.Valid() {
			return
		}
		v := overlay.NewView()
		v.SetLinks("a", &l)
		for _, to := range v.Links()["a"].To {
			if stateOf(to.State) == "" || to.Peer == "" {
				t.Errorf("%+v", to)
			}
		}
	})
}

func (r *lone) topology() (t ctl.Topology, err error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	err = ctl.New(r.config.socket(), 0).Call(ctx, ctl.PathTopology, nil, &t)
	return t, err
}

func TestAHostKnowsOfTheLinksBetweenTwoOthers(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 3})
	a := startOn(t, lab.Host(0), as("a"))
	a.until("it is ready", ready)
	peer := lab.Host(0).Addr().String()
	for i, name := range []string{"b", "c"} {
		startOn(t, lab.Host(i+1), func(c *Config) { c.Name, c.Peers = name, []string{peer} }).until("it is ready", ready)
	}
	want := []ctl.TopologyLink{{A: "a", B: "b", State: "connected"}, {A: "a", B: "c", State: "connected"}, {A: "b", B: "c", State: "connected"}}
	err := netlab.Wait(time.Minute, "a knows of the link of b and c", func() error {
		top, err := a.topology()
		if err == nil && !slices.Equal(top.Links, want) {
			err = fmt.Errorf("got %+v", top.Links)
		}
		return err
	})
	must(t, err)
	top, err := a.topology()
	must(t, err)
	if len(top.Hosts) != 3 || top.Self != "a" || top.Hosts[0].State != ctl.HostHere || top.Hosts[2].State != ctl.HostUp || top.Hosts[2].Address != lab.Host(2).Addr() {
		t.Errorf("hosts %+v", top.Hosts)
	}
	if len(top.Networks) != 1 || top.Networks[0].Name != DefaultNetwork || len(top.Networks[0].Hosts) != 0 {
		t.Errorf("networks %+v: the hosts' own addresses are no endpoints", top.Networks)
	}
	sees := a.until("it knows where both are", func(s ctl.Status) bool {
		return len(s.Peers) == 2 && s.Peers[0].Address != "" && s.Peers[1].Address != "" && len(s.Overlay) == 2
	})
	for i, p := range sees.Peers { // they dialled a
		if want := lab.Host(i + 1).Addr().String(); p.State != "connected" || !strings.HasPrefix(p.Address, want) {
			t.Errorf("%+v is at %s", p, want)
		}
		if sees.Overlay[i].Endpoints != 0 {
			t.Errorf("%+v: the hosts' own addresses are no endpoints", sees.Overlay[i])
		}
	}
}
