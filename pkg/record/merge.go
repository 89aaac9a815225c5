package record

import (
	"fmt"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Merge takes in a delta from anybody and reports what readers see change, by key
// where a set was replaced, else in the delta's order. The error, a *Refused,
// says that parts of it were not taken; the changes hold all the same. Deltas may
// come in any order, any number of times.
func (s *Store) Merge(d Delta) ([]Change, error) {
	m := merge{s: s, d: d}
	if err := d.check(); err != nil {
		m.refuse(err)
		return nil, m.result()
	}
	if d.Origin == s.self && !s.mergeOwn(&m) {
		return nil, m.result()
	}
	targets := m.targets()
	if len(targets) == 0 {
		return nil, m.result()
	}
	upTo := m.apply(targets)
	for _, t := range targets {
		if d.From <= t.have {
			t.have = max(t.have, min(upTo, t.head.Seq))
		}
	}
	m.settle()
	if d.Origin == s.self {
		return nil, m.result() // nobody reads these but Former
	}
	return named(d.Origin, m.changes), m.result()
}

// mergeOwn looks at what others hold of this host. It reports whether the delta
// is of another life, to be kept for Former.
func (s *Store) mergeOwn(m *merge) bool {
	h, own := m.d.Head, s.own
	if h.Incarnation < own.incarnation {
		return true
	}
	if h.Incarnation == own.incarnation && s.announced && h.Seq <= own.have {
		return false // an echo
	}
	if !m.headHolds() {
		return false
	}
	s.overtaken = max(s.overtaken, h.Incarnation)
	return true
}

// merge is one delta on its way in.
type merge struct {
	s       *Store
	d       Delta
	changes []Change
	refused int
	first   error
}

func (m *merge) refuse(err error) {
	if m.refused++; m.refused == 1 {
		m.first = err
	}
	m.s.stats.Refused++
}

func (m *merge) result() error {
	if m.refused == 0 {
		return nil
	}
	return &Refused{m.d.Origin, m.refused, m.first}
}

func (m *merge) headHolds() bool {
	if err := m.s.verify(m.d.Cert, m.d.Origin, signedHead(m.d.Origin, m.d.Head), m.d.Head.Sig); err != nil {
		m.refuse(fmt.Errorf("head %d of incarnation %d: %w: %w", m.d.Head.Seq, m.d.Head.Incarnation, ErrForged, err))
		return false
	}
	return true
}

// targets finds the sets that the delta is for, and gives them its head. A higher
// incarnation than any that is known begins a new set, once its head is proven.
func (m *merge) targets() (ts []*set) {
	inc := m.d.Head.Incarnation
	if gone, ok := m.s.gone[m.d.Origin]; ok && inc <= gone {
		return nil
	}
	x := m.s.origins[m.d.Origin]
	if x != nil {
		for _, t := range []*set{x.cur, x.next} {
			if t != nil && t.incarnation == inc {
				ts = append(ts, t)
			}
		}
		if len(ts) > 0 {
			m.updateHeads(ts)
			return ts
		}
		if inc < x.cur.incarnation || x.next != nil && inc < x.next.incarnation {
			return nil // a life that is over
		}
	}
	if !m.headHolds() {
		return nil
	}
	t := newSet(inc, m.d.Cert, m.s.own.keep)
	t.head = m.d.Head
	if !m.s.begin(m.d.Origin, t) {
		m.refuse(fmt.Errorf("origin %q beside %d others: %w", clip(string(m.d.Origin)), MaxOrigins, ErrTooLarge))
		return nil
	}
	return []*set{t}
}

// begin makes t the newest set of an origin. It stays out of sight until it is right,
// also the first one: half of a host's records would say what it never said.
func (s *Store) begin(o gossip.Peer, t *set) bool {
	x := s.origins[o]
	switch {
	case x == nil && len(s.origins) >= MaxOrigins:
		return false
	case x == nil:
		s.origins[o] = &origin{cur: newSet(0, nil, 0), next: t}
	default:
		if x.next != nil {
			s.bytes -= x.next.bytes
		}
		x.next = t
	}
	return true
}

func (m *merge) updateHeads(ts []*set) {
	newer := false
	for _, t := range ts {
		newer = newer || m.d.Head.Seq > t.head.Seq
	}
	if !newer || !m.headHolds() {
		return
	}
	for _, t := range ts {
		if m.d.Head.Seq > t.head.Seq {
			t.head = m.d.Head
		}
	}
}

// apply takes the entries in, one by one. It gives up to where the delta counts
// as received: before the first entry that was refused.
func (m *merge) apply(ts []*set) (upTo uint64) {
	upTo = m.d.To
	for _, e := range m.d.Entries {
		if err := m.applyEntry(ts, e); err != nil {
			m.refuse(err)
			if e.Seq <= upTo {
				upTo = max(e.Seq, 1) - 1
			}
		}
	}
	return upTo
}

func (m *merge) applyEntry(ts []*set, e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if !e.Deleted && e.Value == nil {
		e.Value = []byte{} // so that nil always means none
	}
	verified := false
	for _, t := range ts {
		if !t.lacks(e) {
			continue
		}
		if e.Seq > t.head.Seq {
			return fmt.Errorf("entry %d, key %q is above the head %d: %w", e.Seq, clip(e.Key), t.head.Seq, ErrMalformed)
		}
		if !t.room(e) || m.s.bytes+e.size() > MaxTotal {
			return fmt.Errorf("entry %d, key %q beside %d others of %d bytes: %w", e.Seq, clip(e.Key), len(t.entries), t.bytes, ErrTooLarge)
		}
		if !verified {
			if err := m.s.verify(m.d.Cert, m.d.Origin, signedEntry(m.d.Origin, t.incarnation, e), e.Sig); err != nil {
				return fmt.Errorf("entry %d, key %q: %w: %w", e.Seq, clip(e.Key), ErrForged, err)
			}
			verified = true
		}
		m.put(t, e)
	}
	return nil
}

func (m *merge) put(t *set, e Entry) {
	m.s.bytes -= t.bytes
	old := t.put(e)
	m.s.bytes += t.bytes
	if t == m.s.origins[m.d.Origin].cur && !same(old, e.Value) {
		m.changes = append(m.changes, Change{Key: e.Key, Old: old, New: e.Value})
	}
}

// settle swaps a staged set in when it is right, and begins to fetch a fresh one
// when what is there has all and is wrong all the same.
func (m *merge) settle() {
	x := m.s.origins[m.d.Origin]
	switch {
	case x.next != nil && x.next.right():
		m.changes = append(m.changes, differences(x.cur, x.next)...)
		m.s.bytes -= x.cur.bytes
		if !x.cur.none() {
			m.s.stats.Swapped++
		}
		x.cur, x.next = x.next, nil
	case x.next != nil && x.next.reached():
		m.refetch(x.next)
	case x.next == nil && x.cur.reached() && !x.cur.right():
		m.refetch(x.cur)
	}
}

func (m *merge) refetch(wrong *set) {
	fresh := newSet(wrong.incarnation, wrong.cert, wrong.keep)
	fresh.head = wrong.head
	m.s.begin(m.d.Origin, fresh)
	m.s.stats.Refetch++
}
