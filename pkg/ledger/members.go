package ledger

import "slices"

// join lets a host in; author is the member that says so, 0 for a leader.
func (s *State) join(m Member, author MemberID) Result {
	if m.ID == 0 || !validText(m.Name) || !m.Place.valid() {
		return refuse(CodeInvalid, "host %q, id %x: want a name of 1 to %d letters, digits, '_', '.', '-', an id, and a place of such texts", clip(m.Name), m.ID, MaxName)
	}
	if old, ok := s.Member(m.ID); ok {
		return s.joinAgain(old, m, author)
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
		if o.Name == m.Name && !o.Left {
			s.members[i] = s.follow(o, m)
		}
	}
	i, _ := findMember(s.members, m.ID)
	s.members = slices.Insert(s.members, i, Member{ID: m.ID, Name: m.Name, Place: m.Place, Since: s.index})
	s.forgetLeft()
	return Result{}
}

// joinAgain notes where a member runs now, when it says so itself: what others
// say of it may be old.
func (s *State) joinAgain(old, m Member, author MemberID) Result {
	switch {
	case !old.Live():
		return refuse(CodeGone, "host %s has left the cluster or was replaced under this id; it must join with a new one", old.Name)
	case old.Name != m.Name:
		return Result{Code: CodeTaken, Owner: m.ID, Err: "host " + m.Name + " joins with the id of host " + old.Name}
	case author == m.ID && old.Place != m.Place:
		s.members = slices.Clone(s.members)
		i, _ := findMember(s.members, m.ID)
		s.members[i].Place = m.Place
	}
	return Result{}
}

// follow is what becomes of a member when another joins under its name.
func (s *State) follow(old, newcomer Member) Member {
	if newcomer.Place.Succeeds(old.Place) {
		s.moveBlocks(old.ID, newcomer.ID)
		old.Left = true
	}
	if old.Replaced == 0 {
		old.Replaced = newcomer.ID
		old.Left = old.Left || !s.owns(old.ID)
	}
	return old
}

// moveBlocks makes all blocks of one member another's; of nobody's when to is 0.
func (s *State) moveBlocks(from, to MemberID) {
	for i, n := range s.networks {
		for j, sp := range n.spaces {
			if sp.blocks.holds(from) {
				s.setBlocks(i, j, sp.blocks.moved(from, to))
			}
		}
	}
}

// owns reports whether the member has any block of any network.
func (s *State) owns(id MemberID) bool {
	for _, n := range s.networks {
		for _, sp := range n.spaces {
			if sp.blocks.holds(id) {
				return true
			}
		}
	}
	return false
}

// leave returns a member's blocks to the pool, for good.
func (s *State) leave(id MemberID, retired bool) Result {
	m, ok := s.Member(id)
	if !ok {
		return refuse(CodeUnknown, "no member has the id %x", id)
	}
	if m.Left {
		return Result{}
	}
	s.moveBlocks(id, 0)
	s.members = slices.Clone(s.members)
	i, _ := findMember(s.members, id)
	s.members[i].Left, s.members[i].Retired = true, retired
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

// findMember is a binary search by hand: it is asked for all the time, and a Member
// is too large to be handed to a comparison by value.
func findMember(ms []Member, id MemberID) (int, bool) {
	lo, hi := 0, len(ms)
	for lo < hi {
		if mid := (lo + hi) / 2; ms[mid].ID < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(ms) && ms[lo].ID == id
}
