package ctl

import "net/netip"

// PathTopology asks for a picture of the cluster.
const PathTopology = "/v1/topology" // GET -> Topology

// Topology is the cluster as one host knows it: its own links, and those that the other
// hosts tell of.
type Topology struct {
	Self     string            `json:"self"`
	Hosts    []TopologyHost    `json:"hosts"`    // by name
	Links    []TopologyLink    `json:"links"`    // each once, A before B
	Networks []TopologyNetwork `json:"networks"` // by name
}

// The states of a host in a Topology.
const (
	HostHere    = "here"    // the one that was asked
	HostUp      = "up"      // its router is reached
	HostAway    = "away"    // a member of the cluster whose router is not reached
	HostUnknown = "unknown" // no more than an address, where nobody has answered, or a router that was refused
)

// TopologyHost is one host.
type TopologyHost struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address,omitzero"` // of its tunnels; zero when it is not known
	State   string     `json:"state"`

	// Silent: it does not tell of its links, so only those are shown that others tell of.
	Silent bool `json:"silent,omitempty"`
}

// TopologyLink is a gossip connection, or what there is in its place.
type TopologyLink struct {
	A     string `json:"a"`
	B     string `json:"b"`
	State string `json:"state"` // as Peer.State; of what both ends say the better
}

// TopologyNetwork is a network with the containers' endpoints on each host that has some.
type TopologyNetwork struct {
	Name    string          `json:"name"`
	ID      string          `json:"id"`
	Driver  string          `json:"driver"`
	Subnets []netip.Prefix  `json:"subnets"`
	Hosts   []HostEndpoints `json:"hosts"` // by name
}

// HostEndpoints counts the containers' endpoints of one network on one host.
type HostEndpoints struct {
	Host      string `json:"host"`
	Endpoints int    `json:"endpoints"`
}
