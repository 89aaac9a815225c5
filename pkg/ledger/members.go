package ledger

import (
	"cmp"
	"slices"
)

func (s *State) join(m Member) Result {
	if m.ID == 0 || !validText(m.Name) {
		return refuse(CodeInvalid, "host %q, id %x: want a name of 1 to %d letters, digits, '_', '.', '-', and an id", clip(m.Name), m.ID, MaxName)
	}
	if old, ok := s.Member(m.ID); ok {
		switch {
		case !old.Live():
			return refuse(CodeGone, "host %s has left the cluster or was replaced under this id; it must join with a new one", old.Name)
		case old.Name != m.Name:
			return Result{Code: CodeTaken, Owner: m.ID, Err: "host " + m.Name + " joins with the id of host " + old.Name}
		}
		return Result{}
	}
	there := 0
	for _, o := range s.members {
		if !o.Left {
			there++
		}
	}
	if there >= MaxMembers {
		return refuse(CodeTooMany, "the cluster has %d hosts, the most that there may be", there)
	}
	s.members = slices.Clone(s.members)
	for i, o := range s.members {
		if o.Live() && o.Name == m.Name {
			s.members[i].Replaced, s.members[i].Left = m.ID, !s.owns(o.ID)
		}
	}
	i, _ := findMember(s.members, m.ID)
	s.members = slices.Insert(s.members, i, Member{ID: m.ID, Name: m.Name, Since: s.index})
	s.forgetLeft()
	return Result{}
}

// owns reports whether the member has any block of any network.
func (s *State) owns(id MemberID) bool {
	for _, n := range s.networks {
		for _, sp := range n.spaces {
			if sp.blocks.held(id) > 0 {
				return true
			}
		}
	}
	return false
}

func (s *State) leave(id MemberID) Result {
	m, ok := s.Member(id)
	if !ok {
		return refuse(CodeUnknown, "no member has the id %x", id)
	}
	if m.Left {
		return Result{}
	}
	for i, n := range s.networks {
		for j, sp := range n.spaces {
			if sp.blocks.held(id) > 0 {
				s.setBlocks(i, j, sp.blocks.without(id))
			}
		}
	}
	s.members = slices.Clone(s.members)
	i, _ := findMember(s.members, id)
	s.members[i].Left = true
	s.forgetLeft()
	return Result{}
}

// forgetLeft drops the last commands of those that have left, and, when there are
// too many of them, the one that joined first. The members are a fresh copy.
func (s *State) forgetLeft() {
	oldest, n := -1, 0
	for i, m := range s.members {
		if !m.Left {
			continue
		}
		if n++; oldest < 0 || m.Since < s.members[oldest].Since {
			oldest = i
		}
	}
	s.recalls = slices.DeleteFunc(slices.Clone(s.recalls), func(r Recall) bool {
		m, ok := s.Member(r.ID)
		return !ok || m.Left
	})
	if n > maxLeft {
		s.members = slices.Delete(s.members, oldest, oldest+1)
	}
}

func (s *State) nameOf(id MemberID) string {
	m, ok := s.Member(id)
	if !ok {
		return "unknown"
	}
	return m.Name
}

func (s *State) liveMembers() (n uint64) {
	for _, m := range s.members {
		if m.Live() {
			n++
		}
	}
	return n
}

func findMember(ms []Member, id MemberID) (int, bool) {
	return slices.BinarySearchFunc(ms, id, func(m Member, id MemberID) int { return cmp.Compare(m.ID, id) })
}
