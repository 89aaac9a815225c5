package book

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// State is how far an attachment has come.
type State string

const (
	Reserved State = "reserved" // an ADD is under way, or a DEL
	Attached State = "attached" // its ADD has finished
)

// Claim says who holds which addresses. A Claim that a Book gave away is a copy,
// but for the slices in it, which are not to be changed.
type Claim struct {
	Hash string         `json:"hash"` // Key.Hash
	Key  attachment.Key `json:"key"`  // ContainerID "" when it was read back from the kernel alone

	// Network is the ledger's name, which Key.Network need not be; "" when the
	// attachment is on no network of the ledger, or on one that is not known yet.
	Network string         `json:"network"`
	Addrs   []netip.Prefix `json:"addrs"`

	// NetID is the id of the network that the claim is on, or how it begins, where the
	// kernel alone tells; "" when that is not known, and of the default network. A name
	// is another network's as soon as the first is removed: where NetID is known, Network
	// follows from it (Resolve).
	NetID string `json:"netID,omitempty"`

	// Borrowed: the addresses come from another IPAM plugin and are not ours to free.
	Borrowed bool `json:"borrowed,omitempty"`

	MAC      net.HardwareAddr `json:"-"` // the container's; nil until committed
	OnBridge bool             `json:"onBridge,omitempty"`
	NetNS    attachment.NSID  `json:"netns,omitzero"`
	BootID   string           `json:"bootID"`
	Names    []string         `json:"names,omitempty"`
	Services []ctl.Service    `json:"services,omitempty"`
	Texts    []string         `json:"texts,omitempty"`
	Servers  []netip.Addr     `json:"servers,omitempty"` // the container's own, for the names of others
	Decider  ctl.Decider      `json:"decider"`
	State    State            `json:"state"`

	Since    time.Duration `json:"-"` // the time at which the book got it
	Deadline time.Duration `json:"-"` // the kernel need not show it before; 0 for none
}

// Naming is what DNS knows of an attachment beside its addresses.
type Naming struct {
	Names    []string
	Services []ctl.Service
	Texts    []string
}

// Naming is the claim's.
func (c Claim) Naming() Naming { return Naming{c.Names, c.Services, c.Texts} }

// SetNaming gives the claim a copy of n.
func (c *Claim) SetNaming(n Naming) {
	c.Names, c.Services, c.Texts = slices.Clone(n.Names), slices.Clone(n.Services), slices.Clone(n.Texts)
}

// Equal reports whether both are the same, in the same order.
func (n Naming) Equal(o Naming) bool {
	return slices.Equal(n.Names, o.Names) && slices.Equal(n.Services, o.Services) && slices.Equal(n.Texts, o.Texts)
}

// Live reports whether the attachment is to be known to others: its ADD has
// finished, or is another main plugin's, which never says so.
func (c Claim) Live() bool {
	return !c.Host() && (c.State == Attached || c.Decider == ctl.DecidedByClaim)
}

// Host reports whether the claim is on a host's own address on a bridge.
func (c Claim) Host() bool { return c.Key.ContainerID == hostID }

// Stale reports whether the claim is on a network that is gone, though another may have
// its name and its subnets. It is nobody's in today's network.
func (c Claim) Stale() bool { return c.NetID != "" && c.Network == "" }

// Join puts the claim on a network, by its id where that is known.
func (c *Claim) Join(network, id string) {
	if id != "" || network != c.Network {
		c.NetID = id
	}
	c.Network = network
}

// Veth is the name of the host's end of the attachment's veth.
func (c Claim) Veth() string { return attachment.VethName(c.Hash) }

// Holds reports whether the claim is for that address.
func (c Claim) Holds(a netip.Addr) bool {
	return slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// hostID stands for a container's id in a host's own claims. No container has it: ids do
// not begin with a dot.
const hostID = ".host"

// HostKey is under which key a host holds its own address on a network's bridge.
func HostKey(network string) attachment.Key {
	return attachment.Key{Network: network, ContainerID: hostID, IfName: "bridge"}
}
