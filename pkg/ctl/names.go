package ctl

import (
	"net/netip"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// Paths of the calls about names.
const (
	PathDNSAdd    = "/v1/dns/add"    // HandName -> HandName: all addresses that it has now
	PathDNSRemove = "/v1/dns/remove" // HandName -> HandName: what is left of it
	PathDNSLookup = "/v1/dns/lookup" // LookupRequest -> LookupReply
	PathDNSTrace  = "/v1/dns/trace"  // QueriesRequest -> Queries
)

// MaxHandNames is how many names may be added by hand on one host.
const MaxHandNames = 1024

// Service is a port that a container offers, which DNS answers as _NAME._PROTOCOL.CONTAINER.
type Service struct {
	Name     string `json:"name"`     // as in "http": 1 to 15 letters, digits and '-'
	Protocol string `json:"protocol"` // "tcp", "udp", "sctp"
	Port     uint16 `json:"port"`     // the container's
}

// HandName is a name that was added by hand, on the host that is asked.
type HandName struct {
	Name      string       `json:"name"`
	Network   string       `json:"network,omitempty"`   // who may ask for it; "": the default network. A name, or an id or its beginning
	Addresses []netip.Addr `json:"addresses,omitempty"` // to add, at least one; to remove, none stands for all
	Remarks   []string     `json:"remarks,omitempty"`   // of an answer: what its user may not expect, a sentence each
}

// LookupRequest asks what a container of a network would be answered.
type LookupRequest struct {
	Name    string `json:"name"`              // or an address: which names it has
	Network string `json:"network,omitempty"` // as in HandName
	Type    string `json:"type,omitempty"`    // "A", "AAAA", "PTR", "SRV", "TXT" or another of DNS; "": what fits the name
}

// LookupReply answers LookupRequest.
type LookupReply struct {
	Network  string         `json:"network"`
	Unserved bool           `json:"unserved,omitempty"` // the host has no name server (--no-dns): nobody is answered so
	Asked    string         `json:"asked"`              // the name that was answered, whole: what was asked for, or with the domain behind it
	Status   string         `json:"status"`             // "NOERROR", "NXDOMAIN", "SERVFAIL" and so on
	Source   string         `json:"source"`             // "weave", "upstream" (or what is kept of its answers), or "none": an internal network asks nobody
	Records  []LookupRecord `json:"records"`
}

// LookupRecord is one record of an answer.
type LookupRecord struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`  // seconds
	Data string `json:"data"` // as dig shows it
}

// QueriesRequest has a container's queries noted from now on, for as long as it is asked
// again within 10 s each time.
type QueriesRequest struct {
	Container string          `json:"container,omitempty"` // as in TraceRequest
	NetNS     attachment.NSID `json:"netns,omitzero"`
	After     uint64          `json:"after,omitempty"` // Queries.Last of the answer before
}

// Queries answers QueriesRequest.
type Queries struct {
	Container string       `json:"container"`
	Addresses []netip.Addr `json:"addresses"` // from which its queries come
	Queries   []Query      `json:"queries"`   // the oldest first
	Last      uint64       `json:"last"`      // the number of the latest one
	Missed    uint64       `json:"missed"`    // that made room for later ones before they were told
}

// Query is one question that a container put to the name server.
type Query struct {
	At      time.Time     `json:"at"`
	Client  netip.Addr    `json:"client"`
	Name    string        `json:"name"`
	Type    string        `json:"type"`
	Outcome string        `json:"outcome"` // as the metrics have it: "answered", "nodata", "nxdomain", "forwarded" and so on
	Took    time.Duration `json:"took"`
}
