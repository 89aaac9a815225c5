package allot

import (
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// SetServers gives an attachment its own servers for the names of others, in the place of
// those before, and answers with its claim. CodeUnknownContainer when there is none.
func (a *Core) SetServers(k attachment.Key, servers []netip.Addr) (Claim, error) {
	c, ok := a.book.Claim(k.Hash())
	if !ok {
		return Claim{}, ctl.Errorf(ctl.CodeUnknownContainer, "container %s, interface %s is not attached to network %s", k.ContainerID, k.IfName, k.Network)
	}
	if slices.Equal(c.Servers, servers) {
		return c, nil
	}
	c.Servers = slices.Clone(servers)
	return c, a.save(c)
}
