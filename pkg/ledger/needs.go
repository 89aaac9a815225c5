package ledger

import (
	"net/netip"
	"slices"
)

// Need is what a member asked for in vain and others may have to spare: addresses
// of a subnet whose pool is empty, or one address that another owns. Whatever comes
// back to the pool goes to those in need first, in the same entry, in the order in
// which they asked: nobody who asks for later can be quicker. So a need lasts as long
// as its reason.
type Need struct {
	Member  MemberID
	Network string // name
	Subnet  netip.Prefix
	Want    uint64     // addresses; 0 when Addr is wanted
	Addr    netip.Addr // this one, when valid
}

func (n Need) same(o Need) bool {
	return n.Member == o.Member && n.Network == o.Network && n.Subnet == o.Subnet && n.Addr == o.Addr
}

// settleNeeds notes the need that a command left, or meets what it made possible.
// Only what returns blocks, moves them, ends a member or closes a network does. Who asks
// early has no need yet.
func (s *State) settleNeeds(c Command, res Result) {
	switch {
	case res.Code == CodeEmpty && c.Take != nil && !c.Take.Early:
		t := c.Take
		s.noteNeed(Need{Member: t.ID, Network: t.Network, Subnet: t.Subnet, Want: t.Want})
	case res.Code == CodeTaken && c.TakeAddr != nil:
		t := c.TakeAddr
		n, _, j := s.spaceOf(t.Network, t.Addr)
		s.noteNeed(Need{Member: t.ID, Network: t.Network, Subnet: n.Subnets[j], Addr: t.Addr})
	case res.Code == OK && (c.Give != nil || c.Leave != nil || c.Retire != nil || c.Join != nil || c.CloseNetwork != nil):
		s.meetNeeds()
	}
}

// noteNeed adds a need, or changes how much of it there is. The member's oldest
// of that kind, or the oldest of all, makes room.
func (s *State) noteNeed(need Need) {
	needs := slices.Clone(s.needs)
	if i := slices.IndexFunc(needs, need.same); i >= 0 {
		needs[i] = need
		s.needs = needs
		return
	}
	kin := func(n Need) bool { return n.Member == need.Member && n.Addr.IsValid() == need.Addr.IsValid() }
	mine := 0
	for _, n := range needs {
		if kin(n) {
			mine++
		}
	}
	switch {
	case mine >= MaxNeeds:
		i := slices.IndexFunc(needs, kin)
		needs = slices.Delete(needs, i, i+1)
	case len(needs) >= maxNeeds:
		needs = slices.Delete(needs, 0, 1)
	}
	s.needs = append(needs, need)
}

// meetNeeds grants what the pool has, single addresses first: another's grant may
// take them. What has no reason any more is dropped.
func (s *State) meetNeeds() {
	for _, single := range []bool{true, false} {
		var left []Need
		for _, n := range s.needs {
			if n.Addr.IsValid() != single || !s.meet(n) {
				left = append(left, n)
			}
		}
		s.needs = left
	}
}

// meet reports whether a need is no more, granting what it can.
func (s *State) meet(n Need) bool {
	if s.reasoned(n) {
		return false
	}
	if _, _, res := s.locate(n.Member, n.Network, n.Subnet); res.Code != OK {
		return true
	}
	if n.Addr.IsValid() {
		s.takeAddr(TakeAddr{n.Member, n.Network, n.Addr})
	} else {
		s.take(Take{ID: n.Member, Network: n.Network, Subnet: n.Subnet, Want: n.Want})
	}
	return true
}

// reasoned reports whether what is needed cannot be had from the pool: the address
// is another's, or there is none.
func (s *State) reasoned(n Need) bool {
	i, j, res := s.locate(n.Member, n.Network, n.Subnet)
	if res.Code != OK {
		return false
	}
	if n.Addr.IsValid() {
		owner, owned := s.Owner(n.Network, n.Addr)
		return owned && owner != n.Member
	}
	sp := s.networks[i].spaces[j]
	return sp.blocks.full(sp.whole)
}
