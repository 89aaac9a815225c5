package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

func reopen(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestADamagedFileIsRefusedWithWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := reopen(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("got %v", err)
	}
}

func TestTheFileHoldsWhatTheMemoryStoreHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	f, want := reopen(t, path), new(replica.MemStore)
	rng := rand.New(rand.NewPCG(1, 2))
	last, compacted := uint64(0), uint64(0)
	for i := range 150 {
		b := batch(rng, &last, &compacted)
		errF, errM := f.Save(b), want.Save(b)
		if errF != nil || errM != nil {
			t.Fatalf("batch %d: %v, %v", i, errF, errM)
		}
		if i%10 != 0 {
			continue
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f = reopen(t, path)
		a, errF := f.Load()
		b2, errM := want.Load()
		if errF != nil || errM != nil {
			t.Fatal(errF, errM)
		}
		if d := cmp.Diff(b2, a, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("after batch %d:\n%s", i, d)
		}
	}
	_ = f.Close()
}

// batch is a random change that fits the log.
func batch(rng *rand.Rand, last, compacted *uint64) (b replica.Batch) {
	if rng.IntN(20) == 0 {
		*last += 50
		*compacted = *last
		return replica.Batch{Owner: 7, Reset: true, Snapshot: &replica.Snapshot{Index: *last, Term: 3, Conf: replica.Conf{Voters: []uint64{1, 2}}, Data: []byte("ledger")}, Hard: &replica.Hard{Term: 3, Commit: *last}}
	}
	first := *last + 1
	if *last > *compacted && rng.IntN(3) == 0 {
		first = *compacted + 1 + rng.Uint64N(*last-*compacted)
	}
	for i := range rng.Uint64N(5) + 1 {
		b.Entries = append(b.Entries, replica.Entry{Index: first + i, Term: rng.Uint64N(9) + 1, Kind: uint8(rng.IntN(3)), Data: make([]byte, rng.IntN(100))})
		*last = first + i
	}
	if rng.IntN(4) == 0 {
		b.Took, b.Lives = replica.Life(rng.Uint64()), make([]replica.Heard, rng.IntN(3))
		for i := range b.Lives {
			b.Lives[i] = replica.Heard{ID: ledger.MemberID(i + 1), Life: replica.Life(rng.Uint64()), Tried: replica.Life(rng.Uint64()), TriedTook: replica.Life(rng.Uint64())}
		}
	}
	if rng.IntN(2) == 0 {
		b.Hard = &replica.Hard{Term: rng.Uint64N(9), Vote: rng.Uint64N(9), Commit: *compacted}
	}
	if rng.IntN(5) == 0 && *last > *compacted {
		*compacted += rng.Uint64N(*last - *compacted)
		b.CompactTo = *compacted
	}
	return b
}

func TestALogWithAHoleIsRefused(t *testing.T) {
	f := reopen(t, filepath.Join(t.TempDir(), "ledger.db"))
	defer f.Close()
	if err := f.Save(replica.Batch{Entries: []replica.Entry{{Index: 5, Term: 1}}}); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(replica.Batch{Entries: []replica.Entry{{Index: 7, Term: 1}}}); err == nil {
		t.Error("entry 7 was accepted after entry 5")
	}
}

func TestTwoRoutersCannotShareAFile(t *testing.T) {
	if testing.Short() {
		t.Skip("waits two seconds for the lock")
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	f := reopen(t, path)
	defer f.Close()
	if _, err := Open(path); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkSaveOneEntry(b *testing.B) {
	f, err := Open(filepath.Join(b.TempDir(), "ledger.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for i := 0; b.Loop(); i++ {
		e := replica.Entry{Index: uint64(i + 1), Term: 1, Data: make([]byte, 100)}
		if err := f.Save(replica.Batch{Entries: []replica.Entry{e}, Hard: &replica.Hard{Term: 1, Commit: uint64(i)}}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestEveryChangeCountsAndIsToldOnceItIsOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	f := reopen(t, path)
	var told []Mark
	watch := func(m Mark) error {
		told = append(told, m)
		if note, err := f.Get("n"); m.Saves == 2 && (err != nil || string(note) != "two") {
			t.Errorf("told of %+v while the note is %q, %v", m, note, err)
		}
		return nil
	}
	if err := f.Watch(watch); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Save(replica.Batch{Owner: 7, Hard: &replica.Hard{Term: 1}}), f.Put("n", []byte("two")), f.Close()); err != nil {
		t.Fatal(err)
	}
	want := []Mark{{}, {0, 1, 0}, {7, 1, 1}, {7, 1, 2}}
	if d := cmp.Diff(want, told); d != "" {
		t.Error(d)
	}
	f = reopen(t, path)
	defer f.Close()
	if got := f.Mark(); got != want[3] {
		t.Errorf("found with %+v", got)
	}
	if _, err := f.Load(); err != nil || f.Mark() != (Mark{7, 2, 0}) {
		t.Errorf("loaded again: %+v, %v", f.Mark(), err)
	}
	if note, err := f.Get("n"); err != nil || string(note) != "two" {
		t.Errorf("the note is %q, %v", note, err)
	}
	refused := errors.New("refused")
	if err := f.Watch(func(Mark) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	if err := f.Put("n", nil); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

// An older version keeps the log and the votes, but not which life took part.
func TestWhatAnOlderVersionDidNotKeepIsNotKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	f := reopen(t, path)
	defer func() { _ = f.Close() }()
	load := func() replica.Saved {
		t.Helper()
		s, err := f.Load()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	load()
	if err := f.Save(replica.Batch{Took: 1<<32 | 7}); err != nil {
		t.Fatal(err)
	}
	if got := load().Took; got != 1<<32|7 {
		t.Fatalf("took part in %x", got)
	}
	err := f.update(func(c *changing) error { return c.putNumber(keyGeneration, 3) }) // all that its Load does
	if err != nil {
		t.Fatal(err)
	}
	if got := load().Took; got != 0 {
		t.Errorf("an older version ran since, and %x is said to have been the last", got)
	}
	if err := f.Save(replica.Batch{Took: 4<<32 | 9}); err != nil {
		t.Fatal(err)
	}
	if got := load().Took; got != 4<<32|9 {
		t.Errorf("took part in %x", got)
	}
}
