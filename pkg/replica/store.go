package replica

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Entry is one entry of the log. Its Data is the replica's own business.
type Entry struct {
	Index uint64 `cbor:"1,keyasint"`
	Term  uint64 `cbor:"2,keyasint"`
	Kind  uint8  `cbor:"3,keyasint,omitempty"`
	Data  []byte `cbor:"4,keyasint,omitempty"`
}

// Hard is what a voter must never forget: the term, whom it voted for in it, and
// how far the log is known to be committed.
type Hard struct{ Term, Vote, Commit uint64 }

// Conf is who has a vote and who follows, as ids of members, sorted. While the
// voters change by more than one, the old ones still vote as well (Outgoing), and
// nothing is decided without a majority of both.
type Conf struct {
	Voters   []uint64 `cbor:"1,keyasint"`
	Learners []uint64 `cbor:"2,keyasint,omitempty"`
	Outgoing []uint64 `cbor:"3,keyasint,omitempty"`
}

// Snapshot is the ledger after entry Index, encoded, with the configuration of
// that moment. Index 0 is no snapshot.
type Snapshot struct {
	Index uint64
	Term  uint64
	Conf  Conf
	Data  []byte
}

// Saved is everything that a Store holds.
type Saved struct {
	Owner      ledger.MemberID // whose memory it is, 0 when it is empty
	Generation uint64          // how often it was loaded, this time included
	Leave      uint64          // the Seq of the owner's last Leave that it may have sent, 0: none
	Took       Life            // the last life of the owner's that took part: that spoke, and not on trial; 0: none
	Lives      []Heard         // of others, whose words the owner counted on, in order of their ids
	Hard       Hard
	Snapshot   Snapshot
	Entries    []Entry // in order, without holes
}

// Batch is one change of a Store, made wholly or not at all. Its parts take
// effect in the order of the fields.
type Batch struct {
	Owner     ledger.MemberID // 0: unchanged
	Leave     uint64          // 0: unchanged
	Took      Life            // 0: unchanged
	Lives     []Heard         // nil: unchanged; else all of them
	Reset     bool            // drop every entry of the log
	Snapshot  *Snapshot       // nil: unchanged
	Entries   []Entry         // in order; what the log has from the first one's index on is dropped
	Hard      *Hard           // nil: unchanged
	CompactTo uint64          // drop the entries up to this index, included
}

// Empty reports whether the batch changes nothing.
func (b *Batch) Empty() bool {
	return b.Owner == 0 && b.Leave == 0 && b.Took == 0 && b.Lives == nil && !b.Reset && b.Snapshot == nil && len(b.Entries) == 0 && b.Hard == nil && b.CompactTo == 0
}

// Store keeps one replica's memory through crashes. replica/store is the one on
// disk. Its methods are called from one goroutine at a time.
type Store interface {
	// Load counts one up the generation, durably, and gives everything.
	Load() (Saved, error)
	// Save makes the change durable before it returns. After an error the replica
	// stops: it does not know what it has promised.
	Save(Batch) error
}

// MemStore is a Store in memory, for tests and simulation: what was saved is what
// a restarted replica finds. The zero value is empty. It may be read by tests
// while a replica uses it.
type MemStore struct {
	mu    sync.Mutex
	saved Saved
	fail  error
	saves int
}

// Load implements Store.
func (s *MemStore) Load() (Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved.Generation++
	return s.copy(), nil
}

// Save implements Store.
func (s *MemStore) Save(b Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.saves++
	return s.saved.Change(b)
}

// FailWith makes every Save from now on fail with err; nil ends that.
func (s *MemStore) FailWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// Copy is another store with the same content: a backup.
func (s *MemStore) Copy() *MemStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &MemStore{saved: s.copy()}
}

// copy shares the entries' and the snapshot's data, which nobody ever writes to.
func (s *MemStore) copy() Saved {
	c := s.saved
	c.Entries = slices.Clone(c.Entries)
	return c
}

// Change carries out a batch: it is what every Store must do. It changes Entries in place.
func (s *Saved) Change(b Batch) error {
	if b.Owner != 0 {
		s.Owner = b.Owner
	}
	if b.Leave != 0 {
		s.Leave = b.Leave
	}
	if b.Took != 0 {
		s.Took = b.Took
	}
	if b.Lives != nil {
		s.Lives = b.Lives
	}
	if b.Reset {
		s.Entries = nil
	}
	if b.Snapshot != nil {
		s.Snapshot = *b.Snapshot
	}
	if len(b.Entries) > 0 {
		first := b.Entries[0].Index
		keep, _ := slices.BinarySearchFunc(s.Entries, first, func(e Entry, i uint64) int { return cmp.Compare(e.Index, i) })
		if keep > 0 && s.Entries[keep-1].Index+1 != first {
			return fmt.Errorf("entry %d does not follow entry %d", first, s.Entries[keep-1].Index)
		}
		s.Entries = append(s.Entries[:keep], b.Entries...)
	}
	if b.Hard != nil {
		s.Hard = *b.Hard
	}
	if b.CompactTo > 0 {
		s.Entries = slices.DeleteFunc(s.Entries, func(e Entry) bool { return e.Index <= b.CompactTo })
	}
	return nil
}
