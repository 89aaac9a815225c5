package allot

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Offer is ranges of one network that this host gives back. No two have an address in
// common. It is on file before the ledger hears of it; from then until the ledger has
// answered, and whatever crashes meanwhile, nothing of it is allocated: the ledger may
// have given it to another host already.
type Offer struct {
	Network string       `json:"network"`
	Ranges  []addr.Range `json:"ranges"`
}

// Sync brings the core up to the ledger, if that has moved. ready says that it is
// known to be the present one, not what an old copy of the state directory had.
func (a *Core) Sync(s *ledger.State, ready bool) {
	a.ready = ready
	if s == a.synced {
		return
	}
	a.synced, a.checkForeign = s, true
	for name := range a.inUse {
		if _, ok := s.Network(name); !ok && s.Cluster() != "" {
			delete(a.inUse, name)
		}
	}
	a.own()
	for x := range a.said {
		if !slices.ContainsFunc(s.Networks(), func(n ledger.Network) bool {
			return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(x) })
		}) {
			delete(a.said, x)
		}
	}
	if s.Cluster() != "" {
		a.book.Resolve(namesOf(s.Networks()))
	}
}

// namesOf finds the name of the network whose id begins so, "" when there is none. Most
// claims know the whole id.
func namesOf(all []ledger.Network) func(id string) string {
	whole := make(map[string]string, len(all))
	for _, n := range all {
		whole[n.ID] = n.Name
	}
	return func(id string) string {
		if name, ok := whole[id]; ok {
			return name
		}
		for i := range all {
			if strings.HasPrefix(all[i].ID, id) {
				return all[i].Name
			}
		}
		return ""
	}
}

// netID is the id of a network as a claim on it has it.
func (a *Core) netID(name string) string {
	if n, ok := a.synced.Network(name); ok && name != ledger.DefaultNetwork {
		return n.ID
	}
	return ""
}

// own tells the book what this host may give.
func (a *Core) own() {
	var subnets []book.Subnet
	for _, n := range a.synced.Networks() {
		for _, p := range n.Subnets {
			subnets = append(subnets, book.Subnet{Network: n.Name, Prefix: p, Own: a.unoffered(n.Name, p)})
		}
	}
	a.book.Sync(subnets)
}

// unoffered is what the ledger says is this host's, less what it has offered.
func (a *Core) unoffered(network string, p netip.Prefix) []addr.Range {
	own := a.synced.Owned(network, p, a.config.Self)
	for _, o := range a.offers {
		if o.Network == network {
			own = addr.Subtract(own, o.Ranges)
		}
	}
	return own
}

// Offer is what to propose so that others get what they need: first what was offered
// before and is not answered; else, when somebody is in need of what this host does not
// use, a new offer, of which nothing is allocated from now on. Unless unsaved is nil, it
// has to be on file first: the caller saves it, says Saved and then proposes. Without
// that the offer stands, and comes again.
//
// What somebody holds here is not proposed, whoever offered it.
func (a *Core) Offer() (cmd *ledger.Command, unsaved []Offer) {
	if a.unready() != nil {
		return nil, nil
	}
	if len(a.offers) == 0 {
		o, ok := a.newOffer()
		if !ok {
			return nil, nil
		}
		a.setOffers([]Offer{o})
		a.unsaved = true
	}
	i := slices.IndexFunc(a.offers, func(o Offer) bool { return !a.holdsOf(o) })
	if i < 0 {
		return nil, nil
	}
	o := a.offers[i]
	a.proposed = &o
	return &ledger.Command{Give: &ledger.Give{ID: a.config.Self, Network: o.Network, Ranges: o.Ranges}}, a.file()
}

// file is what should be on file and is not; nil for nothing.
func (a *Core) file() []Offer {
	if !a.unsaved {
		return nil
	}
	return a.offers
}

// Saved notes that what Offer or OfferAll answered is on file.
func (a *Core) Saved() { a.unsaved = false }

