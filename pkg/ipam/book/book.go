// Package book is the allocator's memory and its judgement: which addresses this
// host owns, which of them somebody holds, and which is given next.
//
// It is pure: no I/O, no clock, no log, no goroutine, so that a simulator runs it
// as it is. Times are monotonic, since a start that the caller chooses. What a host
// owns is told to it (Sync), from the ledger; it never gives an address that is not
// owned, held, or at an end of its subnet. A Book is not safe for concurrent use.
package book

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// Times by which the book judges.
const (
	ReserveFor  = 30 * time.Second // until an ADD must be seen in the kernel
	AbsentFor   = 2 * time.Second  // between the two sightings by which a veth is gone
	CollectOver = 30 * time.Second // the age from which GC may take an attachment
	RestFor     = 30 * time.Second // of a freed address, while there is another to give
)

// manyFreed is how many freed addresses a subnet may have before one of them is given in
// the place of a fresh one: an IPv6 block has more fresh ones than memory has room.
const manyFreed = 1 << 16

// Subnet is a subnet of a network and what this host owns of it.
type Subnet struct {
	Network string
	Prefix  netip.Prefix
	Own     []addr.Range // sorted, none overlaps another
}

// Book knows claims and addresses. Make it with New.
type Book struct {
	claims  map[string]*Claim         // by hash
	holders map[netip.Addr][]string   // hashes; more than one only when two were found with the same address
	freed   map[netip.Addr]freed      // was held, is free
	former  map[string][]netip.Prefix // what a released attachment held, while none of it has gone to another and some is in freed
	spaces  []*space
	at      map[place]*space // the same
	turn    uint64

	absent map[string]time.Duration // claims whose veth is not there, since
	strays map[string]time.Duration // veths without a claim, since
}

type freed struct {
	hash string        // who held it
	turn uint64        // of being freed: who comes first is given first
	at   time.Duration // when
}

// New makes an empty book, which owns nothing.
func New() *Book {
	return &Book{
		claims:  map[string]*Claim{},
		holders: map[netip.Addr][]string{},
		freed:   map[netip.Addr]freed{},
		former:  map[string][]netip.Prefix{},
		absent:  map[string]time.Duration{},
		strays:  map[string]time.Duration{},
	}
}

// Sync sets what is owned, of every subnet that there is. Addresses that are held
// and no longer owned stay held; they are foreign from then on.
func (b *Book) Sync(subnets []Subnet) {
	changed := len(subnets) != len(b.spaces)
	spaces, at := make([]*space, len(subnets)), make(map[place]*space, len(subnets))
	for i, n := range subnets {
		s := b.space(n.Network, n.Prefix)
		if s == nil {
			s = &space{network: n.Network, prefix: n.Prefix.Masked()}
			changed = true
		}
		if !slices.Equal(s.own, n.Own) {
			s.setOwn(b, n.Own)
			changed = true
		}
		spaces[i], at[place{s.network, s.prefix}] = s, s
	}
	gone := len(spaces) < len(b.spaces) || slices.ContainsFunc(b.spaces, func(s *space) bool { return at[place{s.network, s.prefix}] != s })
	b.spaces, b.at = spaces, at
	if gone {
		b.forgetFreed()
	}
	if changed {
		b.recount()
	}
}

// forgetFreed drops what is remembered of addresses that are in no subnet any more.
func (b *Book) forgetFreed() {
	for a, f := range b.freed {
		if b.spaceOf(a) == nil {
			delete(b.freed, a)
			delete(b.former, f.hash)
		}
	}
}

func (b *Book) recount() {
	for _, s := range b.spaces {
		s.used = 0
	}
	for a := range b.holders {
		b.count(a, 1)
	}
	for _, c := range b.claims {
		b.place(c)
	}
}

// place finds out on which network a claim is that does not say.
func (b *Book) place(c *Claim) {
	if c.Network != "" || c.NetID != "" || c.Borrowed {
		return
	}
	for _, p := range c.Addrs {
		if s := b.spaceOf(p.Addr()); s != nil {
			c.Network = s.network
		}
	}
}

// Resolve sets the network of each claim that has a NetID: what name gives for that, ""
// for a network that is gone.
func (b *Book) Resolve(name func(id string) string) {
	for _, c := range b.claims {
		if c.NetID != "" {
			c.Network = name(c.NetID)
		}
	}
}

