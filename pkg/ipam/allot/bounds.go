package allot

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// maxRanges bounds the lists of an order, together: each choice looks through them.
const maxRanges = 64

// boundsOf are what the order says of one family's addresses: a subnet to choose from,
// and an endpoint, bound their own family only.
func (o Order) boundsOf(is4 bool) book.Bounds {
	b := o.bounds
	if b.Within.IsValid() && b.Within.Addr().Is4() != is4 {
		b.Within = netip.Prefix{}
	}
	if o.part.IsValid() && o.part.Addr().Is4() == is4 {
		b.Net = o.part
		if !b.Within.IsValid() || b.Within.Bits() < b.Net.Bits() {
			b.Within = b.Net // they overlap, so it is in that
		}
	}
	return b
}

// outside says why a requested address is not within the order's own bounds.
func (o Order) outside(x netip.Addr) error {
	b := o.boundsOf(x.Is4())
	if b.Within.IsValid() && !b.Within.Contains(x) {
		return ctl.Errorf(ctl.CodeInvalidConfig, "address %s is not in the subnet %s that was asked for", x, b.Within)
	}
	if b.Ends(x) {
		return ctl.Errorf(ctl.CodeInvalidConfig, "address %s is the first or the last of %s, which nobody may have", x, b.Net)
	}
	return ctl.Errorf(ctl.CodeInvalidConfig, "address %s is asked for, and excluded by the same configuration", x)
}

// misses refuses a range that no subnet of the network has a part of: what was meant to
// be kept would be given, and nobody would notice. Of a family that the network does not
// have nothing is given anyway.
func (o Order) misses(n ledger.Network) error {
	for _, list := range []struct {
		what   string
		ranges []addr.Range
	}{{"excluded", o.bounds.But}, {"reserved", o.bounds.Kept}} {
		for _, r := range list.ranges {
			kin := func(p netip.Prefix) bool { return p.Addr().Is4() == r.First.Is4() }
			touches := func(p netip.Prefix) bool { _, ok := r.Within(addr.RangeOf(p)); return ok }
			if slices.ContainsFunc(n.Subnets, kin) && !slices.ContainsFunc(n.Subnets, touches) {
				return ctl.Errorf(ctl.CodeInvalidConfig, "%s is %s, and not in network %q, which has %v", r, list.what, n.Name, n.Subnets)
			}
		}
	}
	return nil
}

// parseLists reads what the order is not to have, and what it only has by asking for it.
func parseLists(exclude, reserve []string) (but, kept []addr.Range, err error) {
	if n := len(exclude) + len(reserve); n > maxRanges {
		return nil, nil, ctl.Errorf(ctl.CodeInvalidConfig, "%d ranges are excluded or reserved, at most %d may be", n, maxRanges)
	}
	if but, err = parseRanges("excluded", exclude); err != nil {
		return nil, nil, err
	}
	kept, err = parseRanges("reserved", reserve)
	return but, kept, err
}

// parseRanges reads prefixes, each with all that is in it, and addresses.
func parseRanges(what string, texts []string) (out []addr.Range, err error) {
	for _, text := range texts {
		r, err := parseRange(text)
		if err != nil {
			return nil, ctl.Errorf(ctl.CodeInvalidConfig, "%s %.60q: want a prefix like 10.32.5.0/24, or an address", what, text)
		}
		out = append(out, r)
	}
	return out, nil
}

func parseRange(text string) (addr.Range, error) {
	if p, err := netip.ParsePrefix(text); err == nil && !p.Addr().Is4In6() {
		return addr.RangeOf(p.Masked()), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return addr.Range{}, errors.New("neither a prefix nor an address")
	}
	return addr.Range{First: a, Last: a}, nil
}
