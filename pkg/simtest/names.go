package simtest

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/record"
)

// deltas is an answer to a digest, with the answerer's own.
type deltas struct {
	digest record.Digest
	list   []record.Delta
	asks   bool // for the receiver's
}

// seal stands for a signature: who signed what.
func seal(by gossip.Peer, msg []byte) []byte {
	h := uint64(14695981039346656037)
	for _, text := range [2]string{string(by), string(msg)} {
		for i := range len(text) {
			h = (h ^ uint64(text[i])) * 1099511628211
		}
	}
	return binary.BigEndian.AppendUint64(nil, h)
}

var errSeal = errors.New("wrong signature")

// startNames makes the records of this life, with what runs here.
func (r *router) startNames() {
	self := r.m.name
	r.names = record.New(self, r.m.state.lives,
		func(msg []byte) []byte { return seal(self, msg) }, []byte(self),
		func(_ []byte, name gossip.Peer, msg, sig []byte) error {
			if string(seal(name, msg)) != string(sig) {
				return errSeal
			}
			return nil
		})
	for _, c := range r.m.containers {
		r.name(c)
	}
	r.names.Announce()
}

// name publishes a container's record.
func (r *router) name(c *container) {
	if err := r.names.Put(c.kernel.Alias.Hash, []byte(c.kernel.Alias.Addrs[0].String())); err != nil {
		r.w.fail("%v: record of container %d: %v", r.m, c.n, err)
	}
}

func (r *router) unname(hash string) {
	if err := r.names.Delete(hash); err != nil {
		r.w.fail("%v: record %s: %v", r.m, hash, err)
	}
}

// rename makes the records those of the claims.
func (r *router) rename() {
	for _, c := range r.m.containers {
		if _, ok := r.alloc.Claim(c.kernel.Alias.Hash); ok {
			r.name(c)
		}
	}
	for _, hash := range slices.Sorted(maps.Keys(r.names.Records(r.m.name))) {
		if _, ok := r.alloc.Claim(hash); !ok {
			r.unname(hash)
		}
	}
}

// gossip asks one peer for what it has.
func (r *router) gossip() {
	if peers := r.w.net.peers(r.m.at); len(peers) > 0 {
		r.w.net.send(r.m.at, pick(r.w, peers), packet{kind: toRecords, value: deltas{digest: r.names.Digest(), asks: true}})
	}
}

func (r *router) receiveRecords(from gossip.Peer, v any) {
	d := v.(deltas)
	r.names.Heard(d.digest)
	for _, x := range d.list {
		_, _ = r.names.Merge(x) // what is refused is counted there
	}
	if r.names.Overtaken() > 0 {
		r.m.state.lives = r.names.Jump(0)
		r.m.persist()
	}
	if answer := (deltas{list: r.names.Delta(d.digest, 64<<10)}); len(answer.list) > 0 || d.asks {
		answer.digest = r.names.Digest()
		r.w.net.send(r.m.at, from, packet{kind: toRecords, value: answer})
	}
}
