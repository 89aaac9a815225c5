package ctl

import "strings"

// How the devices begin that the router makes for networks; idDigits of the network's id follow.
const (
	BridgePrefix = "wv-" // bridge of a network of many hosts
	TunnelPrefix = "wx-" // tunnel of such a one
	LocalPrefix  = "sb-" // bridge of a network of one host
	idDigits     = 12
)

// DeviceName is a device of a network, by its whole id.
func DeviceName(prefix, id string) string { return prefix + id[:idDigits] }

// DeviceID is how the id begins of the network whose device has this name; "" for a
// device that has not that form: somebody else's, or the default network's.
func DeviceID(name string, prefixes ...string) string {
	for _, p := range prefixes {
		id, ok := strings.CutPrefix(name, p)
		if ok && len(id) == idDigits && strings.Trim(id, "0123456789abcdef") == "" {
			return id
		}
	}
	return ""
}
