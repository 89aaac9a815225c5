package doctor

import (
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// The default network's devices, and the ports of a router without flags.
const (
	defaultBridge = "weave"
	defaultTunnel = "weave-vx"
	gossipPort    = 6783
	vxlanPort     = 6784
	meshPort      = 6786
)

// ours are the plugins of this project.
var ours = []string{"weave-net", "weave-ipam", "weavedns", "simplebridge"}

func isBridge(name string) bool {
	return name == defaultBridge || ctl.DeviceID(name, ctl.BridgePrefix, ctl.LocalPrefix) != ""
}

func isTunnel(name string) bool {
	return name == defaultTunnel || ctl.DeviceID(name, ctl.TunnelPrefix) != ""
}

// isOurs reports whether a list starts one of our main plugins.
func (f File) isOurs() bool {
	return slices.Contains(f.Plugins, "weave-net") || slices.Contains(f.Plugins, "simplebridge")
}

func isOurPlugin(plugin string) bool { return slices.Contains(ours, plugin) }
