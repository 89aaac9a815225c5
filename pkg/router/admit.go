package router

import (
	"fmt"

	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
)

// hello says which cluster this host is in.
func (r *Router) hello() meshlink.Hello {
	if r.replica == nil {
		return meshlink.Hello{} // before the ledger is open
	}
	return meshlink.Hello{Cluster: r.replica.State().Cluster()}
}

// accept keeps two clusters apart, even when they have the same secret: their
// ledgers can never be made one.
func (r *Router) accept(h meshlink.Hello) error {
	own := r.hello().Cluster
	if own == "" || h.Cluster == "" || own == h.Cluster {
		return nil
	}
	return fmt.Errorf("cluster %.8s… of %s and cluster %.8s… of %s never merge: to have one host join the other's cluster, stop its router, remove its state directory and start it again naming the other as PEER",
		h.Cluster, h.Name, own, r.id.Name())
}
