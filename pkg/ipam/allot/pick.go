package allot

import (
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
)

// otherPicks is how many more are looked at when one seems to be in use elsewhere.
const otherPicks = 8

// pick chooses an address of the own blocks, one that no other host says it uses if it
// can: a block may be here before the word that its former owner's container has ended.
func (a *Core) pick(o Order, network string, is4 bool, within book.Bounds) (netip.Prefix, bool) {
	first, ok := a.book.Pick(o.claim.Hash, network, is4, within)
	if a.config.Unused == nil {
		return first, ok
	}
	for p, tries := first, 0; ok && tries < otherPicks; tries++ {
		x := p.Addr()
		if _, unused := a.config.Unused(network, []netip.Addr{x}); unused {
			return p, true
		}
		within.But = append(slices.Clip(within.But), addr.Range{First: x, Last: x})
		p, ok = a.book.Pick(o.claim.Hash, network, is4, within)
	}
	return first, first.IsValid()
}