func (b *Book) space(network string, prefix netip.Prefix) *space {
	return b.at[place{network, prefix.Masked()}]
}

// place is what a space is found by.
type place struct {
	network string
	prefix  netip.Prefix
}

// spaceOf finds the subnet that holds an address: no two networks of a ledger overlap.
func (b *Book) spaceOf(a netip.Addr) *space {
	for _, s := range b.spaces {
		if s.prefix.Contains(a) {
			return s
		}
	}
	return nil
}

// known reports whether an address has been held: it still is, or waits in a queue.
func (b *Book) known(a netip.Addr) bool {
	if _, ok := b.holders[a]; ok {
		return true
	}
	_, ok := b.freed[a]
	return ok
}

func (b *Book) stale(q queued) bool {
	f, ok := b.freed[q.addr]
	return !ok || f.turn != q.turn
}

// count corrects the number of held addresses where a is ours to give.
func (b *Book) count(a netip.Addr, by int) {
	if s := b.spaceOf(a); s != nil && s.gives(a) {
		s.used += uint64(by)
	}
}

// Owns reports whether an address is this host's to give.
func (b *Book) Owns(a netip.Addr) bool {
	s := b.spaceOf(a)
	return s != nil && contains(s.own, a)
}

// Holder is whose an address is; "" when nobody's here.
func (b *Book) Holder(a netip.Addr) string {
	if h := b.holders[a]; len(h) > 0 {
		return h[0]
	}
	return ""
}

// SubnetOf finds the subnet of a network that holds an address.
func (b *Book) SubnetOf(network string, a netip.Addr) (netip.Prefix, bool) {
	s := b.spaceOf(a)
	if s == nil || s.network != network {
		return netip.Prefix{}, false
	}
	return s.prefix, true
}

// Reserved reports whether an address is at an end of its subnet, where none is given.
func (b *Book) Reserved(a netip.Addr) bool {
	s := b.spaceOf(a)
	return s != nil && reserved(s.prefix, a)
}

// Bounds are of a choice of one family's addresses. The zero Bounds are none.
type Bounds struct {
	Within netip.Prefix // if valid, only from it
	Net    netip.Prefix // if valid, the holder's own subnet: not its ends
	But    []addr.Range // none of these
	Kept   []addr.Range // none of these, unless the same hash had it
}

// Contains reports whether an address may be had at all.
func (o Bounds) Contains(a netip.Addr) bool {
	return (!o.Within.IsValid() || o.Within.Contains(a)) && !anyHas(o.But, a) && !o.Ends(a)
}

// Ends reports whether an address is at an end of the holder's own subnet.
func (o Bounds) Ends(a netip.Addr) bool { return o.Net.IsValid() && reserved(o.Net, a) }

// chooses reports whether an address may be chosen for whoever has not had it.
func (o Bounds) chooses(a netip.Addr) bool { return o.Contains(a) && !anyHas(o.Kept, a) }

// anyHas looks through ranges in no order.
func anyHas(ranges []addr.Range, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(r addr.Range) bool { return r.Contains(a) })
}

// In gives what of a subnet may be chosen, in order.
func (o Bounds) In(subnet netip.Prefix) []addr.Range {
	whole := addr.RangeOf(subnet)
	if o.Within.IsValid() {
		cut, ok := addr.RangeOf(o.Within).Within(whole)
		if !ok {
			return nil
		}
		whole = cut
	}
	return addr.Subtract(addr.Subtract([]addr.Range{whole}, append(o.ends(subnet), o.But...)), o.Kept)
}

// ends are those of the holder's own subnet, unless a network's subnet is that: its own
// are nobody's anyway.
func (o Bounds) ends(subnet netip.Prefix) (out []addr.Range) {
	if !o.Net.IsValid() || o.Net == subnet.Masked() {
		return nil
	}
	for _, a := range []netip.Addr{o.Net.Addr(), addr.LastOf(o.Net)} {
		if o.Ends(a) {
			out = append(out, addr.Range{First: a, Last: a})
		}
	}
	return out
}

// Whole reports whether all of a subnet may be chosen.
func (o Bounds) Whole(subnet netip.Prefix) bool {
	in := o.In(subnet)
	return len(in) == 1 && in[0] == addr.RangeOf(subnet)
}

