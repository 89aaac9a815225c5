package carrier

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// maxPeers bounds the sessions of a router, and the peers whose addresses it knows.
const maxPeers = 1024

// table holds the one session with each peer.
//
// Two routers may dial each other at the same moment, or one may have lost a
// session that the other still believes in. So that both keep the same one, only
// the router with the lower name decides, in one place and one after the other,
// and numbers its decisions; the other keeps what has the higher number.
type table struct {
	mu   sync.Mutex
	live map[gossip.Peer]*session
	seq  uint64
}

// settled is the age in which a session is no longer the other half of a
// simultaneous dial: a peer that dials us then has lost it.
const settled = greetWithin

// lateBeat is a silence in which a peer that lives would have been heard.
const lateBeat = beatEvery * 3 / 2

// refuse reports why a session with this peer cannot be, judged by those that
// are. Both sides ask it. A later start of a peer takes the place of an earlier one
// only when that one's session has ended: the kernel ends the connections of a process
// that dies, and 4 s of silence do. So a copy of a state directory does not push out
// the original that lives.
func (t *table) refuse(h Hello) *Refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.live[h.Name]
	switch {
	case old != nil && old.isClosed():
		return nil
	case old == nil && len(t.live) >= maxPeers:
		return &Refusal{Code: full, Words: fmt.Sprintf("this router has %d peers already", maxPeers)}
	case old == nil:
		return nil
	case old.hello.MemberID != h.MemberID && old.quiet() > lateBeat:
		return &Refusal{Code: conflict, Words: fmt.Sprintf("%q was connected a moment ago with another key and has fallen silent: "+
			"this connection is tried again, and taken as soon as that one has ended", h.Name)}
	case old.hello.MemberID != h.MemberID:
		return &Refusal{Code: conflict, Words: fmt.Sprintf("another host is connected as %q, with another key: "+
			"give one of the two a name of its own with --name (cloned machines share a machine-id)", h.Name)}
	case old.hello.Incarnation > h.Incarnation:
		return &Refusal{Code: twin, Words: fmt.Sprintf("%q is connected with incarnation %d, this is %d: "+
			"is the same state directory in use twice, or restored from an older copy?", h.Name, old.hello.Incarnation, h.Incarnation)}
	case old.hello.Incarnation < h.Incarnation:
		return &Refusal{Code: twin, Words: fmt.Sprintf("%q is connected with incarnation %d, this is %d: "+
			"if it was started again just now this ends within seconds, else two routers run with one state directory, or copies of one",
			h.Name, old.hello.Incarnation, h.Incarnation)}
	}
	return nil
}

// decide is for the side with the lower name: it makes s the session with its
// peer and returns the one that it replaces, or says why not.
func (t *table) decide(s *session, now time.Time) (replaced *session, no *Refusal) {
	if no := t.refuse(s.hello); no != nil {
		return nil, no
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.live[s.hello.Name]
	if old != nil && !old.isClosed() && old.hello.Incarnation == s.hello.Incarnation && (s.dialled || now.Sub(old.since) < settled) {
		return nil, &Refusal{Code: duplicate, Words: "connected already"}
	}
	t.seq++
	s.seq = t.seq
	t.live[s.hello.Name] = s
	return old, nil
}

// settle is for the other side: it makes s the session with its peer, unless
// that peer has decided for a later one meanwhile.
func (t *table) settle(s *session, seq uint64) (replaced *session, no *Refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.live[s.hello.Name]
	if old != nil && old.hello.Incarnation == s.hello.Incarnation && old.seq > seq {
		return nil, &Refusal{Code: duplicate, Words: "connected already"}
	}
	s.seq = seq
	t.live[s.hello.Name] = s
	return old, nil
}

// remove forgets s, unless another has replaced it.
func (t *table) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live[s.hello.Name] == s {
		delete(t.live, s.hello.Name)
	}
}

// get returns the session with a peer, nil if there is none.
func (t *table) get(p gossip.Peer) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.live[p]; s != nil && !s.isClosed() {
		return s
	}
	return nil
}

// all lists the sessions by their peers' names.
func (t *table) all() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*session
	for _, s := range t.live {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *session) int { return strings.Compare(string(a.hello.Name), string(b.hello.Name)) })
	return out
}
