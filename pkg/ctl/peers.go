package ctl

// The calls about the PEERs of the running router: the addresses that it dials whoever is
// there, besides those of the cluster's members that it has learnt.
const (
	PathConnect    = "/v1/peers/connect" // PeersRequest -> PeersReply; all of them or, with an error, none
	PathForgetPeer = "/v1/peers/forget"  // PeersRequest -> PeersReply; likewise; a connection that stands stays
)

// MaxTargets is how many PEERs may be named while the router runs.
const MaxTargets = 64

// PeersRequest names hosts: HOST or HOST:PORT each.
type PeersRequest struct {
	Peers []string `json:"peers"`
}

// PeersReply answers PeersRequest with what was asked for, in that order.
type PeersReply struct {
	Peers []Target `json:"peers"`
}

// Target is a PEER.
type Target struct {
	Peer      string `json:"peer"`                // HOST:PORT
	AtStart   bool   `json:"at_start,omitempty"`  // it is one of those that the router was started with
	Forgotten bool   `json:"forgotten,omitempty"` // it is not dialled; of one with at_start: until the next start
	Unchanged bool   `json:"unchanged,omitempty"` // in a reply: it was so before
}
