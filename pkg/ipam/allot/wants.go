package allot

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// How blocks are asked for.
const (
	freeAtLeast = 256 // addresses of a family that a host holds free ...
	freePart    = 16  // ... or one in so many of the network, if that is less
	ownAtOnce   = 64  // foreign addresses asked for in one look
)

// Wants lists what the host should ask for, whether or not somebody waits for it.
func (a *Core) Wants() (out []Lack) {
	if a.unready() != nil {
		return nil
	}
	var held []netip.Addr
	if a.checkForeign {
		held = a.book.Held()
	}
	for _, n := range a.synced.Networks() {
		if !a.inUse[n.Name] || n.Closing || !a.belongs(n) {
			continue
		}
		for _, is4 := range []bool{true, false} {
			if l := a.wantEarly(n, is4); l != nil {
				out = append(out, *l)
			}
		}
		if a.checkForeign {
			out = append(out, a.wantForeign(n, held)...)
		}
	}
	a.checkForeign = len(out) > 0 // after these, look again: there may be more
	return out
}

// wantEarly is a proposal for more blocks of a family, if too little of it is free.
func (a *Core) wantEarly(n ledger.Network, is4 bool) *Lack {
	var free, used, size uint64
	for _, p := range n.Subnets {
		if p.Addr().Is4() == is4 {
			u := a.book.Use(n.Name, p, false)
			rested := u.Free() - min(u.Free(), a.book.Resting(n.Name, p, a.config.Now()))
			free, used, size = plus(free, rested), plus(used, u.Used), plus(size, addr.RangeOf(p).Size())
		}
	}
	need := max(used, min(freeAtLeast, size/freePart), 1)
	if size == 0 || free >= need {
		return nil
	}
	for _, p := range n.Subnets {
		if p.Addr().Is4() == is4 && a.mayGet(n.Name, p) {
			return a.lackTake(n.Name, p, need-free+need/2, true) // more than lacks: else each container that comes and goes would cost a proposal
		}
	}
	return nil
}

// mayGet reports whether an early ask would be served: the pool has more than the
// last addresses, and this host does not hold its share (as ledger.Take counts them).
func (a *Core) mayGet(network string, p netip.Prefix) bool {
	parts := uint64(1)
	for _, m := range a.synced.Members() {
		if m.Live() {
			parts++
		}
	}
	if a.synced.Pool(network, p) < parts {
		return false
	}
	var held uint64
	for _, r := range a.synced.Owned(network, p, a.config.Self) {
		held = plus(held, r.Size())
	}
	return held == 0 || held < addr.RangeOf(p).Size()/parts
}

// wantForeign asks for addresses that are in use here and have come back to the
// pool, before somebody else gets them. held are all that are.
func (a *Core) wantForeign(n ledger.Network, held []netip.Addr) (out []Lack) {
	for _, p := range n.Subnets {
		for _, f := range a.book.ForeignAmong(held, n.Name, p) {
			if _, owned := a.synced.Owner(n.Name, f); !owned && len(out) < ownAtOnce {
				out = append(out, *a.lackAddr(n.Name, f))
			}
		}
	}
	return out
}

func (a *Core) lackTake(network string, p netip.Prefix, want uint64, early bool) *Lack {
	return &Lack{
		Command: &ledger.Command{Take: &ledger.Take{ID: a.config.Self, Network: network, Subnet: p, Want: want, Early: early}},
		Key:     takeKey(network, p, early),
		Yields:  takeKey(network, p, false),
		Why:     fmt.Sprintf("the ledger must give this host more addresses of %s first", p),
	}
}

func takeKey(network string, p netip.Prefix, early bool) string {
	return fmt.Sprint(network, " ", p, " ", early)
}

// lackBlock is what helps when none of a family is free in the own blocks; an error
// when nothing does.
func (a *Core) lackBlock(o Order, n ledger.Network, is4 bool, within book.Bounds) (*Lack, error) {
	giving := a.givingBack(n, is4)
	if giving != "" && !a.ownsOffered(n) {
		return &Lack{Why: giving}, nil // it is in the pool: to take it before the offer ends would help nothing
	}
	for _, p := range n.Subnets {
		if l := a.lackIn(n, p, is4, within); l != nil {
			if t := l.Command.Take; t != nil && o.host {
				t.Want++ // with the bridge's own, as many are free as Wants is after: no second ask follows
			}
			return l.after(giving), nil
		}
	}
	if l := a.lackOthers(n, is4, within); l != nil && !o.Denied {
		return l.after(giving), nil
	}
	if giving != "" {
		return &Lack{Why: giving}, nil
	}
	return nil, a.full(n, is4, within)
}

// lackOthers asks those who own a family's addresses for some, or, where only a part of
// a subnet will do, for one that seems to be unused; nil when that helps nothing.
func (a *Core) lackOthers(n ledger.Network, is4 bool, within book.Bounds) *Lack {
	for _, p := range n.Subnets {
		if p.Addr().Is4() != is4 {
			continue
		}
		if !within.Whole(p) {
			if x, ok := a.unused(n.Name, p, within); ok {
				return a.beg(a.lackAddr(n.Name, x))
			}
			continue
		}
		owners := a.synced.Owners(n.Name, p)
		if slices.ContainsFunc(owners, func(o ledger.Ownership) bool { return o.Member != a.config.Self }) {
			return a.beg(a.lackTake(n.Name, p, 1, false))
		}
	}
	return nil
}