// Pick finds a free address of the family (IPv4 or not) in a network's own blocks,
// with the length of its subnet: the one that hash held before if it can, else one that
// was never used, else the one that was freed longest ago. within bounds the choice. The
// book does not change in the eyes of others; Put does that.
func (b *Book) Pick(hash, network string, is4 bool, within Bounds) (netip.Prefix, bool) {
	for _, p := range b.former[hash] {
		a := p.Addr()
		s := b.spaceOf(a)
		_, free := b.freed[a]
		if free && a.Is4() == is4 && s != nil && s.network == network && s.gives(a) && within.Contains(a) {
			return netip.PrefixFrom(a, s.prefix.Bits()), true
		}
	}
	var oldest netip.Prefix
	var turn uint64
	for _, s := range b.spaces {
		if s.network != network || s.prefix.Addr().Is4() != is4 {
			continue
		}
		if len(s.queue) < manyFreed {
			for _, limit := range within.In(s.prefix) {
				if a, ok := s.pickFresh(b, limit); ok {
					return netip.PrefixFrom(a, s.prefix.Bits()), true
				}
			}
		}
		if q, ok := s.pickQueued(b, within); ok && (turn == 0 || q.turn < turn) {
			oldest, turn = netip.PrefixFrom(q.addr, s.prefix.Bits()), q.turn
		}
	}
	return oldest, turn != 0
}

// Rests reports whether an address was freed less than RestFor ago, by another than
// hash. Pick gives such a one only when it finds nothing better.
func (b *Book) Rests(a netip.Addr, hash string, now time.Duration) bool {
	f, ok := b.freed[a]
	return ok && f.hash != hash && now-f.at < RestFor
}

// Resting is about how many free addresses of a subnet were freed less than RestFor ago:
// one that was held again meanwhile, and freed again, may count twice.
func (b *Book) Resting(network string, prefix netip.Prefix, now time.Duration) uint64 {
	s := b.space(network, prefix)
	if s == nil {
		return 0
	}
	i, _ := slices.BinarySearchFunc(s.queue, now-RestFor, func(q queued, than time.Duration) int {
		if q.at <= than {
			return -1
		}
		return 1
	})
	return uint64(len(s.queue) - i)
}

// Put enters a claim, in the place of one of the same hash. It asks nothing: what
// the kernel shows is entered even where two hold one address. Addresses that the hash
// had and has no more are free as of c.Since.
func (b *Book) Put(c Claim) {
	if old, ok := b.claims[c.Hash]; ok {
		b.forgetHolder(old, c.Holds, c.Since)
	}
	for _, p := range c.Addrs {
		a := p.Addr()
		if f, ok := b.freed[a]; ok {
			delete(b.freed, a)
			delete(b.former, f.hash)
		}
		if h := b.holders[a]; !slices.Contains(h, c.Hash) {
			if len(h) == 0 {
				b.count(a, 1)
			}
			b.holders[a] = append(h, c.Hash)
		}
	}
	delete(b.former, c.Hash)
	b.place(&c)
	b.claims[c.Hash] = &c
	delete(b.absent, c.Hash)
}

// Release ends a claim. Its addresses rest from now on.
func (b *Book) Release(hash string, now time.Duration) (Claim, bool) {
	c, ok := b.claims[hash]
	if !ok {
		return Claim{}, false
	}
	delete(b.claims, hash)
	delete(b.absent, hash)
	b.forgetHolder(c, func(netip.Addr) bool { return false }, now)
	b.remember(c)
	return *c, true
}

// remember keeps what an ended claim held, if one of its addresses is in freed for it.
// With that one the memory ends, so it is bounded as freed is.
func (b *Book) remember(c *Claim) {
	if slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return b.freed[p.Addr()].hash == c.Hash }) {
		b.former[c.Hash] = c.Addrs
	}
}

// Rested enters the addresses of an attachment that ended before this book began. They
// rest from now on.
func (b *Book) Rested(c Claim, now time.Duration) {
	for _, p := range c.Addrs {
		if !b.known(p.Addr()) {
			b.free(p.Addr(), c.Hash, now)
		}
	}
	if _, held := b.claims[c.Hash]; !held {
		b.remember(&c)
	}
}

