package meshlink

import (
	"sync"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// maxNames bounds the directory; it is emptied of the unreachable when full.
const maxNames = 4096

// directory knows the names behind mesh's: from hellos, from frames, and from
// the answers to our asking.
type directory struct {
	mu     sync.Mutex
	byMesh map[mesh.PeerName]known
	news   func() // called when a name was new; must not block
}

// known is what we know of a host. Its name is right for ever, since it has that
// hash; the rest belongs to one process of it, which mesh tells by a random UID.
type known struct {
	name     gossip.Peer
	memberID uint64 // 0 as long as it has not told
	uid      mesh.PeerUID
}

// announcement is the message on the link's own channel.
type announcement struct {
	Ask      bool   `cbor:"1,keyasint"` // the sender would like the same of the receiver
	MemberID uint64 `cbor:"2,keyasint"`
}

// met records the name behind a mesh name; the caller has compared the hash.
func (d *directory) met(m mesh.PeerName, name gossip.Peer) {
	d.mu.Lock()
	_, old := d.byMesh[m]
	if !old && len(d.byMesh) < maxNames {
		d.byMesh[m] = known{name: name}
	}
	d.mu.Unlock()
	if !old {
		d.news()
	}
}

// told records which key pair the process of a host has. Which UID mesh gives
// that process is seen later.
func (d *directory) told(m mesh.PeerName, memberID uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k, ok := d.byMesh[m]; ok {
		if k.memberID != memberID {
			k.uid = 0
		}
		k.memberID = memberID
		d.byMesh[m] = k
	}
}

// seen records that mesh shows a host with this UID and returns what is known of
// it. What it told belongs to the first process that is seen afterwards; of
// another one only the name is known.
func (d *directory) seen(m mesh.PeerName, uid mesh.PeerUID) (k known, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok = d.byMesh[m]
	switch {
	case !ok || k.uid == uid:
	case k.uid == 0 && k.memberID != 0:
		k.uid = uid
		d.byMesh[m] = k
	default:
		k.memberID, k.uid = 0, 0
		d.byMesh[m] = k
	}
	return k, ok
}

func (d *directory) get(m mesh.PeerName) (known, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.byMesh[m]
	return k, ok
}

// keep forgets hosts that are not reachable, when there are too many.
func (d *directory) keep(reachable func(mesh.PeerName) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.byMesh) < maxNames {
		return
	}
	for m := range d.byMesh {
		if !reachable(m) {
			delete(d.byMesh, m)
		}
	}
}

// ask sends a host our announcement and asks for its own.
func (l *Link) announce(to mesh.PeerName, ask bool) {
	body, err := l.codec.Encode(announcement{ask, l.cfg.ID.MemberID()})
	if err != nil {
		l.cfg.Log.Error("encode an announcement", "error", err)
		return
	}
	// A full or missing queue is no matter: it is asked again in a second.
	_ = l.post.put(to, message{from: l.self, channel: own, body: body}.encode())
}

// hearOwn acts on an announcement.
func (l *Link) hearOwn(src mesh.PeerName, m message) {
	var a announcement
	if len(m.body) > 64 || l.codec.Decode(m.body, &a) != nil {
		l.stats.BadFrames.Add(1)
		return
	}
	l.names.told(src, a.MemberID)
	l.stir()
	if a.Ask {
		l.announce(src, false)
	}
}
