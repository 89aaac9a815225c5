package meshlink

import (
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/internal/carrier"
)

// PeerStatus is one line about a peer, about an address where none has answered
// yet, or about a router that called us and was refused.
type PeerStatus struct {
	Name   gossip.Peer // "" as long as nobody has answered there
	Addr   string      // where we reach it; "" if it called us, or others reach it for us; without a port if it was refused when it called
	State  State
	Detail string // why not connected, in words
	Theirs bool   // of a refused one: it refuses us
	Twin   bool   // of a refused one: for a copy of a state directory, in use beside the original
	Hello  Hello  // of a connected peer, as it last said

	// Of a router that called us and was refused: how often, and when last.
	Count uint64
	Last  time.Time
}

// FreshFor is how long a refused call counts as one that goes on. A peer that is
// refused calls again within 15 s, where its host is not far too busy.
const FreshFor = 40 * time.Second

// Fresh reports whether a refusal goes on: one of our own calls does while it is shown, one
// who calls us has last done so within FreshFor.
func Fresh(count uint64, last, now time.Time) bool { return fresh(count, last, now, FreshFor) }

// twinFor is FreshFor where a copy of a state directory is in question: a host that may be
// used twice gives no address meanwhile, and the other may be on a host that is far too busy.
const twinFor = 90 * time.Second

// Fresh reports whether a refusal goes on, as Fresh does; of a twin, longer.
func (s PeerStatus) Fresh(now time.Time) bool {
	if s.Twin {
		return fresh(s.Count, s.Last, now, twinFor)
	}
	return Fresh(s.Count, s.Last, now)
}

func fresh(count uint64, last, now time.Time, within time.Duration) bool {
	return count == 0 || now.Sub(last) <= within
}

// State is how things stand with a peer or an address.
type State string

// The states. Relayed is a peer that others reach for us.
const (
	Connected = State(carrier.Connected)
	Relayed   = State("relayed")
	Dialling  = State(carrier.Dialling)
	Refused   = State(carrier.Refused)
)

// Status lists every peer and every address that is being dialled, by name. A
// peer that is relayed and dialled has the one line that says both. Two routers of
// one name have a line each.
func (l *Link) Status() []PeerStatus {
	return merge(l.carrier.Status(), l.view.Load().peers, func(p gossip.Peer) uint64 {
		k, _ := l.names.get(meshName(p))
		return k.memberID
	}, time.Now())
}

func lineOf(s carrier.Status) PeerStatus {
	return PeerStatus{s.Name, s.Addr, State(s.State), s.Detail, s.Theirs, s.Twin, s.Hello, s.Count, s.Last}
}

// isTwin reports whether a line is about a copy beside the router of that name and key.
func isTwin(s carrier.Status) bool { return s.Twin && !s.Theirs }

// merge makes one line a router of what the carrier says and of whom mesh reaches.
// memberOf tells who bears a name there, 0 for unknown. An old refused call says
// less than that its router does not answer now.
func merge(lines []carrier.Status, reached []gossip.Peer, memberOf func(gossip.Peer) uint64, now time.Time) []PeerStatus {
	kept := lines[:0:0]
	index := func(s carrier.Status) int {
		return slices.IndexFunc(kept, func(k carrier.Status) bool {
			return k.Name == s.Name && isTwin(k) == isTwin(s) && (k.Member == s.Member || k.Member == 0 || s.Member == 0)
		})
	}
	for _, s := range lines {
		i := -1
		if s.Name != "" {
			i = index(s)
		}
		switch {
		case i < 0:
			kept = append(kept, s)
		case kept[i].State == carrier.Dialling && s.State == carrier.Refused && lineOf(s).Fresh(now):
			kept[i] = s // the address that answers says more
		case kept[i].State == carrier.Refused && s.State == carrier.Refused && s.When.After(kept[i].When):
			kept[i].Detail, kept[i].Theirs, kept[i].Twin, kept[i].When = s.Detail, s.Theirs, s.Twin, s.When
		}
	}
	for _, p := range reached {
		s := carrier.Status{Name: p, Member: memberOf(p), State: carrier.State(Relayed)}
		if i := index(s); i < 0 {
			kept = append(kept, s)
		} else if kept[i].State != carrier.Connected {
			kept[i].State, kept[i].Count, kept[i].Last = s.State, 0, time.Time{}
		}
	}
	var out []PeerStatus
	for _, s := range kept {
		out = append(out, lineOf(s))
	}
	slices.SortFunc(out, func(a, b PeerStatus) int {
		return strings.Compare(string(a.Name)+" "+a.Addr, string(b.Name)+" "+b.Addr)
	})
	return out
}