// holdsOf reports whether somebody here holds an address of an offer. Nothing of it is own.
// Of a network that is being removed one that was on a former network of those addresses
// holds nothing: it is on none, and would keep this one from ever being gone.
func (a *Core) holdsOf(o Offer) bool {
	n, _ := a.synced.Network(o.Network)
	holds := func(x netip.Addr) bool {
		c, _ := a.book.Claim(a.book.Holder(x))
		return !(n.Closing && c.Stale()) && slices.ContainsFunc(o.Ranges, func(r addr.Range) bool { return r.Contains(x) })
	}
	return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return slices.ContainsFunc(a.book.Foreign(n.Name, p), holds) })
}

// Left is what is to be on file before Answered: all offers but the one that Offer
// answered with last. (One that were still on file might be proposed after a crash,
// when its addresses are here again, and in use.)
func (a *Core) Left() []Offer {
	return slices.DeleteFunc(slices.Clone(a.offers), func(o Offer) bool {
		return a.proposed != nil && o.Network == a.proposed.Network && slices.Equal(o.Ranges, a.proposed.Ranges)
	})
}

// Answered ends the offer that Offer answered with last, and no other. The core is
// synced with the ledger that has applied the command, so no earlier command of this
// host can follow. What the ledger refused to take, or has given back, is own again.
func (a *Core) Answered() {
	a.setOffers(a.Left())
	a.proposed, a.unsaved = nil, false
}

func (a *Core) setOffers(offers []Offer) {
	a.offers = offers
	a.own()
}

// givingBack says that addresses of a family, which this host had, are on their way to
// the pool, so that numbers would be wrong; "" when none are.
func (a *Core) givingBack(n ledger.Network, is4 bool) string {
	for _, o := range a.offers {
		if o.Network == n.Name && slices.ContainsFunc(o.Ranges, func(r addr.Range) bool { return r.First.Is4() == is4 }) {
			return "what this host had is being given back to the pool, which the ledger has to confirm"
		}
	}
	return ""
}

// ownsOffered reports whether the ledger still has this host for the owner of all that
// it has offered of a network.
func (a *Core) ownsOffered(n ledger.Network) bool {
	var own []addr.Range
	for _, p := range n.Subnets {
		own = append(own, a.synced.Owned(n.Name, p, a.config.Self)...)
	}
	return !slices.ContainsFunc(a.offers, func(o Offer) bool { return o.Network == n.Name && len(addr.Subtract(o.Ranges, own)) > 0 })
}

// newOffer finds what can be given up for the first need that this host can help with.
func (a *Core) newOffer() (Offer, bool) {
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

// spareAddr is one address that this host owns and nobody holds here. That it rests is
// no reason: it would be given here, too, to who asks for it.
func (a *Core) spareAddr(network string, x netip.Addr) []addr.Range {
	if _, ok := a.book.SubnetOf(network, x); !ok || !a.book.Owns(x) || a.book.Holder(x) != "" {
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

// Leave stops all giving, until Stay or the end of this life. It does not when containers
// still hold addresses, and answers with their ids. OfferAll comes next.
func (a *Core) Leave() (held []string) {
	if held = a.inhabitants(); len(held) == 0 {
		a.leaving = true
	}
	return held
}

// inhabitants are the ids of those that hold addresses, but for the host's own.
func (a *Core) inhabitants() (ids []string) {
	for _, c := range a.book.Claims() {
		if !c.Host() {
			ids = append(ids, cmp.Or(c.Key.ContainerID, c.Veth()))
		}
	}
	return ids
}

// OfferAll ends the claims on the host's own addresses, which are on no bridge any more,
// and offers everything own, beside what is offered already. The answer has to be on
// file, see Offer, before anybody hears that the host leaves: who has taken all back
// may give it to others at once. It does nothing when containers hold addresses (one was
// found since), and answers with their ids.
func (a *Core) OfferAll() (unsaved []Offer, held []string, err error) {
	if held = a.inhabitants(); len(held) > 0 {
		return nil, held, nil
	}
	for _, c := range a.book.Claims() {
		if err := a.Release(c.Hash); err != nil {
			return nil, nil, err
		}
	}
	all := slices.Clone(a.offers)
	for _, n := range a.synced.Networks() {
		all = a.withOffers(all, n)
	}
	a.setOffers(all)
	a.unsaved = true
	return a.offers, nil, nil
}

// Stay takes Leave back. What OfferAll offered is given to the pool all the same: the
// ledger may have taken it already.
func (a *Core) Stay() { a.leaving = false }
