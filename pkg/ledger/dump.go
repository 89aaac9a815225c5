package ledger

import (
	"fmt"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/addr"
)

// Dump is the whole state as plain data, for a snapshot: every list is in the
// one order that the state keeps, so equal states have equal dumps.
type Dump struct {
	Index    uint64
	Cluster  string
	NextVNI  uint32
	Members  []Member
	Networks []NetworkDump
	Recalls  []Recall
	Needs    []Need
}

// NetworkDump is a network with the owners of each of its subnets.
type NetworkDump struct {
	Network Network
	Owners  [][]Ownership // one list a subnet
}

// Dump shares its parts with the state: it is for reading only.
func (s *State) Dump() Dump {
	d := Dump{s.index, s.cluster, s.nextVNI, s.members, make([]NetworkDump, len(s.networks)), s.recalls, s.needs}
	for i, n := range s.networks {
		owners := make([][]Ownership, len(n.spaces))
		for j, sp := range n.spaces {
			owners[j] = sp.blocks
		}
		d.Networks[i] = NetworkDump{n.Network, owners}
	}
	return d
}

// Load makes a state of a dump, which it keeps. A dump in which an address has two
// owners, or that no State can have made, is an error: it may come from a peer.
func Load(d Dump) (*State, error) {
	s := &State{index: d.Index, cluster: d.Cluster, nextVNI: d.NextVNI, members: d.Members}
	if err := s.load(d); err != nil {
		return nil, fmt.Errorf("ledger dump: %w", err)
	}
	return s, nil
}

func (s *State) load(d Dump) error {
	switch {
	case s.cluster != "" && !validText(s.cluster):
		return fmt.Errorf("cluster id %q", clip(s.cluster))
	case d.NextVNI < FirstVNI || d.NextVNI > maxVNI+1:
		return fmt.Errorf("the next VNI is %d", d.NextVNI)
	}
	if err := checkMembers(s.members, s.index); err != nil {
		return err
	}
	if err := s.loadRecalls(d.Recalls); err != nil {
		return err
	}
	for _, nd := range d.Networks {
		if err := s.loadNetwork(nd); err != nil {
			return err
		}
	}
	return s.loadNeeds(d.Needs)
}

// loadRecalls takes only last commands of members that have not left, each with a
// result that a command can have.
func (s *State) loadRecalls(recalls []Recall) error {
	for i, r := range recalls {
		m, ok := s.Member(r.ID)
		switch {
		case !ok || m.Left:
			return fmt.Errorf("a last command of %x, who is no member", r.ID)
		case i > 0 && recalls[i-1].ID >= r.ID:
			return fmt.Errorf("last command of host %s out of order", m.Name)
		case len(r.Result.Err) > maxErr || len(r.Result.Ranges) > maxPieces || (r.Result.Code == OK) != (r.Result.Err == ""):
			return fmt.Errorf("last command of host %s ended in an impossible way: code %d, %d ranges, %q", m.Name, r.Result.Code, len(r.Result.Ranges), clip(r.Result.Err))
		}
		for _, x := range r.Result.Ranges {
			if !x.Valid() {
				return fmt.Errorf("last command of host %s was granted %s", m.Name, x)
			}
		}
	}
	s.recalls = recalls
	return nil
}

// loadNeeds takes only needs that have a reason, each once.
func (s *State) loadNeeds(needs []Need) error {
	if len(needs) > maxNeeds {
		return fmt.Errorf("%d needs", len(needs))
	}
	type kin struct {
		id  MemberID
		one bool
	}
	count, seen := make(map[kin]int), make(map[Need]bool, len(needs))
	for _, n := range needs {
		key := n
		key.Want = 0
		k := kin{n.Member, n.Addr.IsValid()}
		if count[k]++; seen[key] || count[k] > MaxNeeds {
			return fmt.Errorf("member %x needs too much", n.Member)
		}
		seen[key] = true
		if !s.reasoned(n) || !s.wellFormed(n) {
			return fmt.Errorf("member %x needs %d of %s %s without a reason", n.Member, n.Want, n.Subnet, n.Addr)
		}
	}
	s.needs = needs
	return nil
}

func (s *State) wellFormed(n Need) bool {
	if !n.Addr.IsValid() {
		return n.Want > 0
	}
	net, _, j := s.spaceOf(n.Network, n.Addr)
	return net != nil && n.Addr.Zone() == "" && net.Subnets[j] == n.Subnet && n.Want == 0
}

// ascending is a comparison that finds even equal elements out of order.
func ascending(less bool) int {
	if less {
		return -1
	}
	return 1
}

func checkMembers(ms []Member, index uint64) error {
	if len(ms) > mostMembers {
		return fmt.Errorf("%d members", len(ms))
	}
	names := make(map[string]bool, len(ms))
	for i, m := range ms {
		switch {
		case m.ID == 0 || !validText(m.Name) || !m.Place.valid():
			return fmt.Errorf("member %q, id %x", clip(m.Name), m.ID)
		case i > 0 && ms[i-1].ID >= m.ID:
			return fmt.Errorf("member %s out of order", m.Name)
		case m.Since > index:
			return fmt.Errorf("member %s joined by entry %d, of %d", m.Name, m.Since, index)
		case m.Live() && names[m.Name]:
			return fmt.Errorf("two live members are called %s", m.Name)
		}
		if m.Live() {
			names[m.Name] = true
		}
	}
	return nil
}

func (s *State) loadNetwork(nd NetworkDump) error {
	n := nd.Network
	if res := s.checkNetwork(n, 0); res.Code != OK {
		return res.Error()
	}
	if k := len(s.networks); n.ID == "" || n.VNI == 0 || k > 0 && s.networks[k-1].Name >= n.Name || len(nd.Owners) != len(n.Subnets) {
		return fmt.Errorf("network %s out of order or incomplete", n.Name)
	}
	for i, p := range n.Subnets {
		if res := s.checkSubnet(p, n.Subnets[:i]); res.Code != OK {
			return res.Error()
		}
	}
	if labels, res := sortLabels(slices.Clone(n.Labels)); res.Code != OK {
		return res.Error()
	} else if !slices.Equal(labels, n.Labels) || n.Forced && !n.Closing || n.Closing && n.Name == DefaultNetwork {
		return fmt.Errorf("network %s has labels out of order, or ends as none does", n.Name)
	} else if res := s.roomForLabels(labels, nil); res.Code != OK {
		return res.Error()
	}
	net := newNetwork(n)
	for j := range net.spaces {
		if err := s.checkOwners(net.spaces[j].whole, nd.Owners[j]); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
		net.spaces[j].blocks = nd.Owners[j]
	}
	s.networks = append(s.networks, net)
	return nil
}

// checkOwners proves what blocks promises: inside the subnet, sorted, without
// overlaps, merged, each with a member for an owner.
func (s *State) checkOwners(whole addr.Range, owners []Ownership) error {
	for i, o := range owners {
		m, ok := s.Member(o.Member)
		switch {
		case !inside(o.Range, whole):
			return fmt.Errorf("range %s is not inside %s", o.Range, whole)
		case !ok || m.Left:
			return fmt.Errorf("range %s belongs to no member", o.Range)
		case i > 0 && !owners[i-1].Range.Last.Less(o.Range.First):
			return fmt.Errorf("range %s overlaps or comes before %s", o.Range, owners[i-1].Range)
		case i > 0 && owners[i-1].Member == o.Member && owners[i-1].Range.Last.Next() == o.Range.First:
			return fmt.Errorf("range %s is not merged with %s", o.Range, owners[i-1].Range)
		}
	}
	return nil
}
