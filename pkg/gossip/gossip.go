// Package gossip is the contract between the router's parts and whatever
// carries their messages to other hosts. No type of the carrier leaves it:
// gossip/meshlink fulfils it over weaveworks/mesh, gossip/gossiptest in memory,
// with loss, for tests and the simulator.
//
// The contract is deliberately weak. A message may be lost, repeated, reordered
// or arrive long after it was sent; nothing is acknowledged. Whoever needs more
// (raft, anti-entropy) has its own means, and must keep to them.
package gossip

import "errors"

// Peer is a host's stable name (DESIGN §4), unique in a cluster. At most MaxPeer bytes.
type Peer string

// Limits of one message and of one peer's name, in bytes. A carrier refuses to
// send more and drops what arrives and is more.
const (
	MaxMessage = 256 << 10
	MaxPeer    = 64
)

// Channel separates the users of one carrier. The list is closed: a frame for
// any other channel is counted and dropped.
type Channel uint8

const (
	Records Channel = 1 // pkg/record: digests and deltas
	Ledger  Channel = 2 // pkg/replica: raft messages and requests to join

	Founding Channel = 3 // pkg/founding: who founds the cluster
)

// Errors of Send and Broadcast. All are final for that one message.
var (
	ErrTooLarge    = errors.New("message larger than 256 KiB")
	ErrUnreachable = errors.New("peer is not connected, directly or through others")
	ErrBusy        = errors.New("queue to the peer is full")
)

// Handler receives one message. The carrier calls it from one goroutine a
// channel, so handlers of a channel never run side by side; it must not block
// for longer than a few milliseconds and must not keep msg after it returns. It
// returns no error: a bad message is the handler's to count and forget, it never
// costs a connection. A panic in it is recovered, counted and logged.
type Handler func(from Peer, msg []byte)

// Net sends and receives. All methods may be called from any goroutine and none blocks.
type Net interface {
	Self() Peer

	// Handle sets the receiver of a channel. It is called before the carrier runs.
	Handle(Channel, Handler)

	// Send queues msg for one peer, through others where there is no direct
	// connection. A nil error means queued, not delivered. To oneself: delivered.
	Send(to Peer, ch Channel, msg []byte) error

	// Broadcast queues msg for every reachable peer but oneself. It is a hint.
	Broadcast(ch Channel, msg []byte) error

	// Peers lists the peers that are reachable now, sorted, without oneself;
	// Neighbours those with a direct connection.
	Peers() []Peer
	Neighbours() []Peer

	// Changed is closed when Peers or Neighbours may have changed since it was
	// asked for; ask again for the next change.
	Changed() <-chan struct{}
}
