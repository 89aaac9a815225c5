package router

import (
	"net"

	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/resolvconf"
)

// serversOf is whom the name server asks for a container.
func serversOf(c ipam.Claim) []string {
	var out []string
	for _, s := range resolvconf.Askable(c.Servers) { // a claim's file says what it likes
		out = append(out, net.JoinHostPort(s.String(), "53"))
	}
	return out
}
