package allot

import (
	"errors"
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
)

// maxRanges bounds the lists of an order, together: each choice looks through them.
const maxRanges = 64

// boundsOf are what the order says of one family's addresses: a subnet to choose from
// bounds its own family only.
func (o Order) boundsOf(is4 bool) book.Bounds {
	b := o.bounds
	if b.Within.IsValid() && b.Within.Addr().Is4() != is4 {
		b.Within = netip.Prefix{}
	}
	return b
}

// outside says why a requested address is not within the order's own bounds.
func (o Order) outside(x netip.Addr) error {
	if within := o.boundsOf(x.Is4()).Within; within.IsValid() && !within.Contains(x) {
		return ctl.Errorf(ctl.CodeInvalidConfig, "address %s is not in the subnet %s that was asked for", x, within)
	}
	return ctl.Errorf(ctl.CodeInvalidConfig, "address %s is asked for, and excluded by the same configuration", x)
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
