package ledger

import "slices"

// DefaultNetwork is the network that every cluster has, from its founding on.
const DefaultNetwork = "weave"

// CloseNetwork begins the end of a network: nobody is given an address of it any more,
// what comes back of it stays in the pool, and each host gives back what it owns once
// no container of it is there. With Force every host ends its containers' attachments
// to it first. Said again it changes nothing, but for a Force that was not said before.
type CloseNetwork struct {
	Name  string
	ID    string // of the network that is meant: another may have its name since
	Force bool
}

// DelNetwork removes a network that is Closing and of which nobody owns a block any
// more: nobody uses it, and nobody can.
type DelNetwork struct {
	Name string
	ID   string
}

func (s *State) closeNetwork(c CloseNetwork) Result {
	i, res := s.identify(c.Name, c.ID)
	if res.Code != OK {
		return res
	}
	if c.Name == DefaultNetwork {
		return refuse(CodeInvalid, "network %s is the cluster's default network: it stays as long as the cluster", c.Name)
	}
	n := *s.networks[i]
	n.Closing, n.Forced = true, n.Forced || c.Force
	s.setNetwork(i, &n)
	return Result{}
}

func (s *State) delNetwork(d DelNetwork) Result {
	i, res := s.identify(d.Name, d.ID)
	if res.Code != OK {
		return res
	}
	if !s.networks[i].Closing {
		return refuse(CodeInvalid, "network %s is not being removed: it has to be closed first", d.Name)
	}
	if id := s.networks[i].owner(); id != 0 {
		res := refuse(CodeOccupied, "network %s still has addresses at host %s", d.Name, s.nameOf(id))
		res.Owner = id
		return res
	}
	s.networks = slices.Delete(slices.Clone(s.networks), i, i+1)
	return Result{}
}

// owner is somebody who owns a block of the network, 0 when nobody does.
func (n *network) owner() MemberID {
	for _, sp := range n.spaces {
		if len(sp.blocks) > 0 {
			return sp.blocks[0].Member
		}
	}
	return 0
}

// identify finds the network of that name and id.
func (s *State) identify(name, id string) (int, Result) {
	i, ok := s.findNetwork(name)
	switch {
	case !ok:
		return 0, refuse(CodeUnknown, "there is no network %q", clip(name))
	case s.networks[i].ID != id:
		return 0, refuse(CodeUnknown, "network %s has the id %s, not %q: it is another one", name, s.networks[i].ID, clip(id))
	}
	return i, Result{}
}

// Holders are the members that own blocks of a network, each once, in the order of their ids.
func (s *State) Holders(name string) (ids []MemberID) {
	i, ok := s.findNetwork(name)
	if !ok {
		return nil
	}
	owns := make(map[MemberID]bool)
	for _, sp := range s.networks[i].spaces {
		for _, o := range sp.blocks {
			owns[o.Member] = true
		}
	}
	for _, m := range s.members {
		if owns[m.ID] {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
