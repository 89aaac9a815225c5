package ledger

import (
	"iter"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// blocks is the owned ranges of one subnet: sorted, without overlaps, adjacent
// ranges of one owner merged. A blocks value is never written to once it is
// made; each change makes a new one, so that old States stay as they were.
type blocks []Ownership

// find gives the index of the range that holds a.
func (b blocks) find(a netip.Addr) (int, bool) {
	i, _ := slices.BinarySearchFunc(b, a, func(o Ownership, a netip.Addr) int {
		if o.Range.Last.Less(a) {
			return -1
		}
		return 1
	}) // the first range that ends at a or later
	return i, i < len(b) && b[i].Range.Contains(a)
}

// gaps yields what of whole nobody owns, in order.
func (b blocks) gaps(whole addr.Range) iter.Seq[addr.Range] {
	return func(yield func(addr.Range) bool) {
		next := whole.First
		for _, o := range b {
			if next.Less(o.Range.First) && !yield(addr.Range{First: next, Last: o.Range.First.Prev()}) {
				return
			}
			if o.Range.Last == whole.Last {
				return
			}
			next = o.Range.Last.Next()
		}
		yield(addr.Range{First: next, Last: whole.Last})
	}
}

// free is the size of the pool, at most math.MaxUint64.
func (b blocks) free(whole addr.Range) (n uint64) {
	for g := range b.gaps(whole) {
		n = satAdd(n, g.Size())
	}
	return n
}

// held is how many addresses the member owns, at most math.MaxUint64.
func (b blocks) held(id MemberID) (n uint64) {
	for _, o := range b {
		if o.Member == id {
			n = satAdd(n, o.Range.Size())
		}
	}
	return n
}

// grant gives r, which lies inside one gap, to the member.
func (b blocks) grant(id MemberID, r addr.Range) blocks {
	i, _ := b.find(r.First) // where r belongs
	lo, hi := i, i
	if i > 0 && b[i-1].Member == id && b[i-1].Range.Last.Next() == r.First {
		lo, r.First = i-1, b[i-1].Range.First
	}
	if i < len(b) && b[i].Member == id && r.Last.Next() == b[i].Range.First {
		hi, r.Last = i+1, b[i].Range.Last
	}
	return b.splice(lo, hi, Ownership{id, r})
}

// revoke returns r to the pool; ok is false when not all of r is the member's.
func (b blocks) revoke(id MemberID, r addr.Range) (after blocks, ok bool) {
	i, ok := b.find(r.First)
	if !ok || b[i].Member != id || !b[i].Range.Contains(r.Last) {
		return b, false
	}
	var rest []Ownership
	if old := b[i].Range; old.First != r.First {
		rest = append(rest, Ownership{id, addr.Range{First: old.First, Last: r.First.Prev()}})
	}
	if old := b[i].Range; old.Last != r.Last {
		rest = append(rest, Ownership{id, addr.Range{First: r.Last.Next(), Last: old.Last}})
	}
	return b.splice(i, i+1, rest...), true
}

// splice replaces b[lo:hi], in a copy.
func (b blocks) splice(lo, hi int, with ...Ownership) blocks {
	c := make(blocks, 0, len(b)-(hi-lo)+len(with))
	c = append(c, b[:lo]...)
	c = append(c, with...)
	return append(c, b[hi:]...)
}

// moved makes all blocks of one member another's, or returns them to the pool when to is 0.
func (b blocks) moved(from, to MemberID) blocks {
	c := make(blocks, 0, len(b))
	for _, o := range b {
		if o.Member == from {
			o.Member = to
		}
		last := len(c) - 1
		switch {
		case o.Member == 0:
		case last >= 0 && c[last].Member == o.Member && c[last].Range.Last.Next() == o.Range.First:
			c[last].Range.Last = o.Range.Last
		default:
			c = append(c, o)
		}
	}
	return c
}

// holds reports whether the member owns any of it.
func (b blocks) holds(id MemberID) bool {
	return slices.ContainsFunc(b, func(o Ownership) bool { return o.Member == id })
}

// full reports whether nobody can be given any of it.
func (b blocks) full(whole addr.Range) bool {
	for range b.gaps(whole) {
		return false
	}
	return true
}

// maxPieces bounds the work of one Take in a pool that is all crumbs.
const maxPieces = 16

// choose finds n free addresses (n a power of two): one aligned block if there
// is one, else pieces, the larger first. It may find fewer, but never none while
// there is an address in the pool.
func (b blocks) choose(whole addr.Range, n uint64) (found []addr.Range) {
	rest := b
	for size := n; size > 0 && n > 0; size /= 2 {
		for n >= size && len(found) < maxPieces {
			r, ok := rest.firstFit(whole, size)
			if !ok {
				break
			}
			found, n = append(found, r), n-size
			rest = rest.grant(0, r) // nobody's, but taken
		}
	}
	return found
}

// firstFit is the first free block of just size addresses that is aligned on its size.
func (b blocks) firstFit(whole addr.Range, size uint64) (addr.Range, bool) {
	for g := range b.gaps(whole) {
		for g.Size() >= size {
			r := g.Aligned(size)
			if r.Size() == size {
				return r, true
			}
			if r.Last == g.Last {
				break
			}
			g.First = r.Last.Next()
		}
	}
	return addr.Range{}, false
}

// inside reports whether r is well formed and lies in whole.
func inside(r, whole addr.Range) bool {
	return r.Valid() && r.First.Zone() == "" && r.Last.Zone() == "" && whole.Contains(r.First) && whole.Contains(r.Last)
}

func satAdd(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}

// floorPow2 and ceilPow2 round n ≥ 1 to a power of two; the largest is 2^63.
func floorPow2(n uint64) uint64 { return 1 << (bits.Len64(n) - 1) }

func ceilPow2(n uint64) uint64 {
	if n > 1<<63 {
		return 1 << 63
	}
	return 1 << bits.Len64(n-1)
}
