// Package ctl is the router's local API, version 1, as Go types with a client:
// HTTP with JSON bodies over a unix socket that only root may open. The plugins
// and the weave command are its callers; pkg/control serves it.
//
// A call that fails answers with a status of 400 or above and an Error as body,
// whose code is a CNI error code, so that a plugin hands it on as it is.
package ctl

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// DefaultSocket is where the router listens unless it is told otherwise.
const DefaultSocket = "/run/weave/weave.sock"

// RouterLock is the abstract socket that the router of a network namespace is bound to
// until its process ends.
const RouterLock = "@weave-router"

// Paths of the calls. All take POST with a request body but the ones marked GET.
const (
	PathNetwork  = "/v1/network"  // NetworkRequest -> Network; the network's bridge exists when it answers
	PathAllocate = "/v1/allocate" // AllocateRequest -> AllocateReply
	PathRelease  = "/v1/release"  // KeyRequest -> {}
	PathReserved = "/v1/reserved" // ReservedRequest -> {}; CodeUnknownContainer when not so
	PathCommit   = "/v1/commit"   // CommitRequest -> {}
	PathDetach   = "/v1/detach"   // KeyRequest -> {}; the link is gone when it answers
	PathCollect  = "/v1/collect"  // CollectRequest -> CollectReply
	PathRegister = "/v1/register" // RegisterRequest -> Resolver
	PathForget   = "/v1/forget"   // KeyRequest -> {}: the attachment's names
	PathNames    = "/v1/names"    // KeyRequest -> RegisteredNames
	PathRetire   = "/v1/retire"   // RetireRequest -> Retired
	PathReset    = "/v1/reset"    // ResetRequest -> {}; the router begins anew, or ends, when it has answered
	PathReady    = "/v1/ready"    // GET -> Ready
	PathStatus   = "/v1/status"   // GET -> Status
	PathReport   = "/v1/report"   // GET -> JSON of every part's own status
)

// CNI error codes that the router answers with, and our own from 100 on.
const (
	CodeUnknownContainer = 3
	CodeInvalidConfig    = 7
	CodeTryAgain         = 11
	CodeNotAvailable     = 50  // STATUS: ADD cannot be served
	CodeDegraded         = 51  // STATUS: and containers that exist may be cut off
	CodeInternal         = 99  // the router's own fault
	CodeNetworkFull      = 100 // every address of the network is in use
	CodeAddressTaken     = 101 // the requested address or MAC belongs to another attachment
	CodeBridgeFull       = 102 // the bridge has its 1023 ports
)

// Error is a failure as a plugin prints it.
type Error struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details,omitempty"`
}

func (e *Error) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + ": " + e.Details
}

