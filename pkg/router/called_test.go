package router

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
)

func TestWhatUsesANetworkIsNamedOnceAsAPersonKnowsIt(t *testing.T) {
	web, box := strings.Repeat("ae3bd4a0", 8), "netns-5b8684bea72e08096f9f"
	claim := func(id, ifname string, names ...string) ipam.Claim {
		return ipam.Claim{Key: attachment.Key{Network: "blue", ContainerID: id, IfName: ifname}, Names: names}
	}
	claims := []ipam.Claim{claim(web, "eth1"), claim(web, "eth2", "web1", "www"), claim(box, "eth0"), claim("c1", "eth0", "c1"), {}}
	for i := range claims {
		claims[i].Hash = claims[i].Key.Hash()
	}
	at := func(host, addr string, names ...string) ctl.NetEndpoint {
		return ctl.NetEndpoint{Host: host, Names: names, Addresses: []netip.Prefix{netip.MustParsePrefix(addr)}}
	}
	got := usersOf("h1", claims, []ctl.NetEndpoint{
		at("h1", "10.48.0.1/20", "web1"), at("h2", "10.48.0.2/20", "db"), at("h2", "10.48.0.3/20", "db"), at("h3", "10.48.0.2/20", "db"), at("h3", "10.48.0.4/20"),
	})
	want := []string{
		"container web1 (ae3bd4a0ae3b) on host h1", "container netns-5b8684 on host h1", "container c1 on host h1", "container " + claims[4].Veth() + " on host h1",
		"container db on host h2", "container db on host h3", "a container with 10.48.0.4/20 on host h3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAResetNamesOnceWhoIsInItsWay(t *testing.T) {
	claims := []ipam.Claim{
		{Key: attachment.Key{ContainerID: "aaaabbbbccccdddd", IfName: "eth0"}, Names: []string{"web1"}}, {Key: attachment.Key{ContainerID: "aaaabbbbccccdddd", IfName: "eth1"}},
		{Key: attachment.Key{ContainerID: "feed", IfName: "eth0"}},
	}
	for i := range claims {
		claims[i].Hash = claims[i].Key.Hash()
	}
	for _, c := range []struct {
		held []string
		want string
	}{
		{[]string{"aaaabbbbccccdddd", "feed"}, "to this host, h1: web1 (aaaabbbbcccc), feed: remove them"},
		{[]string{"aaaabbbbccccdddd", "gone", "gone"}, "to this host, h1: web1 (aaaabbbbcccc), gone: remove them"},
	} {
		coded(t, stillHere("h1", c.held, claims), ctl.CodeInvalidConfig, c.want)
	}
}
