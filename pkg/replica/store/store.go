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
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

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

// Tables and keys. An entry's key is its index, 8 bytes, so that the order of
// keys is the order of the log; its value is its term, its kind and its data.
var (
	bucketLog  = []byte("log")
	bucketMeta = []byte("meta")
	bucketNote = []byte("note")
	tables     = [][]byte{bucketLog, bucketMeta, bucketNote}

	keyFormat     = []byte("format") // in every format first a number of 8 bytes
	keyOwner      = []byte("owner")
	keyLeave      = []byte("leave")
	keyTook       = []byte("took")
	keyTookIn     = []byte("took-in") // the last generation in which took was kept: older versions do not
	keyLives      = []byte("lives")
	keyGeneration = []byte("generation")
	keySaves      = []byte("saves")
	keyHard       = []byte("hard")
	keySnapshot   = []byte("snapshot")
	keyTotal      = []byte("total")
)

const (
	format    = 2
	lockWait  = 2 * time.Second // for another router to let go of the file
	lockPoll  = 50 * time.Millisecond
	entryHead = 9
	hardSize  = 24
	lifeSize  = 32
)

// ErrBusy says that another process has the file open.
var ErrBusy = errors.New("another router uses the state directory")

// damaged says what to do.
func damaged(why error) error {
	return fmt.Errorf("the file is damaged (%w), and with it what this host has promised: move it away and start the router again. "+
		"That costs this host's identity: it joins its cluster as a new member, and its containers stay as they are; a host without a cluster to join founds another", why)
}

// guarded does what reads mapped memory. A page that cannot be read, or that holds
// what bbolt never wrote, ends the work and not the process.
func guarded(work func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(fmt.Errorf("%v", p))
		}
	}()
	return work()
}

