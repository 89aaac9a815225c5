// Package addr does arithmetic on ranges of IP addresses, IPv4 and IPv6 alike.
// It is pure and imports only the standard library.
package addr

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// Range is the addresses from First to Last, both included and of one family.
// The zero Range is not valid.
type Range struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// RangeOf is all addresses of a prefix.
func RangeOf(p netip.Prefix) Range {
	p = p.Masked()
	return Range{p.Addr(), LastOf(p)}
}

// LastOf is the highest address of a prefix (for IPv4, its broadcast address).
func LastOf(p netip.Prefix) netip.Addr {
	u := fromAddr(p.Masked().Addr())
	host := uint(p.Addr().BitLen() - p.Bits())
	return u.or(mask(host)).addr(p.Addr().Is4())
}

// Valid reports whether the range is well formed and not empty.
func (r Range) Valid() bool {
	return r.First.IsValid() && r.Last.IsValid() && r.First.Is4() == r.Last.Is4() && !r.Last.Less(r.First)
}

// Contains reports whether a lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.Is4() == r.First.Is4() && !a.Less(r.First) && !r.Last.Less(a)
}

// Overlaps reports whether the two share an address.
func (r Range) Overlaps(o Range) bool {
	return r.First.Is4() == o.First.Is4() && !r.Last.Less(o.First) && !o.Last.Less(r.First)
}

// Size is the number of addresses, at most math.MaxUint64.
func (r Range) Size() uint64 {
	d := fromAddr(r.Last).sub(fromAddr(r.First))
	if d.hi != 0 || d.lo == math.MaxUint64 {
		return math.MaxUint64
	}
	return d.lo + 1
}

// Within cuts r down to what lies in o; ok is false when nothing does.
func (r Range) Within(o Range) (cut Range, ok bool) {
	if !r.Overlaps(o) {
		return Range{}, false
	}
	if r.First.Less(o.First) {
		r.First = o.First
	}
	if o.Last.Less(r.Last) {
		r.Last = o.Last
	}
	return r, true
}

func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return fmt.Sprintf("%s-%s", r.First, r.Last)
}

// Add is the address n after a; ok is false past the end of the family.
func Add(a netip.Addr, n uint64) (sum netip.Addr, ok bool) {
	u := fromAddr(a)
	lo, carry := bits.Add64(u.lo, n, 0)
	hi, over := bits.Add64(u.hi, 0, carry)
	v := u128{hi, lo}
	if over != 0 || a.Is4() && (hi != 0 || lo > math.MaxUint32) {
		return netip.Addr{}, false
	}
	return v.addr(a.Is4()), true
}

// Distance is how many addresses b lies after a, at most math.MaxUint64. b must not be less than a.
func Distance(a, b netip.Addr) uint64 {
	d := fromAddr(b).sub(fromAddr(a))
	if d.hi != 0 {
		return math.MaxUint64
	}
	return d.lo
}

// Aligned cuts from the front of r the largest power-of-two block, aligned on
// its own size, that has at most max addresses. max must be at least 1.
func (r Range) Aligned(max uint64) Range {
	k := uint(bits.Len64(min(max, r.Size()))) - 1 // 2^k ≤ both
	if z := fromAddr(r.First).trailingZeros(); z < k {
		k = z
	}
	last, _ := Add(r.First, 1<<k-1) // inside r, so inside the family
	return Range{r.First, last}
}

// Subtract gives what of each range of from lies in no range of cut, in order.
func Subtract(from, cut []Range) []Range {
	rest := slices.Clone(from)
	for _, c := range cut {
		var next []Range
		for _, r := range rest {
			in, ok := r.Within(c)
			if !ok {
				next = append(next, r)
				continue
			}
			if r.First != in.First {
				next = append(next, Range{First: r.First, Last: in.First.Prev()})
			}
			if r.Last != in.Last {
				next = append(next, Range{First: in.Last.Next(), Last: r.Last})
			}
		}
		rest = next
	}
	return rest
}

// u128 is an address as a number; an IPv4 address is its 32 bits.
type u128 struct{ hi, lo uint64 }

func fromAddr(a netip.Addr) u128 {
	if a.Is4() {
		b := a.As4()
		return u128{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return u128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (u u128) addr(is4 bool) netip.Addr {
	if is4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(u.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], u.hi)
	binary.BigEndian.PutUint64(b[8:], u.lo)
	return netip.AddrFrom16(b)
}

func (u u128) or(v u128) u128 { return u128{u.hi | v.hi, u.lo | v.lo} }

func (u u128) sub(v u128) u128 {
	lo, borrow := bits.Sub64(u.lo, v.lo, 0)
	hi, _ := bits.Sub64(u.hi, v.hi, borrow)
	return u128{hi, lo}
}

func (u u128) trailingZeros() uint {
	if u.lo != 0 {
		return uint(bits.TrailingZeros64(u.lo))
	}
	return 64 + uint(bits.TrailingZeros64(u.hi))
}

// mask is the n lowest bits set.
func mask(n uint) u128 {
	if n >= 64 {
		return u128{1<<(n-64) - 1, math.MaxUint64}
	}
	return u128{0, 1<<n - 1}
}
