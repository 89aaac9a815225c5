package ledger

import (
	"encoding/binary"
	"net/netip"
)

// digest tells commands apart that bear one number: FNV-1a over every field, 64
// bits. It guards against copies of a state directory, not against malice.
func (c Command) digest() uint64 {
	d := digester(0xcbf29ce484222325)
	d.num(uint64(c.From))
	d.num(c.Seq)
	switch {
	case c.Found != nil:
		d.num(1)
		d.text(c.Found.Cluster)
		d.network(c.Found.Network)
	case c.Join != nil:
		d.num(2)
		d.member(c.Join.Member)
	case c.Leave != nil:
		d.num(3)
		d.num(uint64(c.Leave.ID))
	case c.Retire != nil:
		d.num(4)
		d.num(uint64(c.Retire.ID))
	case c.Take != nil:
		d.num(5)
		d.take(*c.Take)
	case c.TakeAddr != nil:
		d.num(6)
		d.num(uint64(c.TakeAddr.ID))
		d.text(c.TakeAddr.Network)
		d.addr(c.TakeAddr.Addr)
	case c.Give != nil:
		d.num(7)
		d.give(*c.Give)
	case c.AddNetwork != nil:
		d.num(8)
		d.network(c.AddNetwork.Network)
		d.num(uint64(len(c.AddNetwork.Choose)))
		for _, x := range c.AddNetwork.Choose {
			d.prefix(x.From)
			d.num(uint64(x.Bits))
		}
	case c.DelNetwork != nil:
		d.num(9)
		d.text(c.DelNetwork.Name)
	}
	return uint64(d)
}

// Same reports whether two commands are one: of one author and number, saying the same.
func (c Command) Same(o Command) bool { return c.digest() == o.digest() }

type digester uint64

func (d *digester) byte(b byte) { *d = (*d ^ digester(b)) * 0x100000001b3 }

func (d *digester) num(n uint64) {
	for ; n >= 0x80; n >>= 7 {
		d.byte(byte(n) | 0x80)
	}
	d.byte(byte(n))
}

func (d *digester) text(t string) {
	d.num(uint64(len(t)))
	for i := range len(t) {
		d.byte(t[i])
	}
}

func (d *digester) flag(yes bool) {
	if yes {
		d.byte(1)
		return
	}
	d.byte(0)
}

func (d *digester) addr(a netip.Addr) {
	b := a.As16() // zeroes when there is none
	d.num(uint64(a.BitLen()))
	d.num(binary.BigEndian.Uint64(b[:8]))
	d.num(binary.BigEndian.Uint64(b[8:]))
	d.text(a.Zone())
}

func (d *digester) prefix(p netip.Prefix) {
	d.addr(p.Addr())
	d.num(uint64(p.Bits() + 1))
}

func (d *digester) take(t Take) {
	d.num(uint64(t.ID))
	d.text(t.Network)
	d.prefix(t.Subnet)
	d.num(t.Want)
	d.flag(t.Early)
}

func (d *digester) give(g Give) {
	d.num(uint64(g.ID))
	d.text(g.Network)
	d.num(uint64(len(g.Ranges)))
	for _, r := range g.Ranges {
		d.addr(r.First)
		d.addr(r.Last)
	}
}

func (d *digester) member(m Member) {
	d.num(uint64(m.ID))
	d.text(m.Name)
	d.text(m.Place.Machine)
	d.text(m.Place.Boot)
	d.text(m.Place.NetNS)
}

func (d *digester) network(n Network) {
	for _, t := range []string{n.ID, n.Name, n.Driver} {
		d.text(t)
	}
	d.num(uint64(n.VNI))
	d.num(uint64(n.MTU))
	d.num(uint64(len(n.Subnets)))
	for _, p := range n.Subnets {
		d.prefix(p)
	}
}