// Open opens or creates the file, readable by its owner only. Of a file that is there
// all is read and checked: see damaged.
func Open(path string) (*File, error) {
	f, err := open(path)
	if errors.Is(err, berrors.ErrTimeout) {
		err = ErrBusy
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

func open(path string) (*File, error) {
	err := check(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = create(path)
	}
	if err != nil {
		return nil, err
	}
	f := &File{codec: wire.New()}
	err = guarded(func() (err error) {
		if f.db, err = bbolt.Open(path, 0o600, options()); err != nil {
			return err
		}
		return f.db.View(f.recognize)
	})
	if err != nil && f.db != nil {
		err = errors.Join(err, f.db.Close())
	}
	return f, err
}

func options() *bbolt.Options {
	return &bbolt.Options{Timeout: lockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
}

// check looks at the file before bbolt does, and holds the lock meanwhile.
func check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for begun := time.Now(); ; time.Sleep(lockPoll) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock: %w", err)
		}
		if time.Since(begun) > lockWait {
			return ErrBusy
		}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := checkPages(f, info.Size()); err != nil {
		return damaged(err)
	}
	return nil
}

// create makes an empty file under another name first: so whatever is not whole under
// its own was damaged, and is not taken for a beginning.
func create(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	name := f.Name()
	defer os.Remove(name)
	if err := f.Close(); err != nil {
		return err
	}
	db, err := bbolt.Open(name, 0o600, options())
	if err != nil {
		return err
	}
	if err := errors.Join(db.Update(prepare), db.Close()); err != nil {
		return err
	}
	if err := os.Link(name, path); err != nil && !errors.Is(err, fs.ErrExist) { // then somebody else was quicker
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func prepare(tx *bbolt.Tx) error {
	for _, table := range tables {
		if _, err := tx.CreateBucketIfNotExists(table); err != nil {
			return err
		}
	}
	c := &changing{tx: tx}
	if err := c.putNumber(keyFormat, format); err != nil {
		return err
	}
	return c.finish()
}

// recognize reads how far the file has come, when it is ours and whole.
func (f *File) recognize(tx *bbolt.Tx) error {
	if err := knownFormat(tx); err != nil {
		return err
	}
	if err := verify(tx); err != nil {
		return damaged(err)
	}
	mark, err := readMark(tx)
	if err != nil {
		return damaged(err)
	}
	f.mark = mark
	return nil
}

func knownFormat(tx *bbolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return damaged(fmt.Errorf("table %s is missing", bucketMeta))
	}
	v := meta.Get(keyFormat)
	if len(v) < 8 {
		return damaged(errors.New("it has no format"))
	}
	switch n := binary.BigEndian.Uint64(v); {
	case n == 1 && len(v) == 8: // the only format without sums
		return fmt.Errorf("it is of format 1, which this version does not read any more (it has %d): move it away and start the router again; this host joins as a new member", format)
	case n == format:
		return nil // its sum is verified with all others
	default:
		if _, err := get(tx, bucketMeta, keyFormat); err != nil {
			return damaged(err)
		}
		return fmt.Errorf("it is of format %d, and this version knows format %d: start a newer version of weave", n, format)
	}
}

func readMark(tx *bbolt.Tx) (m Mark, err error) {
	var owner uint64
	for key, n := range map[string]*uint64{string(keyOwner): &owner, string(keyGeneration): &m.Generation, string(keySaves): &m.Saves} {
		if *n, err = getNumber(tx, []byte(key)); err != nil {
			return Mark{}, err
		}
	}
	m.Owner = ledger.MemberID(owner)
	return m, nil
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
func (f *File) update(change func(*changing) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	mark := f.mark
	err := guarded(func() error {
		return f.db.Update(func(tx *bbolt.Tx) (err error) {
			mark, err = f.count(tx, change)
			return err
		})
	})
	if err != nil {
		return err
	}
	if f.mark = mark; f.watch != nil {
		return f.watch(mark)
	}
	return nil
}

// count makes a change and says how far the file has come by it.
func (f *File) count(tx *bbolt.Tx, change func(*changing) error) (m Mark, err error) {
	c := &changing{tx: tx}
	if c.total, err = getTotal(tx); err != nil {
		return m, damaged(err)
	}
	if err := change(c); err != nil {
		return m, err
	}
	if m, err = readMark(tx); err != nil {
		return m, damaged(err)
	}
	m.Saves = 0
	if m.Generation == f.mark.Generation {
		m.Saves = f.mark.Saves + 1
	}
	if err := c.putNumber(keySaves, m.Saves); err != nil {
		return m, err
	}
	return m, c.finish()
}

// Get reads a note; nil when there is none.
func (f *File) Get(name string) (note []byte, err error) {
	err = guarded(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			v, err := get(tx, bucketNote, []byte(name))
			if err != nil {
				return damaged(err)
			}
			note = bytes.Clone(v)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.db.Path(), err)
	}
	return note, nil
}

// Put writes a note in the place of one of the same name.
func (f *File) Put(name string, note []byte) error {
	err := f.update(func(c *changing) error { return c.put(bucketNote, []byte(name), note) })
	if err != nil {
		return fmt.Errorf("write %s: %w", f.db.Path(), err)
	}
	return nil
}

// Load implements replica.Store.
func (f *File) Load() (saved replica.Saved, err error) {
	err = f.update(func(c *changing) error {
		if err := f.load(c.tx, &saved); err != nil {
			return damaged(err)
		}
		saved.Generation++
		if err := c.putNumber(keyTookIn, saved.Generation); err != nil {
			return err
		}
		return c.putNumber(keyGeneration, saved.Generation)
	})
	if err != nil {
		return replica.Saved{}, fmt.Errorf("%s: %w", f.db.Path(), err)
	}
	return saved, nil
}

func (f *File) load(tx *bbolt.Tx, saved *replica.Saved) error {
	mark, err := readMark(tx)
	if err != nil {
		return err
	}
	saved.Owner, saved.Generation = mark.Owner, mark.Generation
	if saved.Leave, err = getNumber(tx, keyLeave); err != nil {
		return err
	}
	if saved.Took, err = loadTook(tx, mark.Generation); err != nil {
		return err
	}
	if saved.Lives, err = loadLives(tx); err != nil {
		return err
	}
	hard, err := get(tx, bucketMeta, keyHard)
	if err != nil {
		return err
	}
	if hard != nil {
		if len(hard) != hardSize {
			return fmt.Errorf("votes of %d bytes", len(hard))
		}
		be := binary.BigEndian
		saved.Hard = replica.Hard{Term: be.Uint64(hard), Vote: be.Uint64(hard[8:]), Commit: be.Uint64(hard[16:])}
	}
	snap, err := get(tx, bucketMeta, keySnapshot)
	if err != nil {
		return err
	}
	if snap != nil {
		if err := f.codec.Decode(snap, &saved.Snapshot); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	return loadLog(tx.Bucket(bucketLog), saved)
}

// loadTook reads which life took part last, 0 when that is not known: an older version
// ran since, and did not keep it.
func loadTook(tx *bbolt.Tx, generation uint64) (replica.Life, error) {
	in, err := getNumber(tx, keyTookIn)
	if err != nil || in != generation {
		return 0, err
	}
	took, err := getNumber(tx, keyTook)
	return replica.Life(took), err
}

// loadLives reads what saveLives wrote: four numbers of 8 bytes for each member.
func loadLives(tx *bbolt.Tx) (lives []replica.Heard, err error) {
	v, err := get(tx, bucketMeta, keyLives)
	if err != nil {
		return nil, err
	}
	if len(v)%lifeSize != 0 {
		return nil, fmt.Errorf("lives of %d bytes", len(v))
	}
	be := binary.BigEndian
	for h := range slices.Chunk(v, lifeSize) {
		lives = append(lives, replica.Heard{ID: ledger.MemberID(be.Uint64(h)), Life: replica.Life(be.Uint64(h[8:])), Tried: replica.Life(be.Uint64(h[16:])), TriedTook: replica.Life(be.Uint64(h[24:]))})
	}
	return lives, nil
}

func (c *changing) saveLives(lives []replica.Heard) error {
	v := make([]byte, 0, len(lives)*lifeSize)
	for _, h := range lives {
		for _, n := range []uint64{uint64(h.ID), uint64(h.Life), uint64(h.Tried), uint64(h.TriedTook)} {
			v = binary.BigEndian.AppendUint64(v, n)
		}
	}
	return c.put(bucketMeta, keyLives, v)
}

func loadLog(log *bbolt.Bucket, saved *replica.Saved) error {
	return log.ForEach(func(k, sealed []byte) error {
		v, err := unseal(bucketLog, k, sealed)
		if err != nil {
			return err
		}
		if len(k) != 8 || len(v) < entryHead {
			return fmt.Errorf("an entry of %d bytes", len(v))
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
	err := f.update(func(c *changing) error { return f.save(c, b) })
	if err != nil {
		return fmt.Errorf("write %s: %w", f.db.Path(), err)
	}
	return nil
}

func (f *File) save(c *changing, b replica.Batch) error {
	if b.Owner != 0 {
		if err := c.putNumber(keyOwner, uint64(b.Owner)); err != nil {
			return err
		}
	}
	if b.Leave != 0 {
		if err := c.putNumber(keyLeave, b.Leave); err != nil {
			return err
		}
	}
	if b.Took != 0 {
		if err := c.putNumber(keyTook, uint64(b.Took)); err != nil {
			return err
		}
	}
	if b.Lives != nil {
		if err := c.saveLives(b.Lives); err != nil {
			return err
		}
	}
	if b.Reset {
		if err := c.deleteFrom(0); err != nil {
			return err
		}
	}
	if b.Snapshot != nil {
		snap, err := f.codec.Encode(b.Snapshot)
		if err != nil {
			return fmt.Errorf("encode snapshot: %w", err)
		}
		if err := c.put(bucketMeta, keySnapshot, snap); err != nil {
			return err
		}
	}
	if err := c.saveLog(b.Entries); err != nil {
		return err
	}
	if h := b.Hard; h != nil {
		v := binary.BigEndian.AppendUint64(make([]byte, 0, hardSize), h.Term)
		v = binary.BigEndian.AppendUint64(v, h.Vote)
		if err := c.put(bucketMeta, keyHard, binary.BigEndian.AppendUint64(v, h.Commit)); err != nil {
			return err
		}
	}
	return c.deleteTo(b.CompactTo)
}

func (c *changing) saveLog(entries []replica.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	first := entries[0].Index
	if err := c.deleteFrom(first); err != nil {
		return err
	}
	if k, _ := c.tx.Bucket(bucketLog).Cursor().Last(); k != nil && binary.BigEndian.Uint64(k)+1 != first {
		return fmt.Errorf("entry %d does not follow entry %d", first, binary.BigEndian.Uint64(k))
	}
	for _, e := range entries {
		v := binary.BigEndian.AppendUint64(make([]byte, 0, entryHead+len(e.Data)), e.Term)
		if err := c.put(bucketLog, key(e.Index), append(append(v, e.Kind), e.Data...)); err != nil {
			return err
		}
	}
	return nil
}

func (c *changing) deleteFrom(first uint64) error {
	at := c.tx.Bucket(bucketLog).Cursor()
	for k, v := at.Seek(key(first)); k != nil; k, v = at.Seek(key(first)) {
		if err := c.delete(at, v); err != nil {
			return err
		}
	}
	return nil
}

func (c *changing) deleteTo(last uint64) error {
	at := c.tx.Bucket(bucketLog).Cursor()
	for k, v := at.First(); k != nil && binary.BigEndian.Uint64(k) <= last; k, v = at.First() {
		if err := c.delete(at, v); err != nil {
			return err
		}
	}
	return nil
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

var _ replica.Store = (*File)(nil)
