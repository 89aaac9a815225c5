package record

import (
	"fmt"
	"maps"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Sign makes this host's signature of msg, Verify is nil when cert belongs to the
// host of that name and sig is its signature of msg. It is called for every entry
// that comes in, so it should remember the certificates that it has checked.
type (
	Sign   func(msg []byte) []byte
	Verify func(cert []byte, name gossip.Peer, msg, sig []byte) error
)

// Store is one host's copy of everybody's records, and its own.
type Store struct {
	self   gossip.Peer
	sign   Sign
	verify Verify

	own       *set
	announced bool
	overtaken uint64 // an incarnation of our own that is heard and not below ours

	// origins holds self too: what the others have of an earlier life of this host.
	origins map[gossip.Peer]*origin
	gone    map[gossip.Peer]uint64 // forgotten up to this incarnation
	bytes   int                    // of all entries
	turn    int                    // where Delta begins, so that nobody is last for ever
	stats   Stats
}

// origin is what is known of another host.
type origin struct {
	cur  *set // visible; none() while the first is being fetched
	next *set // being fetched to replace it; nil when there is nothing to
}

// Stats counts since New.
type Stats struct {
	Refused uint64 `json:"refused"` // heads and entries that were not taken
	Refetch uint64 `json:"refetch"` // copies whose checksum was wrong, fetched anew
	Swapped uint64 `json:"swapped"` // sets replaced by a complete newer one
	Jumped  uint64 `json:"jumped"`  // times that our own incarnation had to rise
}

// New makes the store of one host's life: incarnation, at least 1, is above that
// of its lives before, as far as it remembers. Until Announce its records are
// told to nobody.
//
// cert goes out with what sign signs, for the others' verify.
func New(self gossip.Peer, incarnation uint64, sign Sign, cert []byte, verify Verify) *Store {
	own := newSet(incarnation, cert, keepDeleted)
	own.head.Incarnation = incarnation
	return &Store{self: self, sign: sign, verify: verify, own: own, origins: map[gossip.Peer]*origin{}, gone: map[gossip.Peer]uint64{}}
}

// Announce lets the own records be told. A restarted host calls it once it has
// put what its kernel holds, for from then on the others replace what they had of
// it. It must not wait for others to do so.
func (s *Store) Announce() { s.announced = true }

// Announced reports whether Announce was called.
func (s *Store) Announced() bool { return s.announced }

// Self is this host's name.
func (s *Store) Self() gossip.Peer { return s.self }

// Incarnation is the own one, as it is now.
func (s *Store) Incarnation() uint64 { return s.own.incarnation }

// Stats gives the counts.
func (s *Store) Stats() Stats { return s.stats }

// Put writes an own record. The same value again is no write. It keeps a copy.
func (s *Store) Put(key string, value []byte) error {
	if old, ok := s.own.entries[key]; ok && !old.Deleted && string(old.Value) == string(value) {
		return nil
	}
	if s.own.live() >= MaxEntries {
		return fmt.Errorf("put record %q: %d records: %w", clip(key), s.own.live(), ErrTooLarge)
	}
	return s.write(Entry{Key: key, Value: append([]byte{}, value...)})
}

// Delete removes an own record; one that is not there is no error.
func (s *Store) Delete(key string) error {
	if old, ok := s.own.entries[key]; !ok || old.Deleted {
		return nil
	}
	return s.write(Entry{Key: key, Deleted: true})
}

func (s *Store) write(e Entry) error {
	e.Seq = s.own.have + 1
	e.Sig = s.sign(signedEntry(s.self, s.own.incarnation, e))
	if err := e.check(); err != nil {
		return fmt.Errorf("put record: %w", err)
	}
	if !s.own.room(e) {
		return fmt.Errorf("put record %q: %d bytes of records: %w", clip(e.Key), s.own.bytes, ErrTooLarge)
	}
	s.bytes -= s.own.bytes
	s.own.put(e)
	s.bytes += s.own.bytes
	s.own.have = e.Seq
	return nil
}

// Overtaken is an incarnation of this host that others hold and that is not below
// the own one: this host has forgotten a life. 0: there is none. The others do not
// take its records for news until it jumps above that.
func (s *Store) Overtaken() uint64 { return s.overtaken }

// Jump raises the own incarnation to at least to, and above any that was heard, and
// gives what it is now. All own records are signed anew.
func (s *Store) Jump(to uint64) uint64 {
	to = max(to, s.overtaken+1, s.own.incarnation+1)
	next := newSet(to, s.own.cert, s.own.keep)
	for _, p := range s.own.order {
		if e, ok := s.own.at(p); ok && !e.Deleted {
			e.Sig = s.sign(signedEntry(s.self, to, e))
			next.put(e)
		}
	}
	next.have = s.own.have
	next.head.Incarnation = to
	s.bytes += next.bytes - s.own.bytes
	s.own, s.overtaken = next, 0
	s.stats.Jumped++
	return to
}

// signHead brings the own head up to date.
func (s *Store) signHead() {
	h := &s.own.head
	if h.Seq == s.own.have && h.Sig != nil {
		return
	}
	*h = Head{Incarnation: s.own.incarnation, Seq: s.own.have, Sum: slices.Clone(s.own.sum[:])}
	h.Sig = s.sign(signedHead(s.self, *h))
}

// sets lists what is known of an origin, older incarnation first: one set or two.
func (x *origin) sets() []*set {
	switch {
	case x.next == nil:
		return []*set{x.cur}
	case x.cur.none():
		return []*set{x.next}
	}
	return []*set{x.cur, x.next}
}

// sets lists what can be told of an origin, older incarnation first.
func (s *Store) sets(o gossip.Peer) []*set {
	if o == s.self && s.announced {
		return []*set{s.own}
	}
	x := s.origins[o]
	if x == nil {
		return nil
	}
	return x.sets()
}

// known lists every origin that can be told of, sorted.
func (s *Store) known() []gossip.Peer {
	all := slices.Collect(maps.Keys(s.origins))
	if s.announced && s.origins[s.self] == nil {
		all = append(all, s.self)
	}
	slices.Sort(all)
	return all
}

// Digest says what this host has. The map is the caller's.
func (s *Store) Digest() Digest {
	d := make(Digest, len(s.origins)+len(s.gone)+1)
	for o := range s.gone {
		d[o] = s.Mark(o)
	}
	for _, o := range s.known() {
		d[o] = s.Mark(o)
	}
	return d
}

// Mark is what Digest says of one origin; the zero value when it is not in it. It
// costs the same however many there are.
func (s *Store) Mark(o gossip.Peer) Mark {
	if sets := s.sets(o); len(sets) > 0 {
		return sets[len(sets)-1].mark()
	}
	if inc, ok := s.gone[o]; ok {
		return Mark{Incarnation: inc, Gone: true}
	}
	return Mark{}
}

// Heard looks at what another host's digest says of this one. It is to be called
// with each that arrives, before Overtaken is asked.
func (s *Store) Heard(d Digest) {
	m, ok := d[s.self]
	switch {
	case !ok || m.Incarnation < s.own.incarnation || m.Incarnation > maxIncarnation:
		return
	case m.Gone: // forgotten under a name that lives again
		s.overtaken = max(s.overtaken, m.Incarnation)
		return
	case !s.announced || m.Incarnation > s.own.incarnation || m.Head < s.own.have:
		return // what comes with it, signed, tells more; or the peer will hear of ours
	}
	if m.Head > s.own.have || m.Sum != half(s.own.sum[:]) {
		s.overtaken = max(s.overtaken, m.Incarnation)
	}
}

// Delta lists what a host with that digest lacks: at most about maxBytes, but at
// least one delta if it lacks anything. Entries are shared and not to be changed.
// To go on, Advance the digest and ask again.
func (s *Store) Delta(have Digest, maxBytes int) (ds []Delta) {
	all := s.known()
	s.turn++
	for i := range all {
		o := all[(i+s.turn)%len(all)]
		d, ok := s.deltaOf(o, have[o], maxBytes)
		if !ok {
			continue
		}
		if maxBytes -= d.size(); maxBytes < 0 && len(ds) > 0 {
			return ds
		}
		ds = append(ds, d)
	}
	return ds
}

// DeltaSelf is what was written here after seq, in one delta of about maxBytes; ok is false
// when there is nothing, or nothing is announced.
func (s *Store) DeltaSelf(seq uint64, maxBytes int) (d Delta, ok bool) {
	if !s.announced {
		return Delta{}, false
	}
	return s.deltaOf(s.self, Mark{Incarnation: s.own.incarnation, Seq: seq}, maxBytes)
}

// deltaOf takes the oldest set that brings a host at that mark forward.
func (s *Store) deltaOf(o gossip.Peer, at Mark, budget int) (Delta, bool) {
	for _, t := range s.sets(o) {
		if !t.mark().after(at) {
			continue
		}
		if t == s.own {
			s.signHead()
		}
		d := Delta{Origin: o, Cert: t.cert, Head: t.head, To: t.have}
		if at.Incarnation == t.incarnation {
			d.From = at.Seq
		}
		var all bool
		d.Entries, all = t.since(d.From, budget-d.size())
		if n := len(d.Entries); !all && n == 0 {
			d.Entries, _ = t.since(d.From, MaxKey+MaxValue+maxSig+entryOverhead) // one at least
			d.Entries = d.Entries[:1]
		}
		if n := len(d.Entries); !all {
			d.To = min(d.To, d.Entries[n-1].Seq)
		}
		return d, true
	}
	return Delta{}, false
}

// Origins lists the hosts of which something is visible, sorted, without oneself.
func (s *Store) Origins() []gossip.Peer {
	all := slices.Sorted(maps.Keys(s.origins))
	return slices.DeleteFunc(all, func(o gossip.Peer) bool { return o == s.self || s.origins[o].cur.none() })
}

// Records are an origin's visible records; for the own name, the own ones. The
// map is the caller's, the values are not to be changed.
func (s *Store) Records(o gossip.Peer) map[string][]byte {
	if o == s.self {
		return s.own.values()
	}
	if x := s.origins[o]; x != nil {
		return x.cur.values()
	}
	return nil
}

// Get is one visible record; nil when there is none.
func (s *Store) Get(o gossip.Peer, key string) []byte {
	if o == s.self {
		return s.own.entries[key].Value
	}
	if x := s.origins[o]; x != nil {
		return x.cur.entries[key].Value
	}
	return nil
}

// Former are the records that the others have of an earlier life of this host, as
// far as they have told it; complete says that they told all. What the host lost
// with its run directory (the names of its containers) comes back from there.
func (s *Store) Former() (records map[string][]byte, complete bool) {
	x := s.origins[s.self]
	if x == nil {
		return nil, false
	}
	t := x.sets()[0]
	return t.values(), t.right()
}

// Forget drops an origin that is retired, and does not take back the life of it that was
// known here, whoever tells it. It reports what was visible as removed.
func (s *Store) Forget(o gossip.Peer) []Change {
	x := s.origins[o]
	if x == nil || o == s.self {
		return nil
	}
	if len(s.gone) >= MaxOrigins {
		clear(s.gone) // they come back if a peer still has them; better than to grow
	}
	last := x.cur
	if x.next != nil {
		last = x.next
		s.bytes -= x.next.bytes
	}
	s.gone[o] = last.incarnation
	s.bytes -= x.cur.bytes
	delete(s.origins, o)
	return named(o, differences(x.cur, newSet(0, nil, 0)))
}

func named(o gossip.Peer, cs []Change) []Change {
	for i := range cs {
		cs[i].Origin = o
	}
	return cs
}

func (t *set) live() int { return len(t.entries) - t.deleted }
