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
}

// FirstVNI is the lowest VNI that Apply chooses by itself: above 4096, where
// other overlays on the same host tend to start.
const FirstVNI = 0x770000

// Limits, so that no command can make the state grow without end.
const (
	MaxMembers  = 8192 // that have not left
	MaxNetworks = 1024
	MaxSubnets  = 16 // of one network
	MaxName     = 64 // bytes of a member's or network's name, and of a cluster id
	maxGive     = 4096
	maxLeft     = 1024   // members that left and are remembered, so that an id is not used again
	maxBlocks   = 50000  // owned ranges of one subnet; a decoder takes 65536
	maxAll      = 120000 // owned ranges of all: a snapshot has an upper size
	maxVNI      = 1<<24 - 1
	maxMTU      = 65535
)

// Command is one entry of the log: exactly one of the pointers is set.
//
// From and Seq make it happen exactly once: the state remembers the last command
// of each member and its result, answers a repetition with that result and
// refuses an older one. So a member has one command under way at a time, and its
// Seq only ever grows. From 0 claims no author: nothing is remembered.
type Command struct {
	From MemberID `cbor:"1,keyasint,omitempty"`
	Seq  uint64   `cbor:"2,keyasint,omitempty"`

	Found      *Found      `cbor:"10,keyasint,omitempty"`
	Join       *Join       `cbor:"11,keyasint,omitempty"`
	Leave      *Leave      `cbor:"12,keyasint,omitempty"`
	Take       *Take       `cbor:"13,keyasint,omitempty"`
	TakeAddr   *TakeAddr   `cbor:"14,keyasint,omitempty"`
	Give       *Give       `cbor:"15,keyasint,omitempty"`
	AddNetwork *AddNetwork `cbor:"16,keyasint,omitempty"`
	DelNetwork *DelNetwork `cbor:"17,keyasint,omitempty"`
}

// Found makes the cluster: its id, and its default network. First of all commands.
type Found struct {
	Cluster string  `cbor:"1,keyasint"` // random, 1 to MaxName bytes
	Network Network `cbor:"2,keyasint"`
}

// Join makes a host a member. A live member of the same name and another id is
// thereby replaced. Joining again is no error.
type Join struct {
	Member Member `cbor:"1,keyasint"` // ID and Name
}

// Leave says that the member has stopped using every address of its blocks. They go to the pool.
type Leave struct {
	ID MemberID `cbor:"1,keyasint"`
}

// Take asks for about Want addresses of a subnet from its pool. The answer is
// power-of-two blocks aligned on their size: Want rounded up to a power of two,
// but at most a fair part of the pool (one of members+1 parts, rounded down, at
// least one address); in several pieces only where the pool has no single one.
// Less than Want is a success: ask again for more, the parts shrink with the pool.
//
// Early says that nobody waits for the addresses: then a member that already
// holds its share of the subnet is refused (CodeShare) rather than served, so
// that hosts that provide for later do not drain a small subnet between them.
// Without Early a pool that has anything gives at least one address.
type Take struct {
	ID      MemberID     `cbor:"1,keyasint"`
	Network string       `cbor:"2,keyasint"` // name
	Subnet  netip.Prefix `cbor:"3,keyasint"` // one of the network's
	Want    uint64       `cbor:"4,keyasint"` // addresses, at least 1
	Early   bool         `cbor:"5,keyasint,omitempty"`
}

// TakeAddr asks for one address. From the pool, or one's own already: granted. Another's: CodeTaken.
type TakeAddr struct {
	ID      MemberID   `cbor:"1,keyasint"`
	Network string     `cbor:"2,keyasint"`
	Addr    netip.Addr `cbor:"3,keyasint"`
}

// Give returns ranges to the pool. The owner has stopped using them, durably,
// before it says so. All of them are the member's own, or none is given.
type Give struct {
	ID      MemberID     `cbor:"1,keyasint"`
	Network string       `cbor:"2,keyasint"`
	Ranges  []addr.Range `cbor:"3,keyasint"` // at most 4096
}

// AddNetwork defines a network. Besides the subnets that Network names, the
// machine chooses one for each Choice, so that two hosts that create networks at
// once never choose the same.
type AddNetwork struct {
	Network Network  `cbor:"1,keyasint"`
	Choose  []Choice `cbor:"2,keyasint,omitempty"`
}

// Choice asks for the first subnet of length Bits inside From that overlaps no network.
type Choice struct {
	From netip.Prefix `cbor:"1,keyasint"`
	Bits int          `cbor:"2,keyasint"`
}

// DelNetwork removes a network of which nobody owns a block any more.
type DelNetwork struct {
	Name string `cbor:"1,keyasint"`
}

// Code says how a command ended. The zero Code is success.
type Code uint8

// The codes. They are part of the replicated state: numbers never change.
const (
	OK           Code = 0
	CodeInvalid  Code = 1 // malformed; it never can succeed
	CodeUnknown  Code = 2 // no such network, subnet or member, or no cluster yet
	CodeTaken    Code = 3 // the address, block, name or id has another owner (Result.Owner)
	CodeEmpty    Code = 4 // the pool has nothing left
	CodeShare    Code = 5 // Early: the member holds its share already
	CodeGone     Code = 6 // the member has left or was replaced
	CodeStale    Code = 7 // an older command than the member's last, or an entry applied before
	CodeTooMany  Code = 8 // a limit of this package
	CodeOccupied Code = 9 // the network still has owners of blocks
)

// Result is how a command ended, the same on every host.
type Result struct {
	Code   Code         `cbor:"1,keyasint,omitempty"`
	Err    string       `cbor:"2,keyasint,omitempty"` // a sentence for people; empty on success
	Ranges []addr.Range `cbor:"3,keyasint,omitempty"` // Take, TakeAddr: what was granted; not to be changed
	Owner  MemberID     `cbor:"4,keyasint,omitempty"` // CodeTaken: whose it is
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
	Member MemberID   `cbor:"1,keyasint"`
	Range  addr.Range `cbor:"2,keyasint"`
}
