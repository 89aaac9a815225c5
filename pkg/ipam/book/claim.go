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

	// Borrowed: the addresses come from another IPAM plugin and are not ours to free.
	Borrowed bool `json:"borrowed,omitempty"`

	MAC      net.HardwareAddr `json:"-"` // the container's; nil until committed
	OnBridge bool             `json:"onBridge,omitempty"`
	NetNS    attachment.NSID  `json:"netns,omitzero"`
	BootID   string           `json:"bootID"`
	Names    []string         `json:"names,omitempty"`
	Decider  ctl.Decider      `json:"decider"`
	State    State            `json:"state"`

	Since    time.Duration `json:"-"` // the time at which the book got it
	Deadline time.Duration `json:"-"` // the kernel need not show it before; 0 for none
}

// Live reports whether the attachment is to be known to others: its ADD has
// finished, or is another main plugin's, which never says so.
func (c Claim) Live() bool {
	return c.Hash != HostKey(c.Network).Hash() && (c.State == Attached || c.Decider == ctl.DecidedByClaim)
}

// Veth is the name of the host's end of the attachment's veth.
func (c Claim) Veth() string { return attachment.VethName(c.Hash) }

// Holds reports whether the claim is for that address.
func (c Claim) Holds(a netip.Addr) bool {
	return slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// HostKey is under which key a host holds its own address on a network's bridge.
// No container can have it: ids do not begin with a dot.
func HostKey(network string) attachment.Key {
	return attachment.Key{Network: network, ContainerID: ".host", IfName: "bridge"}
}
