package ledger

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// Index is the last entry of the log that the state has seen. Of two copies of
// one cluster's ledger the one with the higher index is right.
func (s *State) Index() uint64 { return s.index }

// Cluster is the cluster's id, "" before it is founded.
func (s *State) Cluster() string { return s.cluster }

// Members are all members, also those that left or were replaced, by ID. The
// slice is the caller's.
func (s *State) Members() []Member { return slices.Clone(s.members) }

// AllMembers yields what Members lists, without a copy.
func (s *State) AllMembers() iter.Seq[Member] { return slices.Values(s.members) }

// Member finds a member by its id.
func (s *State) Member(id MemberID) (Member, bool) {
	i, ok := findMember(s.members, id)
	if !ok {
		return Member{}, false
	}
	return s.members[i], true
}

// MemberByName finds the live member of that name. There is at most one.
func (s *State) MemberByName(name string) (Member, bool) {
	for _, m := range s.members {
		if m.Name == name && m.Live() {
			return m, true
		}
	}
	return Member{}, false
}

// Networks are all networks, by name. The slice is the caller's, what it points to is not.
func (s *State) Networks() []Network {
	all := make([]Network, len(s.networks))
	for i, n := range s.networks {
		all[i] = n.Network
	}
	return all
}

// Network finds a network by its name.
func (s *State) Network(name string) (Network, bool) {
	i, ok := s.findNetwork(name)
	if !ok {
		return Network{}, false
	}
	return s.networks[i].Network, true
}

// Owned lists a member's ranges in a subnet, in order, adjacent ones merged.
func (s *State) Owned(network string, subnet netip.Prefix, id MemberID) (own []addr.Range) {
	sp, _ := s.space(network, subnet)
	for _, o := range sp.blocks {
		if o.Member == id {
			own = append(own, o.Range)
		}
	}
	return own
}

// Owner is who owns an address of a network; ok is false when it is in the pool
// or in no subnet of that network.
func (s *State) Owner(network string, a netip.Addr) (owner MemberID, ok bool) {
	n, _, j := s.spaceOf(network, a)
	if n == nil {
		return 0, false
	}
	k, ok := n.spaces[j].blocks.find(a)
	if !ok {
		return 0, false
	}
	return n.spaces[j].blocks[k].Member, true
}

// Owners lists all owned ranges of a subnet, in order. The slice is the caller's.
func (s *State) Owners(network string, subnet netip.Prefix) []Ownership {
	sp, _ := s.space(network, subnet)
	return slices.Clone([]Ownership(sp.blocks))
}

// Pool is how many addresses of a subnet nobody owns, at most math.MaxUint64.
func (s *State) Pool(network string, subnet netip.Prefix) uint64 {
	sp, ok := s.space(network, subnet)
	if !ok {
		return 0
	}
	return sp.blocks.free(sp.whole)
}

// Needs are what members asked for in vain and still lack, the oldest first. The
// slice is the caller's.
func (s *State) Needs() []Need { return slices.Clone(s.needs) }

// Last is the member's last command that was applied, by its Seq, and how it
// ended; Seq 0 when none is remembered.
func (s *State) Last(id MemberID) (seq uint64, res Result) {
	i, ok := s.findRecall(id)
	if !ok {
		return 0, Result{}
	}
	return s.recalls[i].Seq, s.recalls[i].Result
}

func (s *State) findRecall(id MemberID) (int, bool) {
	return slices.BinarySearchFunc(s.recalls, id, func(r Recall, id MemberID) int { return cmp.Compare(r.ID, id) })
}

func (s *State) space(name string, subnet netip.Prefix) (space, bool) {
	i, ok := s.findNetwork(name)
	if !ok {
		return space{}, false
	}
	j := slices.Index(s.networks[i].Subnets, subnet)
	if j < 0 {
		return space{}, false
	}
	return s.networks[i].spaces[j], true
}

// spaceOf finds the subnet of a network that holds a; n is nil when none does.
func (s *State) spaceOf(name string, a netip.Addr) (n *network, i, j int) {
	i, ok := s.findNetwork(name)
	if !ok || !a.IsValid() {
		return nil, 0, 0
	}
	n = s.networks[i]
	j = slices.IndexFunc(n.spaces, func(sp space) bool { return sp.whole.Contains(a) })
	if j < 0 {
		return nil, 0, 0
	}
	return n, i, j
}
