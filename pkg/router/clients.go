package router

import (
	"net"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ipam"
)

// maxServers is how many servers of its own one container may have.
const maxServers = 8

// askable are those of a container's own servers that this host can ask in its place. One
// on a loopback, or of one link, would be another one here.
func askable(servers []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, s := range servers {
		if s = s.Unmap(); s.IsGlobalUnicast() && s.Zone() == "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out[:min(len(out), maxServers)]
}

// serversOf is whom the name server asks for a container.
func serversOf(c ipam.Claim) []string {
	var out []string
	for _, s := range askable(c.Servers) { // a claim's file says what it likes
		out = append(out, net.JoinHostPort(s.String(), "53"))
	}
	return out
}
