package record

import (
	"cmp"
	"slices"
)

// set is one incarnation of one origin, or the part of it that has arrived.
type set struct {
	incarnation uint64
	cert        []byte
	head        Head // the newest that was heard; not older than any entry

	// Every write up to have is here, or a later one to the same key is.
	have uint64

	entries map[string]Entry
	order   []place // by seq; holds overwritten ones too until tidy
	deleted int     // entries that are deletions
	keep    int     // deletions that are kept for sure: keepDeleted but in tests
	bytes   int     // of entries, as Entry.size counts
	sum     checksum
}

type place struct {
	seq uint64
	key string
}

func newSet(incarnation uint64, cert []byte, keep int) *set {
	return &set{incarnation: incarnation, cert: cert, keep: keep, entries: map[string]Entry{}}
}

// lacks reports whether e would change the set.
func (t *set) lacks(e Entry) bool {
	return e.Seq > t.have && e.Seq > t.entries[e.Key].Seq
}

// room reports whether e fits the limits of one origin.
func (t *set) room(e Entry) bool {
	old, had := t.entries[e.Key]
	n, bytes := len(t.entries), t.bytes+e.size()
	if had {
		n, bytes = n-1, bytes-old.size()
	}
	return n < MaxEntries+2*keepDeleted && bytes <= MaxBytes
}

// put applies a write that the set lacks, and gives the value before it.
func (t *set) put(e Entry) (old []byte) {
	if was, ok := t.entries[e.Key]; ok {
		old = was.Value
		t.drop(was)
	}
	t.entries[e.Key] = e
	t.bytes += e.size()
	if e.Deleted {
		t.deleted++
	} else {
		t.sum.flip(e)
	}
	t.place(place{e.Seq, e.Key})
	t.tidy()
	return old
}

// drop takes an entry out; its place stays, stale.
func (t *set) drop(e Entry) {
	delete(t.entries, e.Key)
	t.bytes -= e.size()
	if e.Deleted {
		t.deleted--
	} else {
		t.sum.flip(e)
	}
}

func (t *set) place(p place) {
	if n := len(t.order); n == 0 || t.order[n-1].seq < p.seq {
		t.order = append(t.order, p) // nearly always
		return
	}
	t.order = slices.Insert(t.order, t.after(p.seq), p)
}

// after is where the places above seq begin.
func (t *set) after(seq uint64) int {
	i, _ := slices.BinarySearchFunc(t.order, seq, func(p place, seq uint64) int {
		if p.seq <= seq {
			return -1
		}
		return 1
	})
	return i
}

func (t *set) at(p place) (Entry, bool) {
	e, ok := t.entries[p.key]
	return e, ok && e.Seq == p.seq
}

// tidy forgets the oldest deletions, and stale places, when there are too many.
// Each costs nothing until a good part of all can go at once.
func (t *set) tidy() {
	if t.deleted > 2*t.keep {
		for _, p := range t.order {
			if e, ok := t.at(p); ok && e.Deleted && t.deleted > t.keep {
				t.drop(e)
			}
		}
	}
	if len(t.order) > 2*len(t.entries)+64 {
		t.order = slices.DeleteFunc(t.order, func(p place) bool { _, ok := t.at(p); return !ok })
	}
}

// none reports whether the set stands for an origin of which nothing is visible yet.
func (t *set) none() bool { return t.incarnation == 0 }

// reached reports whether nothing is missing up to the head; right, whether it is
// also what the origin had at its head.
func (t *set) reached() bool { return t.have == t.head.Seq && t.head.Incarnation != 0 }
func (t *set) right() bool   { return t.reached() && t.sum.is(t.head.Sum) }

func (t *set) mark() Mark {
	m := Mark{Incarnation: t.incarnation, Seq: t.have, Head: t.head.Seq}
	if t.head.Sum != nil {
		m.Sum = half(t.head.Sum)
	}
	return m
}

// since lists the live and deleted entries above seq, in order, until their sizes
// exceed budget; all says that none is left out.
func (t *set) since(seq uint64, budget int) (es []Entry, all bool) {
	for _, p := range t.order[t.after(seq):] {
		e, ok := t.at(p)
		if !ok {
			continue
		}
		if budget -= e.size(); budget < 0 {
			return es, false
		}
		es = append(es, e)
	}
	return es, true
}

// values are the entries that live.
func (t *set) values() map[string][]byte {
	m := make(map[string][]byte, len(t.entries)-t.deleted)
	for k, e := range t.entries {
		if !e.Deleted {
			m[k] = e.Value
		}
	}
	return m
}

// differences lists what a reader of from sees change when it becomes to, by key.
func differences(from, to *set) (cs []Change) {
	for k, e := range to.entries {
		if old := from.entries[k].Value; !same(old, e.Value) {
			cs = append(cs, Change{Key: k, Old: old, New: e.Value})
		}
	}
	for k, e := range from.entries {
		if _, ok := to.entries[k]; !ok && e.Value != nil {
			cs = append(cs, Change{Key: k, Old: e.Value})
		}
	}
	slices.SortFunc(cs, func(a, b Change) int { return cmp.Compare(a.Key, b.Key) })
	return cs
}

// same compares values; an empty one is not the same as none.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && string(a) == string(b) }
