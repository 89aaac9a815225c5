package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// A command is packed by hand: every member reads every entry of the log, and a
// simulated cluster does little else. Numbers are varints; texts and addresses
// have their length before them.
//
//	format, From, Seq, kind, then the fields of that kind in their order
const commandFormat = 1

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
	case c.DelNetwork != nil:
		return kindDelNetwork
	case c.Retire != nil:
		return kindRetire
	}
	return kindNone
}

// Append adds the encoding of a command that says one thing to b.
func (c Command) Append(b []byte) []byte {
	p := packer(append(b, commandFormat))
	p.num(uint64(c.From))
	p.num(c.Seq)
	p = append(p, c.kind())
	switch p[len(p)-1] {
	case kindFound:
		p.text(c.Found.Cluster)
		p.network(c.Found.Network)
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
		p.network(c.AddNetwork.Network)
		p.num(uint64(len(c.AddNetwork.Choose)))
		for _, x := range c.AddNetwork.Choose {
			p.prefix(x.From)
			p.num(uint64(x.Bits))
		}
	case kindDelNetwork:
		p.text(c.DelNetwork.Name)
	case kindRetire:
		p.num(uint64(c.Retire.ID))
	}
	return p
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
	early := byte(0)
	if t.Early {
		early = 1
	}
	*p = append(*p, early)
}

func (p *packer) give(g Give) {
	p.num(uint64(g.ID))
	p.text(g.Network)
	p.num(uint64(len(g.Ranges)))
	for _, r := range g.Ranges {
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

func (p *packer) network(n Network) {
	for _, t := range [...]string{n.ID, n.Name, n.Driver} {
		p.text(t)
	}
	p.num(uint64(n.VNI))
	p.num(uint64(n.MTU))
	p.num(uint64(len(n.Subnets)))
	for _, x := range n.Subnets {
		p.prefix(x)
	}
}

// ParseCommand reads what Append wrote. Any bytes are safe to hand to it; whether
// what the command says makes sense is Apply's to find.
func ParseCommand(b []byte) (Command, error) {
	u := unpacker{b: b}
	if u.byte() != commandFormat {
		return Command{}, errors.New("command of an unknown format")
	}
	c := Command{From: MemberID(u.num()), Seq: u.num()}
	kind := u.byte()
	switch kind {
	case kindFound:
		c.Found = &Found{u.text(), u.network()}
	case kindJoin:
		c.Join = &Join{u.member()}
	case kindLeave:
		c.Leave = &Leave{MemberID(u.num())}
	case kindTake:
		c.Take = &Take{MemberID(u.num()), u.text(), u.prefix(), u.num(), u.byte() == 1}
	case kindTakeAddr:
		c.TakeAddr = &TakeAddr{MemberID(u.num()), u.text(), u.addr()}
	case kindGive:
		c.Give = &Give{MemberID(u.num()), u.text(), u.ranges()}
	case kindAddNetwork:
		c.AddNetwork = &AddNetwork{u.network(), u.choices()}
	case kindDelNetwork:
		c.DelNetwork = &DelNetwork{u.text()}
	case kindRetire:
		c.Retire = &Retire{MemberID(u.num())}
	default:
		return Command{}, fmt.Errorf("command of kind %d", kind)
	}
	if u.bad || len(u.b) > 0 {
		return Command{}, errors.New("malformed command")
	}
	return c, nil
}

// unpacker takes pieces off the front of b. After the first that is not there it
// is bad, and all further ones are zero.
type unpacker struct {
	b   []byte
	bad bool
}

func (u *unpacker) bytes(n uint64) []byte {
	if u.bad = u.bad || n > uint64(len(u.b)); u.bad {
		return nil
	}
	head := u.b[:n]
	u.b = u.b[n:]
	return head
}

func (u *unpacker) byte() byte {
	if x := u.bytes(1); x != nil {
		return x[0]
	}
	return 0
}

func (u *unpacker) num() uint64 {
	n, size := binary.Uvarint(u.b)
	if size <= 0 {
		u.bad = true
		return 0
	}
	u.bytes(uint64(size))
	return n
}

// count is of things that take a byte each at least.
func (u *unpacker) count() int {
	n := u.num()
	if u.bad = u.bad || n > uint64(len(u.b)); u.bad {
		return 0
	}
	return int(n)
}

// small is a number that fits an int everywhere.
func (u *unpacker) small() int {
	n := u.num()
	if u.bad = u.bad || n > 1<<31-1; u.bad {
		return 0
	}
	return int(n)
}

func (u *unpacker) text() string {
	t := string(u.bytes(u.num()))
	u.bad = u.bad || !utf8.ValidString(t)
	return t
}

func (u *unpacker) addr() (a netip.Addr) {
	u.bad = a.UnmarshalBinary(u.bytes(uint64(u.byte()))) != nil || a.Zone() != "" || u.bad
	return a
}

func (u *unpacker) prefix() netip.Prefix {
	a := u.addr()
	return netip.PrefixFrom(a, int(u.byte())) // more bits than there are make none, which is how none was written
}

func (u *unpacker) ranges() (rs []addr.Range) {
	n := u.count()
	if n > 0 {
		rs = make([]addr.Range, 0, n)
	}
	for range n {
		rs = append(rs, addr.Range{First: u.addr(), Last: u.addr()})
	}
	return rs
}

func (u *unpacker) choices() (cs []Choice) {
	for range u.count() {
		cs = append(cs, Choice{u.prefix(), u.small()})
	}
	return cs
}

func (u *unpacker) member() Member {
	return Member{ID: MemberID(u.num()), Name: u.text(), Place: Place{u.text(), u.text(), u.text()}}
}

func (u *unpacker) network() Network {
	n := Network{ID: u.text(), Name: u.text(), Driver: u.text(), VNI: uint32(u.small()), MTU: u.small()}
	for range u.count() {
		n.Subnets = append(n.Subnets, u.prefix())
	}
	return n
}
