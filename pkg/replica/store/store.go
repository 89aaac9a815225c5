// Package store keeps what a host must never forget in one file, by bbolt, which it
// alone imports: its replica's log, votes and snapshot, and notes of others. Every
// change is one transaction, on disk when Save or Put returns, and counted: so an
// old copy of the file can be told from it.
package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// File is a replica.Store on disk. Save and Put may be called from two goroutines.
type File struct {
	db    *bbolt.DB
	codec wire.Codec

	mu    sync.Mutex
	mark  Mark
	watch func(Mark) error
}

// Mark is whose the file is and how far it has come.
type Mark struct {
	Owner      ledger.MemberID // 0: nobody's yet
	Generation uint64          // how often it was loaded
	Saves      uint64          // how often it was changed since
}

// Buckets and keys. An entry's key is its index, 8 bytes, so that the order of
// keys is the order of the log; its value is its term, its kind and its data.
var (
	bucketLog  = []byte("log")
	bucketMeta = []byte("meta")
	bucketNote = []byte("note")

	keyFormat     = []byte("format")
	keyOwner      = []byte("owner")
	keyGeneration = []byte("generation")
	keySaves      = []byte("saves")
	keyHard       = []byte("hard")
	keySnapshot   = []byte("snapshot")
)

const (
	format    = 1
	lockWait  = 2 * time.Second // for another router to let go of the file
	entryHead = 9
)

// ErrBusy says that another process has the file open.
var ErrBusy = errors.New("another router uses the state directory")

// Open opens or creates the file, readable by its owner only.
func Open(path string) (*File, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		err = ErrBusy
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		err = fmt.Errorf("the file is damaged, and with it what this host has promised: move it away, and the host joins as a new member (%w)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := &File{db: db, codec: wire.New()}
	if err := db.Update(f.prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return f, nil
}

func (f *File) prepare(tx *bbolt.Tx) error {
	for _, b := range [][]byte{bucketLog, bucketNote} {
		if _, err := tx.CreateBucketIfNotExists(b); err != nil {
			return err
		}
	}
	meta, err := tx.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	f.mark = Mark{ledger.MemberID(getNumber(meta, keyOwner)), getNumber(meta, keyGeneration), getNumber(meta, keySaves)}
	switch v := getNumber(meta, keyFormat); v {
	case 0:
		return putNumber(meta, keyFormat, format)
	case format:
		return nil
	default:
		return fmt.Errorf("format %d is not known to this version", v)
	}
}

// Path is where the file is.
func (f *File) Path() string { return f.db.Path() }

// Close closes the file.
func (f *File) Close() error { return f.db.Close() }

// Mark is how far the file has come.
func (f *File) Mark() Mark {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mark
}

// Watch tells watch how far the file has come, at once and after every change, when
// that is on disk and before the one who made it hears of it. An error of watch is
// that one's. nil ends it.
func (f *File) Watch(watch func(Mark) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = watch
	if watch == nil {
		return nil
	}
	return watch(f.mark)
}

// update makes a change, counted.
func (f *File) update(change func(*bbolt.Tx) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.db.Update(func(tx *bbolt.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta)
		generation := getNumber(meta, keyGeneration)
		saves := uint64(0)
		if generation == f.mark.Generation {
			saves = f.mark.Saves + 1
		}
		f.mark = Mark{ledger.MemberID(getNumber(meta, keyOwner)), generation, saves}
		return putNumber(meta, keySaves, saves)
	})
	if err == nil && f.watch != nil {
		err = f.watch(f.mark)
	}
	return err
}

// Get reads a note; nil when there is none.
func (f *File) Get(name string) (note []byte, err error) {
	err = f.db.View(func(tx *bbolt.Tx) error {
		note = bytes.Clone(tx.Bucket(bucketNote).Get([]byte(name)))
		return nil
	})
	return note, err
}

// Put writes a note in the place of one of the same name.
func (f *File) Put(name string, note []byte) error {
	err := f.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketNote).Put([]byte(name), note) })
	if err != nil {
		return fmt.Errorf("write %s: %w", f.db.Path(), err)
	}
	return nil
}

