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

// accept judges a peer by what it says of itself.
func (r *Router) accept(h meshlink.Hello) error {
	own := r.hello()
	own.Name, own.VXLAN = r.id.Name(), r.config.VXLANPort
	return compatible(own, h)
}

// compatible keeps two clusters apart, even when they have the same secret: their
// ledgers can never be made one. And it keeps out a host whose overlay listens on
// another port: no packet would pass between it and any other host, and it must
// hear of that before containers are put there, not after.
func compatible(own, h meshlink.Hello) error {
	if own.VXLAN != h.VXLAN && own.VXLAN != 0 && h.VXLAN != 0 {
		return fmt.Errorf("%s has its overlay on UDP port %d and %s on %d, so no packet would pass: give all hosts of a cluster the same --vxlan-port",
			h.Name, h.VXLAN, own.Name, own.VXLAN)
	}
	if own.Cluster == "" || h.Cluster == "" || own.Cluster == h.Cluster {
		return nil
	}
	return fmt.Errorf("cluster %.8s… of %s and cluster %.8s… of %s never merge: to have one host join the other's cluster, stop its router, remove its state directory and start it again naming the other as PEER",
		h.Cluster, h.Name, own.Cluster, own.Name)
}
