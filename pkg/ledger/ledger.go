// Package ledger is the state machine that says which host owns which block of
// addresses, who the members are and which networks exist.
//
// It is pure: no I/O, no clock, no log, no randomness, no map order. Given the
// same commands in the same order, every host holds the same state; pkg/replica
// provides that order. Nothing here panics, whatever the command: what cannot
// be done is refused in the Result, in words, and changes nothing.
//
// The one promise that the rest of the project stands on: an address has at most
// one owner, always. It holds because all owners of a subnet are one sorted list
// without overlaps, and the pool is not kept at all but is the gaps of that list.
package ledger

import (
	"fmt"
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// MemberID names one life of one host: it is drawn at random with the host's key
// pair and never used again once that is lost. 0 is nobody.
type MemberID uint64

// Member is a host that takes part.
type Member struct {
	ID   MemberID `cbor:"1,keyasint"`
	Name string   `cbor:"2,keyasint"` // the host's name, as gossip knows it

	// Left: it said good-bye; its blocks are back in the pool and the id is spent.
	Left bool `cbor:"3,keyasint,omitempty"`

	// Replaced is the member that joined later under the same name, 0 for none.
	// A replaced member keeps the blocks that it has (nobody proved that it
	// stopped using them) but gets no more and has no vote. One that has none
	// counts as left at once.
	Replaced MemberID `cbor:"4,keyasint,omitempty"`

	// Since is the index of the entry by which it joined. Apply sets it.
	Since uint64 `cbor:"5,keyasint,omitempty"`

	// Place is where it runs, as it said last.
	Place Place `cbor:"6,keyasint,omitzero"`

	// Retired: Left by the operator's word that the host is destroyed.
	Retired bool `cbor:"7,keyasint,omitempty"`
}

// Place says where a router runs. The parts are opaque, 1 to MaxName letters,
// digits, '_', '.', '-' each, or empty where it could not be found out; only
// equality counts.
type Place struct {
	Machine string `cbor:"1,keyasint,omitempty"` // the same as long as the machine is
	Boot    string `cbor:"2,keyasint,omitempty"` // another after each reboot
	NetNS   string `cbor:"3,keyasint,omitempty"` // the network namespace, unique within the boot
}

// Succeeds reports whether a router that starts at p proves that the one that
// joined at old has ended: a machine runs one boot at a time, and in one network
// namespace there is one router, which holds a lock. The id of a boot is random, so
// two places of one boot are on one machine, also where that has no name.
func (p Place) Succeeds(old Place) bool {
	if p.Boot == "" || old.Boot == "" || p.Machine != old.Machine {
		return false
	}
	if p.Boot == old.Boot {
		return p.NetNS != "" && p.NetNS == old.NetNS
	}
	return p.Machine != ""
}

func (p Place) valid() bool {
	ok := func(t string) bool { return t == "" || validText(t) }
	return ok(p.Machine) && ok(p.Boot) && ok(p.NetNS)
}

// Live reports whether the member may ask for blocks and have a vote.
func (m Member) Live() bool { return m.ID != 0 && !m.Left && m.Replaced == 0 }

// Network is a named layer-2 segment.
type Network struct {
	ID      string         `cbor:"1,keyasint"` // 64 hexadecimal digits; empty in a command: derived by Apply
	Name    string         `cbor:"2,keyasint"` // unique in the cluster
	Driver  string         `cbor:"3,keyasint"` // "weave" or "simplebridge"
	VNI     uint32         `cbor:"4,keyasint"` // 24 bits, unique; 0 in a command: chosen by Apply
	MTU     int            `cbor:"5,keyasint"` // bytes, of the containers' interfaces
	Subnets []netip.Prefix `cbor:"6,keyasint"` // masked, none overlaps any other of any network; not to be changed by readers

	// Host is the name of the only host that has the network and may own blocks of it
	// (driver simplebridge); "" for a network of the whole cluster.
	Host     string  `cbor:"7,keyasint,omitempty"`
	Internal bool    `cbor:"8,keyasint,omitempty"` // no way out of it: no default route, no masquerade, nothing forwarded beyond
	Labels   []Label `cbor:"9,keyasint,omitempty"` // by key, each key once; not to be changed by readers

	// Closing: it is being removed, gives no address, and goes when nobody owns a block
	// of it. Forced: its containers are to be detached, not waited for.
	Closing bool `cbor:"10,keyasint,omitempty"`
	Forced  bool `cbor:"11,keyasint,omitempty"`
}

// plain reports whether a network says no more than the first release knew.
func (n Network) plain() bool {
	return n.Host == "" && !n.Internal && len(n.Labels) == 0 && !n.Closing && !n.Forced
}

// FirstVNI is the lowest VNI that Apply chooses by itself: above 4096, where
// other overlays on the same host tend to start.
const FirstVNI = 0x770000

// Limits, so that no command can make the state grow without end.
const (
	MaxMembers  = 8192 // that have not left
	MaxNetworks = 1024
	MaxSubnets  = 16     // of one network
	MaxName     = 64     // bytes of a member's or network's name, and of a cluster id
	maxLeft     = 1024   // members that left and are remembered, so that an id is not used again
	maxBlocks   = 50000  // owned ranges of one subnet, before a command
	maxAll      = 120000 // likewise of all: a snapshot has an upper size
	maxVNI      = 1<<24 - 1

	// MaxNeeds is how many addresses, and in how many subnets, one member may
	// need at a time; maxNeeds is of all. The oldest make room.
	MaxNeeds = 16
	maxNeeds = 4096
	maxMTU   = 65535

	// MaxGive is how many ranges one Give names: an entry of the log is at most 96 KiB.
	MaxGive = 2048

	maxErr = 1024 // bytes of a refusal; it quotes no more than a few names and addresses

	// What a decoder takes: the limits, and what one more command can add.
	mostMembers = 2 * MaxMembers
	mostBlocks  = maxBlocks + MaxGive + maxPieces
	mostAll     = maxAll + MaxGive + maxPieces
)

// Code says how a command ended. The zero Code is success.
type Code uint8

// The codes. They are part of the replicated state: numbers never change.
const (
	OK           Code = 0
	CodeInvalid  Code = 1  // malformed; it never can succeed
	CodeUnknown  Code = 2  // no such network, subnet or member, or no cluster yet
	CodeTaken    Code = 3  // the address, block, name or id has another owner (Result.Owner)
	CodeEmpty    Code = 4  // the pool has nothing left
	CodeShare    Code = 5  // Early: the member holds its share already
	CodeGone     Code = 6  // the member has left or was replaced
	CodeStale    Code = 7  // an older command than the member's last, or another under its number, or an entry applied before
	CodeTooMany  Code = 8  // a limit of this package
	CodeOccupied Code = 9  // the network still has owners of blocks
	CodeClosing  Code = 10 // the network is being removed
	CodeWrong    Code = 11 // the network is another host's
)

// Result is how a command ended, the same on every host.
type Result struct {
	Code   Code
	Err    string       // a sentence for people; empty on success
	Ranges []addr.Range // Take, TakeAddr: what was granted; not to be changed
	Owner  MemberID     // CodeTaken: whose it is
}

// Refusal is a Result that is no success, as an error.
type Refusal struct {
	Code  Code
	Msg   string
	Owner MemberID
}

func (r *Refusal) Error() string { return r.Msg }

// Error is nil on success, else a *Refusal.
func (r Result) Error() error {
	if r.Code == OK {
		return nil
	}
	return &Refusal{r.Code, r.Err, r.Owner}
}

func refuse(code Code, format string, args ...any) Result {
	return Result{Code: code, Err: fmt.Sprintf(format, args...)}
}

// Ownership is a range and its owner.
type Ownership struct {
	Member MemberID
	Range  addr.Range
}
