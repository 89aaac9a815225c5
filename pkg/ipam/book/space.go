package book

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// space is this host's part of one subnet.
//
// Each owned address is held (Book.holders), or was held and is free again
// (Book.freed, and in queue), or is in fresh and was never used, or is reserved.
// fresh may still cover held and freed ones; they are cut off when the search
// comes by. So a search looks at each address once, and IPv6 costs nothing.
type space struct {
	network string
	prefix  netip.Prefix
	own     []addr.Range // sorted, none overlaps another
	fresh   []addr.Range // parts of own
	queue   []queued     // in the order in which they were freed
	used    uint64       // addresses of own that are held
}

// queued is an address in a queue. It is stale, and passed over, once the book's
// entry for it is gone or has another turn.
type queued struct {
	addr netip.Addr
	turn uint64
	at   time.Duration
}

// reserved reports whether an address is given to nobody: the first and the last
// of an IPv4 subnet, the first (subnet-router anycast) of an IPv6 one.
func reserved(p netip.Prefix, a netip.Addr) bool {
	if p.Addr().BitLen()-p.Bits() < 2 {
		return false // /31 and /127 are point to point, /32 and /128 are one host
	}
	return a == p.Masked().Addr() || a.Is4() && a == addr.LastOf(p)
}

func contains(sorted []addr.Range, a netip.Addr) bool {
	i, _ := slices.BinarySearchFunc(sorted, a, func(r addr.Range, a netip.Addr) int { return r.Last.Compare(a) })
	return i < len(sorted) && sorted[i].Contains(a)
}

// gives reports whether the address is owned and not reserved.
func (s *space) gives(a netip.Addr) bool { return contains(s.own, a) && !reserved(s.prefix, a) }

// usable is how many owned addresses may be given to somebody, at most math.MaxUint64.
func (s *space) usable() (n uint64) {
	for _, r := range s.own {
		if sum := n + r.Size(); sum >= n {
			n = sum
		} else {
			return ^uint64(0)
		}
	}
	for _, a := range []netip.Addr{s.prefix.Addr(), addr.LastOf(s.prefix)} {
		if reserved(s.prefix, a) && contains(s.own, a) && n != ^uint64(0) {
			n--
		}
	}
	return n
}

// setOwn changes what is owned. Of what is lost nothing is given any more.
func (s *space) setOwn(b *Book, own []addr.Range) {
	gained, lost := addr.Subtract(own, s.own), addr.Subtract(s.own, own)
	s.own = slices.Clone(own)
	s.fresh = append(addr.Subtract(s.fresh, lost), gained...)
	s.queue = slices.DeleteFunc(s.queue, func(q queued) bool { return !contains(s.own, q.addr) })
	for a, f := range b.freed {
		in := func(r addr.Range) bool { return r.Contains(a) }
		if slices.ContainsFunc(gained, in) && s.gives(a) {
			s.queue = append(s.queue, queued{a, f.turn, f.at})
		} else if slices.ContainsFunc(lost, in) {
			delete(b.freed, a)
			delete(b.former, f.hash)
		}
	}
	slices.SortFunc(s.queue, func(x, y queued) int { return cmp.Compare(x.turn, y.turn) })
}

// pickFresh finds an address within limit that was never used, and leaves it where it
// is; to hold it is what takes it away.
func (s *space) pickFresh(b *Book, limit addr.Range) (netip.Addr, bool) {
	for i := 0; i < len(s.fresh); i++ {
		cut, ok := s.fresh[i].Within(limit)
		if !ok {
			continue
		}
		a := cut.First
		for b.known(a) || reserved(s.prefix, a) {
			if a == cut.Last {
				a = netip.Addr{}
				break
			}
			a = a.Next()
		}
		if a == cut.First {
			return a, true
		}
		passed := addr.Range{First: cut.First, Last: cut.Last}
		if a.IsValid() {
			passed.Last = a.Prev()
		}
		s.fresh = slices.Replace(s.fresh, i, i+1, addr.Subtract(s.fresh[i:i+1], []addr.Range{passed})...)
		if a.IsValid() {
			return a, true
		}
		i-- // what took its place comes next
	}
	return netip.Addr{}, false
}

// pickQueued finds the address within bounds that was freed longest ago, and leaves it, too.
func (s *space) pickQueued(b *Book, within Bounds) (queued, bool) {
	for len(s.queue) > 0 && b.stale(s.queue[0]) {
		s.queue = s.queue[1:]
	}
	for _, q := range s.queue {
		if !b.stale(q) && within.chooses(q.addr) {
			return q, true
		}
	}
	return queued{}, false
}

// enqueue appends a freed address, and now and then drops the stale ones.
func (s *space) enqueue(b *Book, q queued) {
	s.queue = append(s.queue, q)
	if len(s.queue) > 2*len(b.freed)+64 {
		s.queue = slices.DeleteFunc(s.queue, b.stale)
	}
}

// free gives what of own nobody holds, what is reserved and what rests left out.
func (s *space) free(b *Book, now time.Duration) []addr.Range {
	var busy []netip.Addr
	for a := range b.holders {
		if s.prefix.Contains(a) {
			busy = append(busy, a)
		}
	}
	for a := range b.freed {
		if s.prefix.Contains(a) && b.Rests(a, "", now) {
			busy = append(busy, a)
		}
	}
	for _, a := range []netip.Addr{s.prefix.Addr(), addr.LastOf(s.prefix)} {
		if reserved(s.prefix, a) {
			busy = append(busy, a)
		}
	}
	slices.SortFunc(busy, netip.Addr.Compare)
	return without(s.own, busy)
}

// without cuts single addresses, sorted, out of sorted ranges.
func without(own []addr.Range, busy []netip.Addr) (free []addr.Range) {
	for _, r := range own {
		i, _ := slices.BinarySearchFunc(busy, r.First, netip.Addr.Compare)
		next, open := r.First, true
		for _, a := range busy[i:] {
			if r.Last.Less(a) {
				break
			}
			if next.Less(a) {
				free = append(free, addr.Range{First: next, Last: a.Prev()})
			}
			if open = a != r.Last; !open {
				break
			}
			next = a.Next()
		}
		if open && !r.Last.Less(next) {
			free = append(free, addr.Range{First: next, Last: r.Last})
		}
	}
	return free
}