// lookThrough bounds the addresses of others that are looked at for an order.
const lookThrough = 4096

// unused finds an address that another host owns and no host is known to use.
func (a *Core) unused(network string, subnet netip.Prefix, within book.Bounds) (netip.Addr, bool) {
	if a.config.Unused == nil {
		return netip.Addr{}, false
	}
	var of []netip.Addr
	for _, limit := range within.In(subnet) {
		for _, o := range a.synced.Owners(network, subnet) {
			cut, ok := o.Range.Within(limit)
			if m, _ := a.synced.Member(o.Member); !ok || o.Member == a.config.Self || !m.Live() {
				continue
			}
			for x := cut.First; len(of) < lookThrough; x = x.Next() {
				if a.book.Holder(x) == "" && !a.book.Reserved(x) {
					of = append(of, x)
				}
				if x == cut.Last {
					break
				}
			}
		}
	}
	return a.config.Unused(network, of)
}

// beg marks a lack as one that others must help with. When the ledger shows already
// that it was asked for, to ask again would help nothing: only time may.
func (a *Core) beg(l *Lack) *Lack {
	l.Begs = true
	if slices.ContainsFunc(a.synced.Needs(), func(n ledger.Need) bool { return n.Member == a.config.Self && asks(*l.Command, n) }) {
		l.Command = nil
	}
	return l
}

// asks reports whether a command asks for what a need is about.
func asks(c ledger.Command, n ledger.Need) bool {
	if c.TakeAddr != nil {
		return n.Network == c.TakeAddr.Network && n.Addr == c.TakeAddr.Addr
	}
	return n.Network == c.Take.Network && n.Subnet == c.Take.Subnet && !n.Addr.IsValid()
}

// lackRested is what helps when all that is free in the own blocks still rests: nil when
// the pool has nothing that is for this host.
func (a *Core) lackRested(n ledger.Network, is4 bool, within book.Bounds) *Lack {
	for _, p := range n.Subnets {
		if l := a.lackIn(n, p, is4, within); l != nil && a.mayGet(n.Name, p) {
			l.Instead = true
			return l
		}
	}
	return nil
}

// lackIn is a proposal for more of one subnet; nil when its pool has nothing that helps.
func (a *Core) lackIn(n ledger.Network, p netip.Prefix, is4 bool, within book.Bounds) *Lack {
	if p.Addr().Is4() != is4 || a.synced.Pool(n.Name, p) == 0 {
		return nil
	}
	if within.Whole(p) {
		return a.lackTake(n.Name, p, min(freeAtLeast, max(addr.RangeOf(p).Size()/freePart, 1)), false)
	}
	x, ok := a.inPool(n.Name, p, within)
	if !ok {
		return nil
	}
	l := a.lackAddr(n.Name, x)
	l.Chosen = true
	return l
}

// inPool finds an address of a part of a subnet that nobody owns, holds or may not have.
func (a *Core) inPool(network string, subnet netip.Prefix, within book.Bounds) (netip.Addr, bool) {
	owners := a.synced.Owners(network, subnet)
	for _, limit := range within.In(subnet) {
		if x, ok := a.unowned(owners, limit); ok {
			return x, true
		}
	}
	return netip.Addr{}, false
}

func (a *Core) unowned(owners []ledger.Ownership, limit addr.Range) (netip.Addr, bool) {
	for x := limit.First; ; x = x.Next() {
		i := slices.IndexFunc(owners, func(o ledger.Ownership) bool { return !o.Range.Last.Less(x) })
		switch {
		case i >= 0 && owners[i].Range.Contains(x):
			x = owners[i].Range.Last
		case a.book.Holder(x) == "" && !a.book.Reserved(x):
			return x, true
		}
		if !x.Less(limit.Last) {
			return netip.Addr{}, false
		}
	}
}

// restricts says what a configuration does with addresses that others may have; "" for nothing.
func restricts(b book.Bounds) string {
	switch but, kept := len(b.But) > 0, len(b.Kept) > 0; {
	case but && kept:
		return "excludes or reserves"
	case but:
		return "excludes"
	case kept:
		return "reserves"
	}
	return ""
}

// Refusal reads a ledger's answer: nil when trying again makes sense.
func Refusal(res ledger.Result) error {
	switch res.Code {
	case ledger.OK, ledger.CodeEmpty, ledger.CodeShare, ledger.CodeStale:
		return nil // the state that was applied with it tells more
	case ledger.CodeWrong:
		return ctl.Errorf(ctl.CodeWrongHost, "%s", res.Err)
	case ledger.CodeTaken:
		return ctl.Errorf(ctl.CodeAddressTaken, "%s", res.Err)
	case ledger.CodeInvalid, ledger.CodeUnknown, ledger.CodeClosing:
		return ctl.Errorf(ctl.CodeInvalidConfig, "%s", res.Err)
	case ledger.CodeTooMany:
		return ctl.Errorf(ctl.CodeNetworkFull, "%s", res.Err)
	}
	return errors.New(res.Err) // retired, for one: it passes, or somebody acts
}

// DropRested forgets the files of those that have rested.
func (a *Core) DropRested() {
	now := a.config.Now()
	for hash, at := range a.resting {
		if now < at {
			continue
		}
		if err := a.config.Claims.Drop(hash); err != nil {
			a.config.Log.Warn("claim file stays", "error", err)
		}
		delete(a.resting, hash)
	}
}
