package router

import (
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// The leader of three leaves: its successor removes the networks while it waits to be relieved.
func TestAHostThatLeavesLeavesNoBridgeOfAnyNetwork(t *testing.T) {
	lab, all := cluster3(t)
	own := create(t, all[0], ctl.NetCreateRequest{Name: "local", Driver: ctl.DriverSimpleBridge}, all[0])
	shared := create(t, all[0], ctl.NetCreateRequest{Name: "shared"}, all...)
	gone := "sb-0123456789ab" // of a network that was removed a moment ago
	lab.Host(0).MustRun(t, "ip", "link", "add", gone, "type", "bridge")
	if err := all[0].call(t.Context(), ctl.PathReset, ctl.ResetRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	all[0].ends()
	links := lab.Host(0).MustRun(t, "ip", "-o", "link")
	for _, left := range []string{gone, own.Bridge, shared.Bridge, "wx-" + shared.ID[:12], DefaultBridge + ":"} {
		if strings.Contains(links, left) {
			t.Errorf("%s is there:\n%s", left, links)
		}
	}
	vanishes(t, own, all[1], all[2])
}
