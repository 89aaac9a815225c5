package allot

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// closed refuses an order on a network that is being removed or is another host's; nil
// when it is neither.
func (a *Core) closed(n ledger.Network) error {
	switch {
	case n.Closing:
		return &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: "network " + n.Name + " is being removed", Details: "`weave net inspect " + n.Name + "` says what it waits for"}
	case !a.belongs(n):
		return &ctl.Error{Code: ctl.CodeWrongHost, Msg: "network " + n.Name + " is of host " + n.Host + " alone", Details: "run the container there, or use a network of driver weave"}
	}
	return nil
}

// belongs reports whether this host may have addresses of a network. As long as it is no
// member that is not known.
func (a *Core) belongs(n ledger.Network) bool {
	m, known := a.synced.Member(a.config.Self)
	return n.Host == "" || !known || n.Host == m.Name
}

// Vacant lists the networks that are being removed, that nobody uses here any more and
// of which this host still has something to give back: Vacate is next.
func (a *Core) Vacant() (names []string) {
	if a.unready() != nil {
		return nil
	}
	for _, n := range a.synced.Networks() {
		if n.Closing && len(a.Dwellers(n)) == 0 && a.hasOf(n) {
			names = append(names, n.Name)
		}
	}
	return names
}

// hasOf reports whether this host has anything of a network that it has not offered.
func (a *Core) hasOf(n ledger.Network) bool {
	if c, claimed := a.book.Claim(HostKey(n.Name).Hash()); claimed && !c.Stale() {
		return true
	}
	return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return len(a.unoffered(n.Name, p)) > 0 })
}

// Dwellers are the claims of containers on a network, or on addresses of it. One on a
// network that is gone, and had this one's name or its subnets, is none.
func (a *Core) Dwellers(n ledger.Network) (out []Claim) {
	inside := func(x netip.Prefix) bool {
		return slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(x.Addr()) })
	}
	for _, c := range a.book.Claims() {
		if !c.Host() && !c.Stale() && (c.Network == n.Name || slices.ContainsFunc(c.Addrs, inside)) {
			out = append(out, c)
		}
	}
	return out
}

// Vacate ends the claim on the host's own addresses on a network that is being removed,
// which are on no bridge any more, and offers everything own of it. As of OfferAll, the
// answer has to be on file before the ledger hears of it. It does nothing, and answers
// with the ids of those that hold addresses, when there are any: one was found since.
func (a *Core) Vacate(name string) (unsaved []Offer, held []string, err error) {
	n, ok := a.synced.Network(name)
	if !ok || !n.Closing || a.unready() != nil {
		return nil, nil, nil
	}
	for _, c := range a.Dwellers(n) {
		held = append(held, cmp.Or(c.Key.ContainerID, c.Veth()))
	}
	if len(held) > 0 {
		return nil, held, nil
	}
	if err := a.Release(HostKey(name).Hash()); err != nil {
		return nil, nil, err
	}
	delete(a.inUse, name)
	a.setOffers(a.withOffers(slices.Clone(a.offers), n))
	a.unsaved = true
	return a.offers, nil, nil
}

// Forsake ends the claims on the host's own addresses on networks that are gone. Their
// bridges are down.
func (a *Core) Forsake() error {
	if a.unready() != nil {
		return nil
	}
	var errs []error
	for _, c := range a.book.Claims() {
		if c.Host() && c.Stale() {
			errs = append(errs, a.Release(c.Hash))
		}
	}
	return errors.Join(errs...)
}

// withOffers adds offers of everything own of a network.
func (a *Core) withOffers(all []Offer, n ledger.Network) []Offer {
	var own []addr.Range
	for _, p := range n.Subnets {
		own = append(own, a.unoffered(n.Name, p)...)
	}
	for part := range slices.Chunk(own, ledger.MaxGive) {
		all = append(all, Offer{Network: n.Name, Ranges: part})
	}
	return all
}
