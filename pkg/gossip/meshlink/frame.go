package meshlink

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// A frame is one message of ours inside mesh's:
//
//	byte 0    version, 1
//	byte 1    channel; 0 is the link's own
//	byte 2    hops that a broadcast may still go
//	byte 3    length of the sender's name
//	byte 4-7  length of the message, big endian
//	          the name, the message
//
// The name is there because mesh knows a host by 48 bits of hash only.
const (
	frameVersion = 1
	frameHeader  = 8
	maxFrame     = frameHeader + gossip.MaxPeer + gossip.MaxMessage
	maxHops      = 32
)

// own is the channel on which links ask each other's names.
const own gossip.Channel = 0

// Errors of decodeFrame: what is wrong with a frame from a peer.
var (
	errShort   = errors.New("frame is shorter than it says")
	errVersion = errors.New("frame of an unknown version")
	errLong    = errors.New("frame is larger than allowed")
	errName    = errors.New("frame has a bad name")
)

// message is a decoded frame. Its bytes are part of what it was decoded from.
type message struct {
	from    gossip.Peer
	channel gossip.Channel
	hops    byte
	body    []byte
}

// encode builds the frame. The caller has checked the limits.
func (m message) encode() []byte {
	b := make([]byte, frameHeader, frameHeader+len(m.from)+len(m.body))
	b[0], b[1], b[2], b[3] = frameVersion, byte(m.channel), m.hops, byte(len(m.from))
	binary.BigEndian.PutUint32(b[4:], uint32(len(m.body)))
	b = append(b, m.from...)
	return append(b, m.body...)
}

// decodeFrame reads the frame at the beginning of b and returns what follows it.
func decodeFrame(b []byte) (m message, rest []byte, err error) {
	if len(b) < frameHeader {
		return message{}, nil, errShort
	}
	if b[0] != frameVersion {
		return message{}, nil, fmt.Errorf("%w: %d", errVersion, b[0])
	}
	name, body := int(b[3]), binary.BigEndian.Uint32(b[4:])
	if body > gossip.MaxMessage {
		return message{}, nil, errLong
	}
	if name == 0 || name > gossip.MaxPeer {
		return message{}, nil, errName
	}
	end := frameHeader + name + int(body)
	if len(b) < end {
		return message{}, nil, errShort
	}
	m = message{gossip.Peer(b[frameHeader : frameHeader+name]), gossip.Channel(b[1]), b[2], b[frameHeader+name : end : end]}
	return m, b[end:], nil
}

// Bounds of broadcasts that wait for a slow peer, and of one part on the way.
const (
	maxBundle = 1 << 20 // bytes
	maxPart   = maxFrame
)

// bundle is what mesh has to broadcast: frames, oldest first. It is never
// changed, because mesh shares it between the peers that it sends to.
type bundle struct {
	frames [][]byte
	size   int
	lost   func(frames int) // counts what merging has to leave out
}

func newBundle(frames [][]byte, lost func(int)) bundle {
	b := bundle{frames: frames, lost: lost}
	for _, f := range frames {
		b.size += len(f)
	}
	return b
}

// Merge gives both bundles in one, without the oldest frames where that is too
// much: the newest tell most.
func (b bundle) Merge(other mesh.GossipData) mesh.GossipData {
	o, ok := other.(bundle)
	if !ok {
		return b
	}
	frames := make([][]byte, 0, len(b.frames)+len(o.frames))
	frames = append(append(frames, b.frames...), o.frames...)
	size, drop := b.size+o.size, 0
	for size > maxBundle && drop < len(frames)-1 {
		size -= len(frames[drop])
		drop++
	}
	if drop > 0 {
		b.lost(drop)
	}
	return bundle{frames[drop:], size, b.lost}
}

// Encode packs the frames into as few parts as hold them.
func (b bundle) Encode() [][]byte {
	var parts [][]byte
	var part []byte
	for _, f := range b.frames {
		if len(part) > 0 && len(part)+len(f) > maxPart {
			parts, part = append(parts, part), nil
		}
		part = append(part, f...)
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts
}

// relay gives the frames of a part that came from a peer, for passing on, each
// with one hop less; and the messages in them. It stops at the first bad frame.
func relay(part []byte) (messages []message, frames [][]byte, err error) {
	for len(part) > 0 {
		m, rest, err := decodeFrame(part)
		if err != nil {
			return messages, frames, err
		}
		messages = append(messages, m)
		if m.hops > 0 {
			onward := m
			onward.hops--
			frames = append(frames, onward.encode())
		}
		part = rest
	}
	return messages, frames, nil
}