func (b *Book) forgetHolder(c *Claim, keep func(netip.Addr) bool, now time.Duration) {
	for _, p := range c.Addrs {
		a := p.Addr()
		if keep(a) {
			continue
		}
		rest := slices.DeleteFunc(b.holders[a], func(h string) bool { return h == c.Hash })
		if len(rest) > 0 {
			b.holders[a] = rest
			continue
		}
		delete(b.holders, a)
		b.count(a, -1)
		if !c.Borrowed || b.spaceOf(a) != nil {
			b.free(a, c.Hash, now)
		}
	}
}

func (b *Book) free(a netip.Addr, hash string, now time.Duration) {
	b.turn++
	b.freed[a] = freed{hash, b.turn, now}
	if s := b.spaceOf(a); s != nil && s.gives(a) {
		s.enqueue(b, queued{a, b.turn, now})
	}
}

// Claim finds one by its hash.
func (b *Book) Claim(hash string) (Claim, bool) {
	c, ok := b.claims[hash]
	if !ok {
		return Claim{}, false
	}
	return *c, true
}

// Claims lists all, by hash.
func (b *Book) Claims() []Claim {
	out := make([]Claim, 0, len(b.claims))
	for _, c := range b.claims {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(x, y Claim) int { return strings.Compare(x.Hash, y.Hash) })
	return out
}

// Use counts one subnet, each number at most math.MaxUint64.
type Use struct {
	Usable  uint64 // owned and not reserved
	Used    uint64 // of those, held
	Foreign uint64 // held, but not owned
}

// Free is how many can be given now.
func (u Use) Free() uint64 {
	return u.Usable - u.Used
}

// Use counts a subnet of which the book knows; Foreign takes a walk over all claims.
func (b *Book) Use(network string, prefix netip.Prefix, foreign bool) (u Use) {
	s := b.space(network, prefix)
	if s == nil {
		return u
	}
	u.Usable, u.Used = s.usable(), s.used
	if foreign {
		u.Foreign = uint64(len(b.Foreign(network, prefix)))
	}
	return u
}

// Spare gives up to want addresses of a subnet that are owned and free and do not
// rest, in few ranges, the largest first and each from its end, where allocation comes last.
// Where all that is free rests it is one, which was freed longest ago.
func (b *Book) Spare(network string, prefix netip.Prefix, want uint64, now time.Duration) (out []addr.Range) {
	s := b.space(network, prefix)
	if s == nil {
		return nil
	}
	free := s.free(b, now)
	if q, ok := s.pickQueued(b, Bounds{}); ok && len(free) == 0 && want > 0 {
		return []addr.Range{{First: q.addr, Last: q.addr}}
	}
	slices.SortStableFunc(free, func(x, y addr.Range) int { return cmp.Compare(y.Size(), x.Size()) })
	for _, r := range free {
		if want == 0 || len(out) == maxSpare {
			break
		}
		if size := r.Size(); size > want {
			r.First, _ = addr.Add(r.First, size-want)
			r.Last, _ = addr.Add(r.First, want-1) // a large range has more than Size says
		}
		out, want = append(out, r), want-r.Size()
	}
	return out
}

// maxSpare bounds the ranges of one Spare.
const maxSpare = 64

// Foreign lists the addresses of a subnet that are held here but not owned, in order.
func (b *Book) Foreign(network string, prefix netip.Prefix) (out []netip.Addr) {
	return b.ForeignAmong(b.Held(), network, prefix)
}

// Held lists all addresses that are held, in order.
func (b *Book) Held() []netip.Addr {
	return slices.SortedFunc(maps.Keys(b.holders), netip.Addr.Compare)
}

// ForeignAmong is Foreign for who asks of many subnets and has what Held lists.
func (b *Book) ForeignAmong(held []netip.Addr, network string, prefix netip.Prefix) (out []netip.Addr) {
	s := b.space(network, prefix)
	if s == nil {
		return nil
	}
	first, _ := slices.BinarySearchFunc(held, s.prefix.Addr(), netip.Addr.Compare)
	for _, a := range held[first:] {
		if !s.prefix.Contains(a) {
			break
		}
		if !contains(s.own, a) {
			out = append(out, a)
		}
	}
	return out
}