// Errorf makes an Error without details.
func Errorf(code uint, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// NetworkRequest asks for the network of an attachment that stands; else for the one
// that an endpoint is on; else, and where the endpoint says none, for one by its name.
type NetworkRequest struct {
	Name     string         `json:"name"`               // in the ledger
	Endpoint string         `json:"endpoint,omitempty"` // pkg/endpoint's grammar
	Key      attachment.Key `json:"key,omitzero"`
}

// Network is what a main plugin needs to attach to a network of this host.
type Network struct {
	ID       string       `json:"id"` // 64 hexadecimal digits
	Name     string       `json:"name"`
	Driver   string       `json:"driver"`
	Bridge   string       `json:"bridge"`
	MAC      string       `json:"mac"` // the bridge's
	MTU      int          `json:"mtu"` // bytes, of both ends of a veth
	Gateways []netip.Addr `json:"gateways"`
}

// RetireRequest is the operator's word that a host is destroyed: that it will never
// use its addresses again.
type RetireRequest struct {
	Name string `json:"name"`

	// MajorityLost: so many voters are destroyed that nothing can be decided any more;
	// this host's copy of the ledger is to be the cluster's.
	MajorityLost bool `json:"majorityLost,omitempty"`
}

// Retired answers RetireRequest.
type Retired struct {
	Members int    `json:"members"` // lives of the host whose addresses went back to the pool
	Former  bool   `json:"former"`  // the host lives: only former lives of it were meant
	Forced  bool   `json:"forced"`  // the majority was given up
	Index   uint64 `json:"index"`   // of the ledger, after it
}

// ResetRequest makes the host leave its cluster and forget it. It has no containers then.
type ResetRequest struct {
	// Abandon: do it although the cluster cannot be told. What this host owned stays
	// nobody's to use until another host runs `weave rmpeer --destroyed`.
	Abandon bool `json:"abandon,omitempty"`

	// Stop: the router ends then, and does not begin anew.
	Stop bool `json:"stop,omitempty"`
}

// KeyRequest names an attachment.
type KeyRequest struct {
	Key attachment.Key `json:"key"`
}

// Decider says what proves that an address is still in use.
type Decider string

const (
	// DecidedByVeth: the veth that carries the attachment's alias, once committed.
	DecidedByVeth Decider = "veth"
	// DecidedByClaim: the claim alone, for main plugins that are not ours; only
	// DEL, or GC with the namespace gone, ends it.
	DecidedByClaim Decider = "claim"
)

// AllocateRequest asks for one address of each family of a network, or for
// exactly the requested ones. Asked again for a key that holds addresses, the
// router answers with the same.
type AllocateRequest struct {
	Key       attachment.Key  `json:"key"`
	Network   string          `json:"network"`             // the ledger's name; Key.Network may be another
	Endpoint  string          `json:"endpoint,omitempty"`  // pkg/endpoint's grammar: the network, if it says one, and of its prefix the address or the choice, and the length
	Fixed     bool            `json:"fixed,omitempty"`     // the interface is on Network already: an endpoint on another one is refused
	Requested []string        `json:"requested,omitempty"` // "10.32.0.5" or "10.32.0.5/12"; repeats are passed over
	Subnet    string          `json:"subnet,omitempty"`    // a prefix inside the range of Network; like the two lists below, no matter on another one
	Exclude   []string        `json:"exclude,omitempty"`   // "10.32.5.0/24" or "10.32.6.7": what this attachment is not to get
	Reserve   []string        `json:"reserve,omitempty"`   // likewise: what it is to get only where it requests it, or had it before
	Decider   Decider         `json:"decider"`
	NetNS     attachment.NSID `json:"netns,omitzero"`
}

// Address is one address for a container: with the length of the endpoint's prefix, or
// else of its network's subnet, and the gateway of that subnet on this host, which need not be
// within that length.
type Address struct {
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway"`
}

// AllocateReply answers AllocateRequest.
type AllocateReply struct {
	Network   string    `json:"network"` // that the addresses are of
	Addresses []Address `json:"addresses"`
	Bridge    string    `json:"bridge,omitempty"` // the network's on this host, which has the gateways' addresses
}

// ReservedRequest asks whether the attachment holds just these addresses.
type ReservedRequest struct {
	Key       attachment.Key `json:"key"`
	Addresses []netip.Addr   `json:"addresses"`
}

// CommitRequest says that an ADD has finished in the kernel; from here on the
// other hosts hear of the endpoint.
type CommitRequest struct {
	Key       attachment.Key  `json:"key"`
	Network   string          `json:"network"` // the ledger's name; "" for simplebridge
	MAC       string          `json:"mac"`
	Addresses []netip.Prefix  `json:"addresses"`
	NetNS     attachment.NSID `json:"netns,omitzero"`
}

// CollectRequest is CNI's GC for one network. Absent says that the runtime sent
// no list at all, which is not the same as an empty one.
type CollectRequest struct {
	Network string           `json:"network"` // Key.Network
	Valid   []attachment.Key `json:"valid,omitempty"`
	Absent  bool             `json:"absent,omitempty"`

	// Inhabited are the network namespaces in which processes run, Held those
	// that a mount keeps, as the plugin saw them: the router has no right to look
	// into other processes.
	Inhabited []attachment.NSID `json:"inhabited,omitempty"`
	Held      []attachment.NSID `json:"held,omitempty"`
}

// CollectReply lists what was collected, by Key.Hash.
type CollectReply struct {
	Collected []string `json:"collected,omitempty"`
}

// RegisterRequest gives an attachment its names. They end with the attachment.
type RegisterRequest struct {
	Key      attachment.Key `json:"key"`
	Names    []string       `json:"names"`
	Services []Service      `json:"services,omitempty"` // of each of the names
	Texts    []string       `json:"texts,omitempty"`    // likewise, each of at most 255 bytes

	// Upstreams are the container's own servers for the names of others; none: the host's.
	Upstreams []netip.Addr `json:"upstreams,omitempty"`
	// Resolver says, for people, how the container is given the network's resolver, or why it is not.
	Resolver string `json:"resolver,omitempty"`
}

// RegisteredNames answers PathNames.
type RegisteredNames struct {
	Names []string `json:"names"`
}

// Resolver is what a container asks for names.
type Resolver struct {
	Servers []netip.Addr `json:"servers"` // the bridge's addresses; none when DNS is off
	Domain  string       `json:"domain"`  // "weave.local"
}

// Ready answers CNI's STATUS: OK, or the code and reason why not.
type Ready struct {
	Error *Error `json:"error,omitempty"`
}

// Status is what `weave status` shows.
type Status struct {
	Version string        `json:"version"`
	Name    string        `json:"name"`
	Cluster string        `json:"cluster"` // "" until the host has founded or joined one
	Secured bool          `json:"secured"` // false: no cluster secret, anybody may join
	Uptime  time.Duration `json:"uptime"`
	Port    uint16        `json:"port,omitempty"` // TCP, of its gossip

	StateDir string `json:"state_dir,omitempty"` // the router's; what is plugged on this host is below it

	Error       *Error       `json:"error,omitempty"`    // why ADD cannot be served; nil when it can
	Problems    []string     `json:"problems,omitempty"` // what is wrong besides, a sentence each
	Peers       []Peer       `json:"peers"`
	Targets     []Target     `json:"targets,omitempty"` // the PEERs: whom it was told to dial, by flags or by PathConnect
	IPAM        IPAM         `json:"ipam"`
	Networks    []NetStatus  `json:"networks"`
	Overlay     []Remote     `json:"overlay"`
	DNS         DNS          `json:"dns"`
	Attachments []Attachment `json:"attachments"`
}

// Peer is another router as this one sees it.
type Peer struct {
	Name    string `json:"name"`
	Address string `json:"address"`          // where its gossip is reached; without a port: where it says that it is, of one that dialled us, or where it was refused from
	State   string `json:"state"`            // "connected", "relayed", "dialling", "refused"
	Detail  string `json:"detail,omitempty"` // the last error, in words

	RefusesUs bool      `json:"refuses_us,omitempty"` // of a refused one: it refuses us, not we it
	Count     uint64    `json:"count,omitempty"`      // of one that was refused when it dialled us: how often
	Last      time.Time `json:"last,omitzero"`        // and when last

	// Former: it is no member any more, and dialled because it is named as a PEER, or for some seconds more.
	Former bool `json:"former,omitempty"`
}

// IPAM is the state of addresses.
type IPAM struct {
	Waiting string      `json:"waiting,omitempty"` // one sentence: what it waits for and what to do; "" when it does not
	Index   uint64      `json:"index"`             // of the last applied ledger entry
	Leader  string      `json:"leader"`            // a host's name, "" when unknown
	Voters  []string    `json:"voters"`
	Subnets []SubnetUse `json:"subnets"`
}

// SubnetUse counts a subnet's addresses, each at most math.MaxUint64.
type SubnetUse struct {
	Network string       `json:"network"`
	Subnet  netip.Prefix `json:"subnet"`
	Host    string       `json:"host,omitempty"` // of a network of one host: that host
	Pool    uint64       `json:"pool"`           // owned by nobody yet
	Full    bool         `json:"full,omitempty"` // an ADD finds no address: none is free here or in the pool, and the other hosts have none to spare
	Hosts   []HostUse    `json:"hosts"`
}

// HostUse is one host's share of a subnet. Used and Foreign are known of this host
// only, and left out of others'.
type HostUse struct {
	Host    string       `json:"host"`
	Self    bool         `json:"self"`
	Former  bool         `json:"former,omitempty"` // a former life of that host, which is another member now
	Blocks  []addr.Range `json:"blocks"`
	Owned   uint64       `json:"owned"`
	Used    uint64       `json:"used,omitempty"`
	Foreign uint64       `json:"foreign,omitempty"` // in use here, in somebody else's block
}

// NetStatus is a network on this host.
type NetStatus struct {
	Network
	VNI     uint32         `json:"vni"`
	Subnets []netip.Prefix `json:"subnets"`
	Device  string         `json:"device"` // the VXLAN device; "" of a network of one host

	Contested []Contested `json:"contested,omitempty"` // of the bridge's own addresses
}

// Contested is an address in use here that is not this host's alone: somebody gave this
// host up as destroyed, say, and it lives.
type Contested struct {
	Address netip.Addr `json:"address"`
	Owner   string     `json:"owner,omitempty"`   // in whose block it is; a former life of this host has its name; "" when it is in this host's
	UsedBy  string     `json:"used_by,omitempty"` // another host that says that it has it too
}

// Remote is another host's part of one network, as written into the kernel.
type Remote struct {
	Network   string     `json:"network"`
	Host      string     `json:"host"`
	VTEP      netip.Addr `json:"vtep"`
	Endpoints int        `json:"endpoints"` // of containers
	Path      string     `json:"path"`      // "vxlan"
}

// DNS counts what the name server has.
type DNS struct {
	Enabled   bool        `json:"enabled"`
	Domain    string      `json:"domain"`
	Upstreams []string    `json:"upstreams"`
	Names     []NameEntry `json:"names"`
	Errors    []string    `json:"errors,omitempty"` // an address that cannot be served each, and why
	Traffic   DNSTraffic  `json:"traffic"`
}

// NameEntry is one name of one address.
type NameEntry struct {
	Name    string     `json:"name"`
	Network string     `json:"network"`
	Address netip.Addr `json:"address"`
	Host    string     `json:"host"`
	ByHand  bool       `json:"by_hand,omitempty"` // it was added there by PathDNSAdd
}

// Attachment is an endpoint of this host.
type Attachment struct {
	Key       attachment.Key `json:"key"`            // ContainerID "" when it was read back from the kernel alone
	Hash      string         `json:"hash"`           // Key.Hash
	Veth      string         `json:"veth,omitempty"` // the host's end; "" when it is another main plugin's, and not known
	MAC       string         `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`
	Names     []string       `json:"names"`
	State     string         `json:"state"` // "reserved", "attached"

	Contested []Contested `json:"contested,omitempty"`  // of its addresses
	NamesLost bool        `json:"names_lost,omitempty"` // it may have had names: it was read back from the kernel, and no other host has told what it had
}
