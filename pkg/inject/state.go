package inject

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/resolvconf"
)

const (
	filePrefix   = "file-"
	attachedTo   = "at-"
	lockPatience = 3 * time.Second // how long another call may hold the lock
	lockAgain    = 5 * time.Millisecond
)

// Dir is where it is kept what was written for whom. Like the containers it does not
// survive a reboot, and need not: the files say themselves what in them is ours.
type Dir struct {
	Path string
	Host Host
}

// Entry is what one attachment has put into a file.
type Entry struct {
	Owner
	Servers []netip.Addr `json:"servers"`
	Domain  string       `json:"domain"`
}

// record is kept for each file that has entries.
type record struct {
	Path     string
	ID       fileID
	Original []byte            // as it was before the first entry
	Wrote    [sha256.Size]byte // of what was written last
	Made     bool              // the file was not there
	MadeDir  bool              // nor its directory
	Entries  []Entry           // as they came
}

// text is the file with all entries. Its servers are those of the first: all that are
// listed would be asked at once by some resolvers, and each knows its own network only.
func (r *record) text() []byte {
	o := resolvconf.Ours{Servers: r.Entries[0].Servers, Made: r.Made}
	for _, e := range r.Entries {
		if e.Domain != "" {
			o.Search = append(o.Search, e.Domain)
		}
	}
	return resolvconf.Put(r.Original, o)
}

func (r *record) index(hash string) int {
	return slices.IndexFunc(r.Entries, func(e Entry) bool { return e.Hash == hash })
}

func recordName(path string) string {
	sum := sha256.Sum256([]byte(path))
	return filePrefix + hex.EncodeToString(sum[:16])
}

// Put writes an attachment's entry into a file, in the place of one from before.
func (d Dir) Put(f *File, e Entry) error {
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := f.again(); err != nil {
		return err
	}
	name := recordName(f.path)
	if err := d.note(e.Owner, func(a *attached) { a.File = name }); err != nil {
		return err
	}
	made, err := d.ensure(name, f, e)
	if err == nil {
		err = d.enter(name, f, e)
	}
	if err != nil && made {
		return errors.Join(err, d.unmake(name, f))
	}
	return err
}

// enter writes an entry into a file that is there.
func (d Dir) enter(name string, f *File, e Entry) error {
	r := d.current(name, f)
	gone := r.former(e.Owner)
	if i := r.index(e.Hash); i >= 0 {
		r.Entries[i] = e
	} else {
		r.Entries = append(r.Entries, e)
	}
	text := r.text()
	r.Wrote = sha256.Sum256(text)
	if err := d.save(name, r); err != nil { // before the file: what stands there then is known
		return err
	}
	err := f.write(text)
	for _, hash := range gone {
		err = errors.Join(err, d.left(hash, name))
	}
	return err
}

// former takes out of a record the entries of attachments whose DEL never came, and gives
// their hashes: a file is of one container, which has been in another namespace with them.
func (r *record) former(now Owner) (hashes []string) {
	r.Entries = slices.DeleteFunc(r.Entries, func(e Entry) bool {
		other := e.Hash != now.Hash && e.NS.Known() && now.NS.Known() && e.NS != now.NS
		if other {
			hashes = append(hashes, e.Hash)
		}
		return other
	})
	return hashes
}

// ensure makes a file that is not there, empty, and tells whether it did. That it is to be
// made is kept before it is: whoever finds it empty, after a crash, knows whose it is.
func (d Dir) ensure(name string, f *File, e Entry) (made bool, err error) {
	if f.file != nil {
		return false, nil
	}
	r := record{Path: f.path, Original: f.text, Made: true, Entries: []Entry{e}}
	var was record
	if d.load(name, &was) == nil && was.Path == f.path {
		r.MadeDir = was.MadeDir // which went without it, or is as we left it
	}
	if _, err := os.Lstat(filepath.Dir(f.path)); errors.Is(err, fs.ErrNotExist) {
		r.MadeDir = true
	}
	if _, err := os.Lstat(f.path); errors.Is(err, fs.ErrNotExist) { // else somebody's record may be of it
		if err := d.save(name, r); err != nil {
			return false, err
		}
	}
	return f.make()
}

// unmake takes away a file that was just made and did not get its text.
func (d Dir) unmake(name string, f *File) error {
	var r record
	err := d.load(name, &r)
	if err == nil {
		err = f.drop(&r)
	}
	return errors.Join(err, d.forget(name))
}

// current is what is known of a file that is open, and stands as it is now.
func (d Dir) current(name string, f *File) *record {
	var r record
	switch err := d.load(name, &r); {
	case err == nil && r.unwritten(f):
		r.ID = f.id
	case err != nil || r.Path != f.path || r.ID != f.id: // nothing is known, or of a file that is gone
		return f.unknown()
	case sha256.Sum256(f.text) != r.Wrote:
		r.Original = resolvconf.Take(f.text)
	}
	return &r
}

// unknown is what is to be thought of a file that we know nothing of.
func (f *File) unknown() *record {
	return &record{Path: f.path, ID: f.id, Original: resolvconf.Take(f.text), Made: f.made}
}

