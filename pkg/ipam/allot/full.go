package allot

import (
	"fmt"
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// census is how many addresses there are of those that an order may have, and whose.
type census struct{ all, here, used, others uint64 }

// count adds what of one range belongs to whom. The ends of its subnet, which nobody
// gets, do not count.
func (a *Core) count(c *census, network string, p netip.Prefix, r addr.Range) {
	c.all = plus(c.all, a.givable(p, r))
	for _, o := range a.synced.Owners(network, p) {
		cut, ok := o.Range.Within(r)
		switch {
		case !ok:
		case o.Member == a.config.Self:
			c.here = plus(c.here, a.givable(p, cut))
		default:
			c.others = plus(c.others, a.givable(p, cut))
		}
	}
	for _, x := range a.book.Claims() {
		for _, has := range x.Addrs {
			if x.Network == network && r.Contains(has.Addr()) && a.book.Owns(has.Addr()) {
				c.used++
			}
		}
	}
}

// givable is the size of a part of a subnet without the ends of the subnet.
func (a *Core) givable(p netip.Prefix, r addr.Range) uint64 {
	n, whole := r.Size(), addr.RangeOf(p)
	for _, end := range []netip.Addr{whole.First, whole.Last} {
		if r.Contains(end) && a.book.Reserved(end) {
			n--
		}
	}
	return n
}

// full says in numbers where all the addresses are that an order may have.
func (a *Core) full(n ledger.Network, is4 bool, within book.Bounds) error {
	var c census
	for _, p := range n.Subnets {
		if p.Addr().Is4() != is4 {
			continue
		}
		for _, r := range within.In(p) {
			a.count(&c, n.Name, p, r)
		}
	}
	e := &ctl.Error{
		Code: ctl.CodeNetworkFull,
		Msg:  fmt.Sprintf("network %q has no free address for this host", n.Name),
		Details: fmt.Sprintf("of %d addresses this host holds %d, with %d in use; other hosts hold %d; %d belong to nobody",
			c.all, c.here, c.used, c.others, c.all-min(c.all, plus(c.here, c.others))),
	}
	if within.Within.IsValid() {
		e.Msg = fmt.Sprintf("subnet %s of network %q has no free address for this host", within.Within, n.Name)
	}
	if does := restricts(within); does != "" {
		e.Details += "; what the configuration " + does + " is not counted"
	}
	return e
}
