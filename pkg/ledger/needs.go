package ledger

import (
	"net/netip"
	"slices"
)

// Need is what a member asked for in vain and others may have to spare: addresses
// of a subnet whose pool is empty, or one address that another owns. It lasts as
// long as its reason: until the pool has something again, or the address is no
// longer another's; so nobody gives for a need that was met, nor twice for one
// whose asker is gone. Who still lacks something when the ledger has moved asks
// again, which notes it again.
type Need struct {
	Member  MemberID     `cbor:"1,keyasint"`
	Network string       `cbor:"2,keyasint"` // name
	Subnet  netip.Prefix `cbor:"3,keyasint"`
	Want    uint64       `cbor:"4,keyasint,omitempty"` // addresses; 0 when Addr is wanted
	Addr    netip.Addr   `cbor:"5,keyasint,omitzero"`  // this one, when valid
}

func (n Need) same(o Need) bool {
	return n.Member == o.Member && n.Network == o.Network && n.Subnet == o.Subnet && n.Addr == o.Addr
}

// settleNeeds notes the need that a command left, and drops those that it met.
// Only what returns blocks, moves them or ends a member or a network can meet any.
func (s *State) settleNeeds(c Command, res Result) {
	switch {
	case res.Code == CodeEmpty && c.Take != nil:
		t := c.Take
		s.noteNeed(Need{Member: t.ID, Network: t.Network, Subnet: t.Subnet, Want: t.Want})
	case res.Code == CodeTaken && c.TakeAddr != nil:
		t := c.TakeAddr
		n, _, j := s.spaceOf(t.Network, t.Addr)
		s.noteNeed(Need{Member: t.ID, Network: t.Network, Subnet: n.Subnets[j], Addr: t.Addr})
	case res.Code == OK && (c.Give != nil || c.Leave != nil || c.Retire != nil || c.Join != nil || c.DelNetwork != nil):
		s.pruneNeeds()
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

func (s *State) pruneNeeds() {
	met := s.met()
	if i := slices.IndexFunc(s.needs, met); i < 0 {
		return
	}
	s.needs = slices.DeleteFunc(slices.Clone(s.needs), met)
}

// met tells of a need whether its reason is no more. It looks at each subnet once.
func (s *State) met() func(Need) bool {
	type subnet struct {
		network string
		prefix  netip.Prefix
	}
	hasAny := make(map[subnet]bool)
	return func(n Need) bool {
		if m, ok := s.Member(n.Member); !ok || !m.Live() {
			return true
		}
		if n.Addr.IsValid() {
			owner, owned := s.Owner(n.Network, n.Addr)
			return !owned || owner == n.Member
		}
		key := subnet{n.Network, n.Subnet}
		any, known := hasAny[key]
		if !known {
			sp, ok := s.space(n.Network, n.Subnet)
			any = !ok || !sp.blocks.full(sp.whole)
			hasAny[key] = any
		}
		return any
	}
}
