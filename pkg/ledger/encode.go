package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/wire/cursor"
)

// A command is packed by hand: every member reads every entry of the log, and a
// simulated cluster does little else. Numbers are varints; texts and addresses
// have their length before them.
//
//	format, From, Seq, kind, then the fields of that kind in their order
//
// A later format begins with these three too, see Author.
//
// Of format 2 are commands that define a network with what the first release did not
// know. All others stay of format 1, byte for byte: a command is told by its digest.
const (
	commandFormat     = 1
	commandFormatMore = 2
)

// The kinds, as they stand in the log. Numbers never change.
const (
	kindNone = iota
	kindFound
	kindJoin
	kindLeave
	kindTake
	kindTakeAddr
	kindGive
	kindAddNetwork
	kindDelNetwork
	kindRetire
	kindSetLabels
	kindCloseNetwork
	kindRemoveNetwork // a DelNetwork with an id; one without is kindDelNetwork, which no host has ever asked for
)

func (c *Command) kind() byte {
	switch {
	case c.Found != nil:
		return kindFound
	case c.Join != nil:
		return kindJoin
	case c.Leave != nil:
		return kindLeave
	case c.Take != nil:
		return kindTake
	case c.TakeAddr != nil:
		return kindTakeAddr
	case c.Give != nil:
		return kindGive
	case c.AddNetwork != nil:
		return kindAddNetwork
	case c.DelNetwork != nil && c.DelNetwork.ID == "":
		return kindDelNetwork
	case c.DelNetwork != nil:
		return kindRemoveNetwork
	case c.SetLabels != nil:
		return kindSetLabels
	case c.CloseNetwork != nil:
		return kindCloseNetwork
	case c.Retire != nil:
		return kindRetire
	}
	return kindNone
}

// Append adds the encoding of a command that says one thing to b.
func (c Command) Append(b []byte) []byte {
	format := c.format()
	p := packer(append(b, format))
	p.num(uint64(c.From))
	p.num(c.Seq)
	p = append(p, c.kind())
	switch p[len(p)-1] {
	case kindFound:
		p.text(c.Found.Cluster)
		p.network(c.Found.Network, format == commandFormatMore)
	case kindJoin:
		p.member(c.Join.Member)
	case kindLeave:
		p.num(uint64(c.Leave.ID))
	case kindTake:
		p.take(*c.Take)
	case kindTakeAddr:
		p.num(uint64(c.TakeAddr.ID))
		p.text(c.TakeAddr.Network)
		p.addr(c.TakeAddr.Addr)
	case kindGive:
		p.give(*c.Give)
	case kindAddNetwork:
		p.network(c.AddNetwork.Network, format == commandFormatMore)
		p.num(uint64(len(c.AddNetwork.Choose)))
		for _, x := range c.AddNetwork.Choose {
			p.prefix(x.From)
			p.num(uint64(x.Bits))
		}
	case kindDelNetwork:
		p.text(c.DelNetwork.Name)
	case kindRetire:
		p.num(uint64(c.Retire.ID))
	case kindSetLabels:
		p.setLabels(*c.SetLabels)
	case kindCloseNetwork:
		p.text(c.CloseNetwork.Name)
		p.text(c.CloseNetwork.ID)
		p.flag(c.CloseNetwork.Force)
	case kindRemoveNetwork:
		p.text(c.DelNetwork.Name)
		p.text(c.DelNetwork.ID)
	}
	return p
}

// Plain reports whether the first release can read the command. One that says nothing
// is plain: nobody has to read it.
func (c Command) Plain() bool { return c.format() == commandFormat && c.kind() < kindSetLabels }

func (c Command) format() byte {
	if c.Found != nil && !c.Found.Network.plain() || c.AddNetwork != nil && !c.AddNetwork.Network.plain() {
		return commandFormatMore
	}
	return commandFormat
}

// Same reports whether two commands are one: of one author and number, saying the same.
func (c Command) Same(o Command) bool { return c.digest() == o.digest() }

