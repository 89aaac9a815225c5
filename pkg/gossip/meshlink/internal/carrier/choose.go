package carrier

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Shape of the graph of connections (DESIGN §4). Up to fullMesh hosts each is
// connected with each. Above, each calls the next one on the ring of hashed names,
// so that the graph is whole, and randomCalls others, so that it is shallow; with
// the calls that come in, that is about 8 connections a host.
const (
	fullMesh    = 30
	randomCalls = 3
	// fewSessions is when a host calls whomever it can, chosen or not.
	fewSessions = 4
)

// choose picks, of the peers that are known, those to call. The random ones are
// random in salt, and stay the same as others come and go. bad ones are left out,
// in favour of the next.
func choose(self gossip.Peer, known []gossip.Peer, salt string, bad func(gossip.Peer) bool) map[gossip.Peer]bool {
	out := map[gossip.Peer]bool{}
	if len(known) < fullMesh {
		for _, p := range known {
			out[p] = true
		}
		return out
	}
	for _, p := range nearest(known, "", ringPoint("", self), 1, bad) {
		out[p] = true
	}
	rest := slices.DeleteFunc(slices.Clone(known), func(p gossip.Peer) bool { return out[p] })
	for _, p := range nearest(rest, salt, 0, randomCalls, bad) {
		out[p] = true
	}
	return out
}

// nearest gives the n good peers that follow a point on the ring of hashes.
func nearest(peers []gossip.Peer, salt string, from uint64, n int, bad func(gossip.Peer) bool) []gossip.Peer {
	type at struct {
		peer gossip.Peer
		away uint64
	}
	ring := make([]at, 0, len(peers))
	for _, p := range peers {
		if !bad(p) {
			ring = append(ring, at{p, ringPoint(salt, p) - from})
		}
	}
	slices.SortFunc(ring, func(a, b at) int { return cmp.Compare(a.away, b.away) })
	var out []gossip.Peer
	for _, a := range ring[:min(n, len(ring))] {
		out = append(out, a.peer)
	}
	return out
}

func ringPoint(salt string, p gossip.Peer) uint64 {
	sum := sha256.Sum256([]byte("weave ring\x00" + salt + "\x00" + string(p)))
	return binary.BigEndian.Uint64(sum[:])
}
