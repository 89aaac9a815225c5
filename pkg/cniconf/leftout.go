package cniconf

import (
	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// LeftOut tells which of the network's attachments, by Key.Hash, a GC takes, as the router
// does (Collect): those that are not on its list and in whose namespace nobody lives;
// without a list, those whose namespace nothing holds. One whose namespace is not known
// stays.
func (c *Conf) LeftOut() (func(hash string, ns attachment.NSID) bool, error) {
	list, absent, err := c.GCList()
	if err != nil {
		return nil, err
	}
	inhabited, held, err := livingNamespaces("/proc")
	if err != nil {
		return nil, Errorf(types.ErrIOFailure, "GC of network %s: cannot tell which namespaces live: %v", c.Name, err)
	}
	valid := map[string]bool{}
	for _, k := range list {
		valid[k.Hash()] = true
	}
	return func(hash string, ns attachment.NSID) bool {
		return !valid[hash] && ns.Known() && !inhabited[ns] && !(absent && held[ns])
	}, nil
}
