package overlay

import (
	"strings"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// UsePrefix and a network's id are the key of the record of what a host has on a network
// beside its endpoints. A host that does not know of it passes it over.
const UsePrefix = "use/"

// Use counts what other main plugins attached with addresses of a network and no name:
// containers that nobody elsewhere has to reach by this host, and that keep the network.
type Use struct {
	Containers int `cbor:"1,keyasint"`
}

// Valid reports whether the record is one that a host writes.
func (u Use) Valid() bool { return u.Containers > 0 }

// SetUse notes what a host has on a network; nil says that there is nothing any more.
func (v *View) SetUse(origin gossip.Peer, key string, u *Use) {
	id := strings.TrimPrefix(key, UsePrefix)
	v.mu.Lock()
	defer v.mu.Unlock()
	if u == nil || !u.Valid() {
		delete(v.uses[origin], id)
		if len(v.uses[origin]) == 0 {
			delete(v.uses, origin)
		}
		return
	}
	if v.uses[origin] == nil {
		v.uses[origin] = map[string]int{}
	}
	v.uses[origin][id] = u.Containers
}

// Uses counts, by host, what is on a network beside the endpoints.
func (v *View) Uses(id string) map[gossip.Peer]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[gossip.Peer]int{}
	for origin, uses := range v.uses {
		if n := uses[id]; n > 0 {
			out[origin] = n
		}
	}
	return out
}
