package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/weave-cni/weave-cni/pkg/replica"
)

// written is a file with branches, leaves, a value of many pages and pages of before,
// and what it holds.
func written(t *testing.T, path string) replica.Saved {
	t.Helper()
	f := reopen(t, path)
	if _, err := f.Load(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	snap := make([]byte, 20000)
	for i := range snap {
		snap[i] = byte(rng.Uint32())
	}
	b := replica.Batch{Owner: 7, Hard: &replica.Hard{Term: 2, Vote: 7, Commit: 3}, Snapshot: &replica.Snapshot{Index: 2, Term: 1, Conf: replica.Conf{Voters: []uint64{7}}, Data: snap}}
	for i := range uint64(300) {
		b.Entries = append(b.Entries, replica.Entry{Index: 3 + i, Term: 1, Data: snap[i*60 : i*60+30+i%30]})
		if i%50 == 49 {
			if err := errors.Join(f.Save(b), f.Put(fmt.Sprint("note ", i), snap[:20])); err != nil {
				t.Fatal(err)
			}
			b = replica.Batch{Hard: &replica.Hard{Term: 2, Vote: 7, Commit: 3 + i}}
		}
	}
	if err := errors.Join(f.Save(replica.Batch{CompactTo: 20}), f.Close()); err != nil {
		t.Fatal(err)
	}
	b2, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f = reopen(t, path)
	defer f.Close()
	saved, err := f.Load()
	if err != nil || len(saved.Entries) != 282 {
		t.Fatalf("%d entries, %v", len(saved.Entries), err)
	}
	if err := os.WriteFile(path, b2, 0o600); err != nil { // as it was before it was loaded again
		t.Fatal(err)
	}
	return saved
}

// read opens and loads a file of these bytes.
func read(t *testing.T, path string, b []byte) (replica.Saved, error) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		return replica.Saved{}, err
	}
	defer f.Close()
	return f.Load()
}

func TestNoDamageIsBelievedAndNoneEndsTheProcess(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	want := written(t, path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused, count := 0, 0
	try := func(what string, b []byte) {
		t.Helper()
		count++
		got, err := read(t, filepath.Join(dir, "damaged"), b)
		switch {
		case err != nil && !(strings.Contains(err.Error(), "move it away") && strings.Contains(err.Error(), dir)):
			t.Errorf("%s: %v", what, err)
		case err != nil:
			refused++
		case !reflect.DeepEqual(got, want):
			t.Errorf("%s: it is believed, with %d entries, %+v", what, len(got.Entries), got.Hard)
		}
	}
	if try("nothing", good); refused > 0 {
		t.Fatal("the whole file is refused")
	}
	const page = 4096
	for _, n := range []int{0, 1, 100, page, 2 * page, 3 * page, 5*page + 17, 9 * page, 12 * page, len(good) - page, len(good) - 1} {
		try(fmt.Sprintf("cut at %d", n), good[:n])
	}
	rng := rand.New(rand.NewPCG(5, 6))
	flip := func(i int, with byte) {
		b := bytes.Clone(good)
		b[i] ^= with
		try(fmt.Sprintf("byte %d with %x", i, with), b)
	}
	for at := 0; at < len(good); at += page { // heads, and where they lead
		for range 8 {
			flip(at+rng.IntN(80), 1<<rng.IntN(8))
		}
	}
	for range 250 {
		if i := rng.IntN(len(good)); good[i] != 0 {
			flip(i, byte(1+rng.IntN(255)))
		}
	}
	if refused < count/4 {
		t.Errorf("%d of %d refused: the bytes were not in use", refused, count)
	}
}

func TestPagesThatLeadBackAreNoEndlessWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	written(t, path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	branches := 0
	for at := 4096; at < len(b); at += 4096 {
		if ne.Uint16(b[at+8:]) == kindBranch { // its first child is itself
			ne.PutUint64(b[at+pageHeader+8:], ne.Uint64(b[at:]))
			branches++
		}
	}
	if branches == 0 {
		t.Fatal("no branch")
	}
	if _, err := read(t, path, b); err == nil || !strings.Contains(err.Error(), "used twice") {
		t.Errorf("got %v", err)
	}
}

func TestAValueInAnothersPlaceIsRefusedAndAValueThatIsGoneToo(t *testing.T) {
	for what, harm := range map[string]func(meta *bbolt.Bucket) error{
		"votes as owner": func(meta *bbolt.Bucket) error { return meta.Put(keyOwner, meta.Get(keyHard)) },
		"no votes":       func(meta *bbolt.Bucket) error { return meta.Delete(keyHard) },
		"no owner":       func(meta *bbolt.Bucket) error { return meta.Delete(keyOwner) },
		"no total":       func(meta *bbolt.Bucket) error { return meta.Delete(keyTotal) },
		"no format":      func(meta *bbolt.Bucket) error { return meta.Delete(keyFormat) },
	} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		written(t, path)
		f := reopen(t, path)
		if err := errors.Join(f.db.Update(func(tx *bbolt.Tx) error { return harm(tx.Bucket(bucketMeta)) }), f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAnotherFormatIsRefusedInWords(t *testing.T) {
	for n, words := range map[uint64]string{1: "does not read any more", format + 1: "start a newer version"} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		f := reopen(t, path)
		err := f.db.Update(func(tx *bbolt.Tx) error {
			if n == 1 {
				return tx.Bucket(bucketMeta).Put(keyFormat, binary.BigEndian.AppendUint64(nil, n))
			}
			return (&changing{tx: tx}).putNumber(keyFormat, n)
		})
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("format %d: %v", n, err)
		}
	}
}

func TestAChangeThatIsNotOnDiskIsNotCounted(t *testing.T) {
	f := reopen(t, filepath.Join(t.TempDir(), "ledger.db"))
	defer f.Close()
	if _, err := f.Load(); err != nil {
		t.Fatal(err)
	}
	before := f.Mark()
	f.db.MaxSize = 1 << 16
	if err := f.Put("n", make([]byte, 1<<17)); !errors.Is(err, berrors.ErrMaxSizeReached) {
		t.Fatalf("got %v", err)
	}
	if f.Mark() != before {
		t.Errorf("%+v became %+v", before, f.Mark())
	}
	f.db.MaxSize = 0
	if err := f.Put("n", []byte("x")); err != nil || f.Mark() != (Mark{before.Owner, before.Generation, before.Saves + 1}) {
		t.Errorf("%v, %+v", err, f.Mark())
	}
}
