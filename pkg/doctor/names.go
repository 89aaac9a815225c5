package doctor

import (
	"slices"
	"strings"
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

func isBridge(name string) bool { return name == defaultBridge || withHex(name, "wv-", "sb-") }
func isTunnel(name string) bool { return name == defaultTunnel || withHex(name, "wx-") }

// withHex reports whether a name is one of the prefixes and 12 hexadecimal digits.
func withHex(name string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		rest, found := strings.CutPrefix(name, p)
		return found && len(rest) == 12 && strings.Trim(rest, "0123456789abcdef") == ""
	})
}

// isOurs reports whether a list starts one of our main plugins.
func (f File) isOurs() bool {
	return slices.Contains(f.Plugins, "weave-net") || slices.Contains(f.Plugins, "simplebridge")
}

func isOurPlugin(plugin string) bool { return slices.Contains(ours, plugin) }
