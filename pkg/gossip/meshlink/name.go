package meshlink

import (
	"crypto/sha256"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// meshName is the name that mesh knows a host by: 46 bits of hash in the form of
// a locally administered unicast MAC. It identifies nobody; that is the
// certificate's task.
func meshName(p gossip.Peer) mesh.PeerName {
	sum := sha256.Sum256([]byte("weave mesh name\x00" + string(p)))
	sum[0] = sum[0]&^1 | 2
	var n mesh.PeerName
	for _, b := range sum[:6] {
		n = n<<8 | mesh.PeerName(b)
	}
	return n
}