// Servers are the container's own servers for the names of others, as far as this host can
// ask them; none where they are the host's own, which may change. Those of a runtime's file
// are as they were when it was first asked for, before its container could write it.
func (d Dir) Servers(f *File) ([]netip.Addr, error) {
	if f.made {
		return nil, nil
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := f.again(); err != nil || f.file == nil || f.made {
		return nil, err
	}
	if f.name != "" {
		return f.servers(), nil
	}
	return f.firstServers()
}

// unwritten reports whether a file is one that we made, and was not written yet: a call
// ended between the two.
func (r *record) unwritten(f *File) bool {
	return r.Made && r.Path == f.path && len(f.text) == 0 && (r.ID == f.id || r.ID == fileID{})
}

// Remove takes an attachment's entry out of its file, if it has one: the file is as before
// it when nobody else has written there; else ours alone go. said is what a person
// should hear of that.
func (d Dir) Remove(hash string) (said string, err error) {
	if _, err := os.Lstat(filepath.Join(d.Path, attachedTo+hash)); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	unlock, err := d.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	var a attached
	if err := d.load(attachedTo+hash, &a); err != nil {
		return "", errors.Join(d.forget(attachedTo+hash), err)
	}
	if a.File != "" {
		said, err = d.takeOut(a.File, hash)
	}
	return said, errors.Join(err, d.settle(hash, func(a *attached) { a.File = "" }))
}

// takeOut ends an entry of a record.
func (d Dir) takeOut(name, hash string) (said string, err error) {
	var r record
	switch err := d.load(name, &r); {
	case errors.Is(err, fs.ErrNotExist): // ADD came no further
		return "", nil
	case err != nil:
		return "", errors.Join(err, d.forget(name))
	}
	i := r.index(hash)
	if i < 0 {
		return "", nil
	}
	r.Entries = slices.Delete(r.Entries, i, i+1)
	f, err := d.Host.open(r.Path)
	if errors.Is(err, unix.ENOENT) {
		r.leaveDir()
		return "", d.forget(name)
	}
	if err != nil {
		return "", errors.Join(err, d.forget(name))
	}
	defer f.Close()
	base := resolvconf.Take(f.text)
	edited := d.Host.isNamed(r.Path) && !bytes.Equal(base, f.text) // by renaming, as many editors do
	if f.id != r.ID && !r.unwritten(f) && !edited {
		return r.Path + " is another file now, and stays", d.forget(name)
	}
	ours := f.id == r.ID && sha256.Sum256(f.text) == r.Wrote
	if r.ID = f.id; !ours {
		r.Original = base
		said = r.Path + " was changed since: only what weavedns wrote is taken out"
	}
	if len(r.Entries) > 0 {
		text := r.text()
		r.Wrote = sha256.Sum256(text)
		return said, errors.Join(d.save(name, &r), f.write(text))
	}
	return said, errors.Join(f.restore(&r, ours), d.forget(name))
}

// restore leaves the file as it was, which may be not at all.
func (f *File) restore(r *record, ours bool) error {
	if !r.Made || !ours && len(f.text) > 0 {
		if bytes.Equal(f.text, r.Original) {
			return nil
		}
		return f.write(r.Original)
	}
	return f.drop(r)
}

// drop removes a file that we made.
func (f *File) drop(r *record) error {
	err := os.Remove(f.path)
	r.leaveDir()
	return err
}

// leaveDir removes the directory that we made, unless somebody has put something there.
func (r *record) leaveDir() {
	if r.MadeDir {
		_ = unix.Rmdir(filepath.Dir(r.Path))
	}
}

func (d Dir) load(name string, into any) error {
	b, err := os.ReadFile(filepath.Join(d.Path, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(d.Path, name), err)
	}
	return nil
}

// save writes beside and renames. The directory is a tmpfs, so nothing is synced.
func (d Dir) save(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	at := filepath.Join(d.Path, name)
	if err := os.WriteFile(at+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(at+".tmp", at)
}

func (d Dir) forget(name string) error {
	if err := os.Remove(filepath.Join(d.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lock keeps out all other calls of this host, each for some writes to a tmpfs and to one
// file. It is the directory's own, which unlock removes when nothing is kept any more.
func (d Dir) lock() (unlock func(), err error) {
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockAgain) {
		f, err := d.tryLock()
		if err == nil {
			return func() { _ = unix.Rmdir(d.Path); f.Close() }, nil
		}
		passing := errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) || errors.Is(err, fs.ErrNotExist)
		if !passing || time.Now().After(end) {
			return nil, fmt.Errorf("lock %s: %w", d.Path, err)
		}
	}
}

// tryLock fails with fs.ErrNotExist where another call has removed the directory meanwhile.
func (d Dir) tryLock() (*os.File, error) {
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		var held, there fs.FileInfo
		if held, err = f.Stat(); err == nil {
			there, err = os.Lstat(d.Path)
		}
		if err == nil && !os.SameFile(held, there) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
