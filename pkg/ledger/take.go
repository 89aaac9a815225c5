package ledger

import (
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

func (s *State) take(t Take) Result {
	i, j, res := s.locate(t.ID, t.Network, t.Subnet)
	if res.Code != OK {
		return res
	}
	if t.Want == 0 {
		return refuse(CodeInvalid, "asked for 0 addresses of %s", t.Subnet)
	}
	sp, parts := s.networks[i].spaces[j], s.liveMembers()+1
	pool := sp.blocks.free(sp.whole)
	held := sp.blocks.held(t.ID)
	if t.Early && held > 0 && held >= sp.whole.Size()/parts {
		return refuse(CodeShare, "host %s holds its share of %s in network %s already, %d addresses", s.nameOf(t.ID), t.Subnet, t.Network, held)
	}
	if t.Early && pool < parts {
		return refuse(CodeShare, "the last %d addresses of %s in network %s are for hosts that have a container waiting", pool, t.Subnet, t.Network)
	}
	if pool == 0 {
		return refuse(CodeEmpty, "every address of %s in network %s belongs to a host", t.Subnet, t.Network)
	}
	if s.crumbled(sp) {
		return refuse(CodeTooMany, "the addresses are in more pieces than there may be")
	}
	want := min(ceilPow2(t.Want), floorPow2(max(pool/parts, 1)))
	granted := sp.blocks.choose(sp.whole, want)
	after := sp.blocks
	for _, r := range granted {
		after = after.grant(t.ID, r)
	}
	s.setBlocks(i, j, after)
	return Result{Ranges: granted}
}

// crumbled reports whether there are so many ranges that there may be no more.
func (s *State) crumbled(sp space) bool {
	return len(sp.blocks) >= maxBlocks || s.pieces() >= maxAll
}

// pieces is how many owned ranges there are.
func (s *State) pieces() (n int) {
	for _, net := range s.networks {
		for _, sp := range net.spaces {
			n += len(sp.blocks)
		}
	}
	return n
}

func (s *State) takeAddr(t TakeAddr) Result {
	if t.Addr.Zone() != "" {
		return refuse(CodeInvalid, "address %s has a zone", t.Addr)
	}
	n, i, j := s.spaceOf(t.Network, t.Addr)
	if n == nil {
		return refuse(CodeUnknown, "address %s lies in no subnet of network %q", t.Addr, clip(t.Network))
	}
	if _, _, res := s.locate(t.ID, t.Network, n.Subnets[j]); res.Code != OK {
		return res
	}
	granted := Result{Ranges: []addr.Range{{First: t.Addr, Last: t.Addr}}}
	k, owned := n.spaces[j].blocks.find(t.Addr)
	if !owned && s.crumbled(n.spaces[j]) {
		return refuse(CodeTooMany, "the addresses are in more pieces than there may be")
	}
	if !owned {
		s.setBlocks(i, j, n.spaces[j].blocks.grant(t.ID, granted.Ranges[0]))
		return granted
	}
	if owner := n.spaces[j].blocks[k].Member; owner != t.ID {
		res := refuse(CodeTaken, "address %s of network %s belongs to host %s", t.Addr, t.Network, s.nameOf(owner))
		res.Owner = owner
		return res
	}
	return granted
}

func (s *State) give(g Give) Result {
	i, ok := s.findNetwork(g.Network)
	m, known := s.Member(g.ID)
	switch {
	case !ok:
		return refuse(CodeUnknown, "there is no network %q", clip(g.Network))
	case !known:
		return refuse(CodeUnknown, "no member has the id %x", g.ID)
	case len(g.Ranges) > MaxGive:
		return refuse(CodeTooMany, "%d ranges given back at once, at most %d may be", len(g.Ranges), MaxGive)
	}
	n := *s.networks[i]
	n.spaces = slices.Clone(n.spaces)
	for _, r := range g.Ranges {
		j := slices.IndexFunc(n.spaces, func(sp space) bool { return inside(r, sp.whole) })
		if j < 0 {
			return refuse(CodeUnknown, "range %s lies in no subnet of network %s", r, g.Network)
		}
		after, ok := n.spaces[j].blocks.revoke(g.ID, r)
		if !ok {
			return refuse(CodeTaken, "host %s gives back %s in network %s, not all of which it owns", m.Name, r, g.Network)
		}
		n.spaces[j].blocks = after
	}
	before, after := 0, s.pieces()
	for j, sp := range n.spaces {
		before, after = before+len(s.networks[i].spaces[j].blocks), after+len(sp.blocks)
	}
	if after -= before; after > maxAll+MaxGive || slices.ContainsFunc(n.spaces, func(sp space) bool { return len(sp.blocks) > maxBlocks+MaxGive }) {
		return refuse(CodeTooMany, "the addresses would be in more pieces than there may be")
	}
	s.setNetwork(i, &n)
	return Result{}
}

// locate finds the subnet that a live member asks for.
func (s *State) locate(id MemberID, name string, subnet netip.Prefix) (i, j int, res Result) {
	m, ok := s.Member(id)
	if !ok {
		return 0, 0, refuse(CodeUnknown, "no member has the id %x", id)
	}
	if !m.Live() {
		return 0, 0, refuse(CodeGone, "host %s has left the cluster or was replaced under this id", m.Name)
	}
	i, ok = s.findNetwork(name)
	if !ok {
		return 0, 0, refuse(CodeUnknown, "there is no network %q", clip(name))
	}
	if j = slices.Index(s.networks[i].Subnets, subnet); j < 0 {
		return 0, 0, refuse(CodeUnknown, "network %s has no subnet %s", name, subnet)
	}
	if n := s.networks[i]; n.Closing {
		return 0, 0, refuse(CodeClosing, "network %s is being removed", name)
	} else if n.Host != "" && n.Host != m.Name {
		return 0, 0, refuse(CodeWrong, "network %s is of host %s alone, and this is host %s", name, n.Host, m.Name)
	}
	return i, j, Result{}
}

// setBlocks and setNetwork replace one piece and copy the way to it.
func (s *State) setBlocks(i, j int, b blocks) {
	n := *s.networks[i]
	n.spaces = slices.Clone(n.spaces)
	n.spaces[j].blocks = b
	s.setNetwork(i, &n)
}

func (s *State) setNetwork(i int, n *network) {
	s.networks = slices.Clone(s.networks)
	s.networks[i] = n
}
