package allot

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Offer is ranges of one network that this host gives back. From the moment it is on
// file until the ledger has answered, and whatever crashes meanwhile, nothing of it
// is allocated: the ledger may have given it to another host already.
type Offer struct {
	Network string       `json:"network"`
	Ranges  []addr.Range `json:"ranges"`
}

// Offers keeps them, in the state directory.
type Offers interface {
	Load() ([]Offer, error)
	// Save replaces all; they are on the disk when it returns.
	Save([]Offer) error
}

// Sync brings the core up to the ledger, if that has moved. ready says that it is
// known to be the present one, not what an old copy of the state directory had.
func (a *Core) Sync(s *ledger.State, ready bool) {
	a.ready = ready
	if s == a.synced {
		return
	}
	a.synced, a.checkForeign = s, true
	a.own()
}

// own tells the book what this host may give.
func (a *Core) own() {
	var subnets []book.Subnet
	for _, n := range a.synced.Networks() {
		for _, p := range n.Subnets {
			own := a.synced.Owned(n.Name, p, a.config.Self)
			for _, o := range a.offers {
				if o.Network == n.Name {
					own = addr.Subtract(own, o.Ranges)
				}
			}
			subnets = append(subnets, book.Subnet{Network: n.Name, Prefix: p, Own: own})
		}
	}
	a.book.Sync(subnets)
}

// Give is what to propose so that others get what they need: first what was offered
// before and is not answered; else, when somebody is in need of what this host does
// not use, a new offer, which is on file when Give returns. nil when there is nothing.
func (a *Core) Give() (*ledger.Command, error) {
	if a.unready() != nil {
		return nil, nil
	}
	if len(a.offers) == 0 {
		o, ok := a.offer()
		if !ok {
			return nil, nil
		}
		if err := a.setOffers([]Offer{o}); err != nil {
			return nil, err
		}
	}
	o := a.offers[0]
	return &ledger.Command{Give: &ledger.Give{ID: a.config.Self, Network: o.Network, Ranges: o.Ranges}}, nil
}

// Given ends the offer that Give gave last. The core is synced with the ledger that
// has applied the command; a refusal means that an earlier try had been applied.
func (a *Core) Given() error {
	if len(a.offers) == 0 {
		return nil
	}
	return a.setOffers(slices.Clone(a.offers[1:]))
}

func (a *Core) setOffers(offers []Offer) error {
	if err := a.config.Offers.Save(offers); err != nil {
		return err
	}
	a.offers = offers
	a.own()
	return nil
}

// offer finds what can be given up for the first need that this host can help with.
func (a *Core) offer() (Offer, bool) {
	for _, n := range a.synced.Needs() {
		if n.Member == a.config.Self {
			continue
		}
		var ranges []addr.Range
		if n.Addr.IsValid() {
			ranges = a.spareAddr(n.Network, n.Addr)
		} else {
			ranges = a.spare(n.Network, n.Subnet, n.Want)
		}
		if len(ranges) > 0 {
			return Offer{n.Network, ranges}, true
		}
	}
	return Offer{}, false
}

// spareAddr is one address that this host owns and nobody holds here.
func (a *Core) spareAddr(network string, x netip.Addr) []addr.Range {
	if _, ok := a.book.SubnetOf(network, x); !ok || !a.book.Owns(x) || a.book.Holder(x) != "" || a.book.Rests(x, "", a.config.Now()) {
		return nil
	}
	return []addr.Range{{First: x, Last: x}}
}

// spare is a part of what is free here: half of what is free beyond what is used, at
// most what is asked for; and one address as long as there is one, since somebody
// waits for it and nobody here does.
func (a *Core) spare(network string, subnet netip.Prefix, want uint64) []addr.Range {
	if a.synced.Pool(network, subnet) > 0 {
		return nil // it is helped already
	}
	u := a.book.Use(network, subnet, false)
	if u.Free() == 0 {
		return nil
	}
	n := max((u.Free()-min(u.Free(), u.Used))/2, 1)
	return a.book.Spare(network, subnet, min(n, max(want, 1)), a.config.Now())
}

// Leave stops all giving, durably: everything own is offered. It does not when
// containers still hold addresses, and answers with their ids.
func (a *Core) Leave() (held []string, err error) {
	for _, c := range a.book.Claims() {
		if c.Hash != HostKey(c.Network).Hash() {
			held = append(held, cmp.Or(c.Key.ContainerID, c.Veth()))
		}
	}
	if len(held) > 0 {
		return held, nil
	}
	var all []Offer
	for _, n := range a.synced.Networks() {
		o := Offer{Network: n.Name}
		for _, p := range n.Subnets {
			o.Ranges = append(o.Ranges, a.synced.Owned(n.Name, p, a.config.Self)...)
		}
		if len(o.Ranges) > 0 {
			all = append(all, o)
		}
	}
	if err := a.setOffers(all); err != nil {
		return nil, err
	}
	a.leaving = true
	return nil, nil
}

// Stay takes Leave back. What was offered is given to the pool, and asked for anew.
func (a *Core) Stay() { a.leaving = false }