// digest tells commands apart that bear one number: 64 bits by FNV-1a. It guards
// against copies of a state directory, not against malice.
func (c Command) digest() uint64 {
	var room [256]byte
	h := uint64(0xcbf29ce484222325)
	for _, b := range c.Append(room[:0]) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return h
}

type packer []byte

func (p *packer) num(n uint64) { *p = binary.AppendUvarint(*p, n) }

func (p *packer) text(t string) {
	p.num(uint64(len(t)))
	*p = append(*p, t...)
}

func (p *packer) addr(a netip.Addr) {
	at := len(*p)
	*p = append(*p, 0)
	*p, _ = a.AppendBinary(*p)              // never fails
	(*p)[at] = byte(min(len(*p)-at-1, 255)) // longer only by a zone that no address here may have
}

func (p *packer) prefix(x netip.Prefix) {
	p.addr(x.Addr())
	*p = append(*p, byte(x.Bits()))
}

func (p *packer) take(t Take) {
	p.num(uint64(t.ID))
	p.text(t.Network)
	p.prefix(t.Subnet)
	p.num(t.Want)
	p.flag(t.Early)
}

func (p *packer) flag(yes bool) {
	b := byte(0)
	if yes {
		b = 1
	}
	*p = append(*p, b)
}

func (p *packer) setLabels(c SetLabels) {
	p.text(c.Name)
	p.text(c.ID)
	p.labels(c.Set)
	p.num(uint64(len(c.Drop)))
	for _, key := range c.Drop {
		p.text(key)
	}
}

func (p *packer) labels(labels []Label) {
	p.num(uint64(len(labels)))
	for _, l := range labels {
		p.text(l.Key)
		p.text(l.Value)
	}
}

func (p *packer) give(g Give) {
	p.num(uint64(g.ID))
	p.text(g.Network)
	p.ranges(g.Ranges)
}

func (p *packer) ranges(rs []addr.Range) {
	p.num(uint64(len(rs)))
	for _, r := range rs {
		p.addr(r.First)
		p.addr(r.Last)
	}
}

func (p *packer) member(m Member) {
	p.num(uint64(m.ID))
	for _, t := range [...]string{m.Name, m.Place.Machine, m.Place.Boot, m.Place.NetNS} {
		p.text(t)
	}
}

// The flags of a network.
const (
	flagInternal = 1 << iota
	flagClosing
	flagForced
)

func (n Network) flags() (flags byte) {
	if n.Internal {
		flags |= flagInternal
	}
	if n.Closing {
		flags |= flagClosing
	}
	if n.Forced {
		flags |= flagForced
	}
	return flags
}

// network packs a network; more: with what the first release did not know.
func (p *packer) network(n Network, more bool) {
	for _, t := range [...]string{n.ID, n.Name, n.Driver} {
		p.text(t)
	}
	p.num(uint64(n.VNI))
	p.num(uint64(n.MTU))
	p.num(uint64(len(n.Subnets)))
	for _, x := range n.Subnets {
		p.prefix(x)
	}
	if !more {
		return
	}
	p.text(n.Host)
	*p = append(*p, n.flags())
	p.labels(n.Labels)
}

