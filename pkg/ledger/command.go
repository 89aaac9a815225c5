package ledger

import (
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// Command is one entry of the log: exactly one of the pointers is set.
//
// From and Seq make it happen exactly once: the state remembers the last command
// of each member and its result, answers a repetition with that result and
// refuses an older one. So a member has one command under way at a time, and its
// Seq only ever grows. From 0 claims no author: nothing is remembered.
//
// Of the command itself a digest is remembered. Another one under the number of
// the last is refused: it comes from a copy of that member's state directory, and
// would else be told that what the other had asked for was done for it.
type Command struct {
	From MemberID
	Seq  uint64

	Found      *Found
	Join       *Join
	Leave      *Leave
	Take       *Take
	TakeAddr   *TakeAddr
	Give       *Give
	AddNetwork *AddNetwork
	DelNetwork *DelNetwork
	Retire     *Retire

	SetLabels    *SetLabels
	CloseNetwork *CloseNetwork
}

// Found makes the cluster: its id, and its default network. First of all commands.
type Found struct {
	Cluster string // random, 1 to MaxName bytes
	Network Network
}

// Join makes a host a member. The members of the same name, and another id, that
// have not left are followed by it: where its Place proves that they have ended
// (Place.Succeeds) they leave and all their blocks are the newcomer's, by this one
// entry; else the live one is replaced, and keeps its blocks.
//
// Joining again is no error. A member that does so itself (From) says thereby
// where it runs now.
type Join struct {
	Member Member // ID, Name and Place
}

// Leave says that the member has stopped using every address of its blocks. They go to the pool.
type Leave struct {
	ID MemberID
}

// Retire is the operator's word, through any member, that a host is destroyed: it
// has left, and its blocks are in the pool. Said again it changes nothing.
type Retire struct {
	ID MemberID
}

// Take asks for about Want addresses of a subnet from its pool. The answer is
// power-of-two blocks aligned on their size: Want rounded up to a power of two,
// but at most a fair part of the pool (one of members+1 parts, rounded down, at
// least one address); in several pieces only where the pool has no single one.
// Less than Want is a success: ask again for more, the parts shrink with the pool.
//
// Early says that nobody waits for the addresses: then a member that already
// holds its share of the subnet, or who would get of a pool with less than one
// address for each member, is refused (CodeShare) rather than served, so that
// hosts that provide for later do not drain a small subnet between them, nor
// take what was given back for somebody who waits.
// Without Early a pool that has anything gives at least one address. A pool that
// has nothing notes the Need.
type Take struct {
	ID      MemberID
	Network string       // name
	Subnet  netip.Prefix // one of the network's
	Want    uint64       // addresses, at least 1
	Early   bool
}

// TakeAddr asks for one address. From the pool, or one's own already: granted. Another's: CodeTaken, and
// the Need is noted.
type TakeAddr struct {
	ID      MemberID
	Network string
	Addr    netip.Addr
}

// Give returns ranges to the pool. The owner has stopped using them, durably,
// before it says so. All of them are the member's own, or none is given.
type Give struct {
	ID      MemberID
	Network string
	Ranges  []addr.Range // at most MaxGive
}

// AddNetwork defines a network. Besides the subnets that Network names, the
// machine chooses one for each Choice, so that two hosts that create networks at
// once never choose the same.
type AddNetwork struct {
	Network Network
	Choose  []Choice
}

// Choice asks for the first subnet of length Bits inside From that overlaps no network.
type Choice struct {
	From netip.Prefix
	Bits int
}

// kinds counts the things that a command says.
func (c Command) kinds() (n int) {
	for _, set := range []bool{c.Found != nil, c.Join != nil, c.Leave != nil, c.Take != nil,
		c.TakeAddr != nil, c.Give != nil, c.AddNetwork != nil, c.DelNetwork != nil, c.Retire != nil,
		c.SetLabels != nil, c.CloseNetwork != nil} {
		if set {
			n++
		}
	}
	return n
}

// author is the member in whose name a command acts, 0 when it is in nobody's.
func (c Command) author() MemberID {
	switch {
	case c.Join != nil:
		return c.Join.Member.ID
	case c.Leave != nil:
		return c.Leave.ID
	case c.Take != nil:
		return c.Take.ID
	case c.TakeAddr != nil:
		return c.TakeAddr.ID
	case c.Give != nil:
		return c.Give.ID
	}
	return 0
}
