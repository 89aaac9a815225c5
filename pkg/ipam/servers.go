package ipam

import (
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// SetServers gives an attachment its own servers for the names of others; see allot.
func (a *Allocator) SetServers(k attachment.Key, servers []netip.Addr) (Claim, error) {
	defer a.mu.Unlock()
	return a.locked().SetServers(k, servers)
}