// ParseCommand reads what Append wrote. Any bytes are safe to hand to it; whether
// what the command says makes sense is Apply's to find.
func ParseCommand(b []byte) (Command, error) {
	u := unpacker{cursor.New(b)}
	format := u.Byte()
	if format != commandFormat && format != commandFormatMore {
		return Command{}, errors.New("command of an unknown format")
	}
	more := format == commandFormatMore
	c := Command{From: MemberID(u.Num()), Seq: u.Num()}
	kind := u.Byte()
	switch kind {
	case kindFound:
		c.Found = &Found{u.Text(), u.network(more)}
	case kindJoin:
		c.Join = &Join{u.member()}
	case kindLeave:
		c.Leave = &Leave{MemberID(u.Num())}
	case kindTake:
		c.Take = &Take{MemberID(u.Num()), u.Text(), u.prefix(), u.Num(), u.Byte() == 1}
	case kindTakeAddr:
		c.TakeAddr = &TakeAddr{MemberID(u.Num()), u.Text(), u.addr()}
	case kindGive:
		c.Give = &Give{MemberID(u.Num()), u.Text(), u.ranges(math.MaxInt32)} // how many there may be is Apply's to say
	case kindAddNetwork:
		c.AddNetwork = &AddNetwork{u.network(more), u.choices()}
	case kindDelNetwork:
		c.DelNetwork = &DelNetwork{Name: u.Text()}
	case kindRetire:
		c.Retire = &Retire{MemberID(u.Num())}
	case kindSetLabels:
		c.SetLabels = &SetLabels{u.Text(), u.Text(), u.labels(), u.texts()}
	case kindCloseNetwork:
		c.CloseNetwork = &CloseNetwork{u.Text(), u.Text(), u.Byte() == 1}
	case kindRemoveNetwork:
		c.DelNetwork = &DelNetwork{u.Text(), u.Text()}
	default:
		return Command{}, fmt.Errorf("command of kind %d", kind)
	}
	if !u.Done() {
		return Command{}, errors.New("malformed command")
	}
	return c, nil
}

// Author is From of a command of any version: every format begins like that. false
// where there is not even so much.
func Author(b []byte) (MemberID, bool) {
	u := unpacker{cursor.New(b)}
	u.Byte() // the format
	from := u.Num()
	return MemberID(from), !u.Bad()
}

// unpacker is a cursor that knows what packer writes.
type unpacker struct{ cursor.Cursor }

func (u *unpacker) addr() (a netip.Addr) {
	u.Fail(a.UnmarshalBinary(u.Bytes(uint64(u.Byte()))) != nil || a.Zone() != "")
	return a
}

func (u *unpacker) prefix() netip.Prefix {
	a := u.addr()
	return netip.PrefixFrom(a, int(u.Byte())) // more bits than there are make none, which is how none was written
}

func (u *unpacker) ranges(most int) (rs []addr.Range) {
	n := u.Count(most, 2)
	if n > 0 {
		rs = make([]addr.Range, 0, n)
	}
	for range n {
		rs = append(rs, addr.Range{First: u.addr(), Last: u.addr()})
	}
	return rs
}

func (u *unpacker) choices() (cs []Choice) {
	for range u.Count(math.MaxInt32, 3) {
		cs = append(cs, Choice{u.prefix(), u.Small(math.MaxInt32)})
	}
	return cs
}

func (u *unpacker) member() Member {
	return Member{ID: MemberID(u.Num()), Name: u.Text(), Place: Place{u.Text(), u.Text(), u.Text()}}
}

func (u *unpacker) labels() (ls []Label) {
	for range u.Count(math.MaxInt32, 2) {
		ls = append(ls, Label{u.Text(), u.Text()})
	}
	return ls
}

func (u *unpacker) texts() (ts []string) {
	for range u.Count(math.MaxInt32, 1) {
		ts = append(ts, u.Text())
	}
	return ts
}

func (u *unpacker) network(more bool) Network {
	n := Network{ID: u.Text(), Name: u.Text(), Driver: u.Text(), VNI: uint32(u.Small(math.MaxInt32)), MTU: u.Small(math.MaxInt32)}
	for range u.Count(math.MaxInt32, 2) {
		n.Subnets = append(n.Subnets, u.prefix())
	}
	if !more {
		return n
	}
	n.Host = u.Text()
	flags := u.Byte()
	u.Fail(flags > flagInternal|flagClosing|flagForced)
	n.Internal, n.Closing, n.Forced = flags&flagInternal != 0, flags&flagClosing != 0, flags&flagForced != 0
	n.Labels = u.labels()
	return n
}