// Load implements replica.Store.
func (f *File) Load() (saved replica.Saved, err error) {
	err = f.update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		saved.Owner = ledger.MemberID(getNumber(meta, keyOwner))
		saved.Generation = getNumber(meta, keyGeneration) + 1
		if hard := meta.Get(keyHard); hard != nil {
			if len(hard) != 24 {
				return fmt.Errorf("votes are damaged: %d bytes", len(hard))
			}
			be := binary.BigEndian
			saved.Hard = replica.Hard{Term: be.Uint64(hard), Vote: be.Uint64(hard[8:]), Commit: be.Uint64(hard[16:])}
		}
		if snap := meta.Get(keySnapshot); snap != nil {
			if err := f.codec.Decode(snap, &saved.Snapshot); err != nil {
				return fmt.Errorf("snapshot is damaged: %w", err)
			}
		}
		if err := loadLog(tx.Bucket(bucketLog), &saved); err != nil {
			return err
		}
		return putNumber(meta, keyGeneration, saved.Generation)
	})
	if err != nil {
		return replica.Saved{}, fmt.Errorf("%s: %w", f.db.Path(), err)
	}
	return saved, nil
}

func loadLog(log *bbolt.Bucket, saved *replica.Saved) error {
	return log.ForEach(func(k, v []byte) error {
		if len(k) != 8 || len(v) < entryHead {
			return fmt.Errorf("log is damaged: an entry of %d bytes", len(v))
		}
		e := replica.Entry{Index: binary.BigEndian.Uint64(k), Term: binary.BigEndian.Uint64(v), Kind: v[8]}
		if len(v) > entryHead {
			e.Data = append([]byte(nil), v[entryHead:]...) // v is bbolt's
		}
		saved.Entries = append(saved.Entries, e)
		return nil
	})
}

// Save implements replica.Store.
func (f *File) Save(b replica.Batch) error {
	err := f.update(func(tx *bbolt.Tx) error { return f.save(tx, b) })
	if err != nil {
		return fmt.Errorf("write %s: %w", f.db.Path(), err)
	}
	return nil
}

func (f *File) save(tx *bbolt.Tx, b replica.Batch) error {
	meta := tx.Bucket(bucketMeta)
	if b.Owner != 0 {
		if err := putNumber(meta, keyOwner, uint64(b.Owner)); err != nil {
			return err
		}
	}
	if b.Reset {
		if err := deleteFrom(tx.Bucket(bucketLog), 0); err != nil {
			return err
		}
	}
	if b.Snapshot != nil {
		snap, err := f.codec.Encode(b.Snapshot)
		if err != nil {
			return fmt.Errorf("encode snapshot: %w", err)
		}
		if err := meta.Put(keySnapshot, snap); err != nil {
			return err
		}
	}
	if err := saveLog(tx.Bucket(bucketLog), b.Entries); err != nil {
		return err
	}
	if h := b.Hard; h != nil {
		v := binary.BigEndian.AppendUint64(nil, h.Term)
		v = binary.BigEndian.AppendUint64(v, h.Vote)
		if err := meta.Put(keyHard, binary.BigEndian.AppendUint64(v, h.Commit)); err != nil {
			return err
		}
	}
	return deleteTo(tx.Bucket(bucketLog), b.CompactTo)
}

func saveLog(log *bbolt.Bucket, entries []replica.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	first := entries[0].Index
	if err := deleteFrom(log, first); err != nil {
		return err
	}
	if k, _ := log.Cursor().Last(); k != nil && binary.BigEndian.Uint64(k)+1 != first {
		return fmt.Errorf("entry %d does not follow entry %d", first, binary.BigEndian.Uint64(k))
	}
	for _, e := range entries {
		v := binary.BigEndian.AppendUint64(make([]byte, 0, entryHead+len(e.Data)), e.Term)
		if err := log.Put(key(e.Index), append(append(v, e.Kind), e.Data...)); err != nil {
			return err
		}
	}
	return nil
}

func deleteFrom(log *bbolt.Bucket, first uint64) error {
	c := log.Cursor()
	for k, _ := c.Seek(key(first)); k != nil; k, _ = c.Seek(key(first)) {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

func deleteTo(log *bbolt.Bucket, last uint64) error {
	c := log.Cursor()
	for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= last; k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func getNumber(b *bbolt.Bucket, k []byte) uint64 {
	v := b.Get(k)
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func putNumber(b *bbolt.Bucket, k []byte, n uint64) error { return b.Put(k, key(n)) }

var _ replica.Store = (*File)(nil)
