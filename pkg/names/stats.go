package names

import (
	"net/netip"
	"sync/atomic"
)

// outcome is how a query ended.
type outcome uint8

const (
	answered  outcome = iota
	noData            // the name is ours and has nothing of that type
	noName            // the name would be ours and does not exist
	forward           // somebody else's answer was handed on
	cached            // and so it was from the cache
	withheld          // somebody else's name, in a network without a way out
	looped            // our own query to an upstream had come back to us
	failed            // nobody who was asked had an answer
	busy              // too much is being asked at once, by this client or by all
	refused           // a class or type that is not served
	malformed         // no query of DNS as it is served
	dropped           // nothing that one answers
	panicked          // our own fault: the query was given up, the server was not
	outcomes
)

// String is the outcome's name in Stats.
func (o outcome) String() string {
	return [outcomes]string{"answered", "nodata", "nxdomain", "forwarded", "cached", "internal", "looped", "failed", "busy", "refused", "malformed", "dropped", "panicked"}[o]
}

type counters [outcomes]atomic.Uint64

func (c *counters) count(o outcome) { c[o].Add(1) }

// Stats is the state of the server.
type Stats struct {
	Queries        map[string]uint64 `json:"queries"`   // since the start, by outcome
	Own            Histogram         `json:"own"`       // how long the answers took that are ours
	Cached         Histogram         `json:"cached"`    // those of others that were kept
	Forwarded      Histogram         `json:"forwarded"` // and those that others were asked for
	Names          int               `json:"names"`
	Records        int               `json:"records"`
	Forwarding     int               `json:"forwarding"`     // queries in flight to upstreams
	Waiting        int               `json:"waiting"`        // queries held back until it is their client's turn
	Cache          CacheStats        `json:"cache"`          // of others' answers
	Upstreams      []UpstreamStats   `json:"upstreams"`      // by address
	Rebinds        uint64            `json:"rebinds"`        // answers of theirs out of which addresses were taken
	TCPConnections int               `json:"tcpConnections"` // open now
	TCPRefused     uint64            `json:"tcpRefused"`     // over a bound, since the start
	TCPEvicted     uint64            `json:"tcpEvicted"`     // idle ones that made room for others, since the start
	Listeners      []ListenerStats   `json:"listeners"`      // by address
}

// ListenerStats is one address that is served, or tried.
type ListenerStats struct {
	Network string     `json:"network"`
	Addr    netip.Addr `json:"addr"`
	Error   string     `json:"error,omitempty"` // why it cannot be served now; it is tried each second
}
