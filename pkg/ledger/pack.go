package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/wire/cursor"
)

// A dump is packed by hand, as commands are: most of it is owned ranges, which are of
// one size in a subnet. Lists have their length before them.
//
//	format, index, cluster, next VNI
//	members:  id, name, place, flags, replaced by, since
//	networks: the fields of Network; for each subnet the owned ranges: which of the members, first, last
//	recalls:  id, number, digest (8 bytes), code, words, ranges, owner
//	needs:    member, network, subnet, how many, address
//
// Of format 1 is a ledger whose networks say no more than the first release knew, so
// that such a release can read it: a host may go back to one.
const (
	dumpFormat     = 1
	dumpFormatMore = 2
)

const (
	flagLeft = 1 << iota
	flagRetired
)

// ErrNewer says that something was packed by a newer version of this package.
var ErrNewer = errors.New("packed by a newer version")

// Append adds the dump to b.
func (d Dump) Append(b []byte) []byte {
	format := d.format()
	p := packer(append(b, format))
	p.num(d.Index)
	p.text(d.Cluster)
	p.num(uint64(d.NextVNI))
	p.num(uint64(len(d.Members)))
	for _, m := range d.Members {
		p.wholeMember(m)
	}
	p.num(uint64(len(d.Networks)))
	for _, n := range d.Networks {
		p.network(n.Network, format == dumpFormatMore)
		for _, owners := range n.Owners {
			p.owners(d.Members, owners)
		}
	}
	p.num(uint64(len(d.Recalls)))
	for _, r := range d.Recalls {
		p.recall(r)
	}
	p.num(uint64(len(d.Needs)))
	for _, n := range d.Needs {
		p.num(uint64(n.Member))
		p.text(n.Network)
		p.prefix(n.Subnet)
		p.num(n.Want)
		p.addr(n.Addr)
	}
	return p
}

func (d Dump) format() byte {
	if slices.ContainsFunc(d.Networks, func(n NetworkDump) bool { return !n.Network.plain() }) {
		return dumpFormatMore
	}
	return dumpFormat
}

func (p *packer) wholeMember(m Member) {
	p.member(m)
	flags := byte(0)
	if m.Left {
		flags |= flagLeft
	}
	if m.Retired {
		flags |= flagRetired
	}
	*p = append(*p, flags)
	p.num(uint64(m.Replaced))
	p.num(m.Since)
}

func (p *packer) owners(members []Member, owners []Ownership) {
	p.num(uint64(len(owners)))
	for _, o := range owners {
		i, _ := findMember(members, o.Member) // it is one
		p.num(uint64(i))
		*p, _ = o.Range.First.AppendBinary(*p) // never fails
		*p, _ = o.Range.Last.AppendBinary(*p)
	}
}

func (p *packer) recall(r Recall) {
	p.num(uint64(r.ID))
	p.num(r.Seq)
	*p = binary.BigEndian.AppendUint64(*p, r.Digest)
	*p = append(*p, byte(r.Result.Code))
	p.text(r.Result.Err)
	p.ranges(r.Result.Ranges)
	p.num(uint64(r.Result.Owner))
}

// ParseDump reads what Append wrote. Any bytes are safe to hand to it, and cost no more
// memory than a State can have; whether the dump makes sense is Load's to find.
func ParseDump(b []byte) (d Dump, err error) {
	u := unpacker{cursor.New(b)}
	format := u.Byte()
	switch {
	case format > dumpFormatMore:
		return d, fmt.Errorf("%w: ledger of format %d, and this version knows up to %d", ErrNewer, format, dumpFormatMore)
	case format < dumpFormat:
		return d, fmt.Errorf("ledger of format %d, and there is none", format)
	}
	d.Index, d.Cluster, d.NextVNI = u.Num(), u.Text(), uint32(u.Small(maxVNI+1))
	d.Members = list(&u, mostMembers, 8, u.wholeMember)
	all := mostAll
	d.Networks = list(&u, MaxNetworks, 6, func() NetworkDump { return u.networkDump(d.Members, &all, format == dumpFormatMore) })
	d.Recalls = list(&u, mostMembers, 13, u.recall)
	d.Needs = list(&u, maxNeeds, 6, u.need)
	if !u.Done() {
		return Dump{}, errors.New("malformed ledger")
	}
	return d, nil
}

// list reads as many things as are said to follow, at most most, each of size bytes or
// more; nil for none.
func list[T any](u *unpacker, most, size int, next func() T) (all []T) {
	n := u.Count(most, size)
	if n == 0 {
		return nil
	}
	all = make([]T, 0, n)
	for range n {
		if u.Bad() {
			return nil
		}
		all = append(all, next())
	}
	return all
}

func (u *unpacker) wholeMember() Member {
	m := u.member()
	flags := u.Byte()
	u.Fail(flags > flagLeft|flagRetired)
	m.Left, m.Retired = flags&flagLeft != 0, flags&flagRetired != 0
	m.Replaced, m.Since = MemberID(u.Num()), u.Num()
	return m
}

// networkDump reads a network; all is how many more ranges there may be.
func (u *unpacker) networkDump(members []Member, all *int, more bool) NetworkDump {
	n := NetworkDump{Network: u.network(more)}
	if u.Fail(len(n.Network.Subnets) > MaxSubnets || len(n.Network.Labels) > MaxLabels); u.Bad() {
		return n
	}
	n.Owners = make([][]Ownership, len(n.Network.Subnets))
	for i, p := range n.Network.Subnets {
		size := p.Addr().BitLen() / 8
		n.Owners[i] = list(u, min(mostBlocks, *all), 1+2*size, func() Ownership { return u.ownership(members, uint64(size)) })
		*all -= len(n.Owners[i])
	}
	return n
}

func (u *unpacker) ownership(members []Member, size uint64) (o Ownership) {
	i := u.Small(math.MaxInt32)
	first, ok1 := netip.AddrFromSlice(u.Bytes(size))
	last, ok2 := netip.AddrFromSlice(u.Bytes(size))
	if u.Fail(i >= len(members) || !ok1 || !ok2); u.Bad() {
		return o
	}
	return Ownership{members[i].ID, addr.Range{First: first, Last: last}}
}

func (u *unpacker) recall() Recall {
	r := Recall{ID: MemberID(u.Num()), Seq: u.Num(), Digest: u.Fixed()}
	r.Result = Result{Code: Code(u.Byte()), Err: u.Text(), Ranges: u.ranges(maxPieces), Owner: MemberID(u.Num())}
	return r
}

func (u *unpacker) need() Need {
	return Need{Member: MemberID(u.Num()), Network: u.Text(), Subnet: u.prefix(), Want: u.Num(), Addr: u.addr()}
}
