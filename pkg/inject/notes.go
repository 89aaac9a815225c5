package inject

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// Owner is the attachment that something was written for.
type Owner struct {
	Hash    string          `json:"hash"` // attachment.Key.Hash
	Network string          `json:"network,omitempty"`
	NetNS   string          `json:"netns,omitempty"` // CNI_NETNS at ADD
	NS      attachment.NSID `json:"ns,omitzero"`     // what was behind it
}

// attached is kept for each attachment, for as long as it says anything.
type attached struct {
	Owner
	File      string // the record's name; "" for none
	Intercept bool   // rules stand in its namespace
}

// Note is that something was written for an attachment, and not yet taken out.
type Note struct {
	Owner
	Age time.Duration // since the last ADD
}

// Notes are those of a network's attachments.
func (d Dir) Notes(network string) (out []Note, err error) {
	files, err := filepath.Glob(filepath.Join(d.Path, attachedTo+"*"))
	for _, f := range files {
		var a attached
		st, gone := os.Lstat(f)
		hash := strings.TrimPrefix(filepath.Base(f), attachedTo)
		if gone != nil || d.load(filepath.Base(f), &a) != nil || a.Network != network || a.Hash != hash {
			continue
		}
		out = append(out, Note{a.Owner, time.Since(st.ModTime())})
	}
	return out, err
}

// NoteIntercept notes, before it is done, that rules go into an attachment's namespace.
func (d Dir) NoteIntercept(o Owner) error {
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return d.note(o, func(a *attached) { a.Intercept = true })
}

// Intercepted gives whose rules may stand in an attachment's namespace.
func (d Dir) Intercepted(hash string) (Owner, bool) {
	var a attached
	err := d.load(attachedTo+hash, &a)
	return a.Owner, err == nil && a.Intercept
}

// EndIntercept notes that they do not any more.
func (d Dir) EndIntercept(hash string) error {
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return d.settle(hash, func(a *attached) { a.Intercept = false })
}

// Sweep forgets files that are gone: of containers whose DEL never came.
func (d Dir) Sweep() error {
	if _, err := os.Lstat(d.Path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	names, err := filepath.Glob(filepath.Join(d.Path, filePrefix+"*"))
	errs := []error{err}
	for _, n := range names {
		var r record
		if d.load(filepath.Base(n), &r) != nil {
			continue
		}
		if _, err := os.Lstat(r.Path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for _, e := range r.Entries {
			errs = append(errs, d.left(e.Hash, filepath.Base(n)))
		}
		r.leaveDir()
		errs = append(errs, d.forget(filepath.Base(n)))
	}
	return errors.Join(errs...)
}

// note changes what is kept for an attachment. The lock is held, as for settle.
func (d Dir) note(o Owner, change func(*attached)) error {
	var a attached
	_ = d.load(attachedTo+o.Hash, &a) // what cannot be read is written anew
	a.Owner = o
	change(&a)
	return d.save(attachedTo+o.Hash, a)
}

// left notes that an attachment has nothing in a file any more; it may have in another one.
func (d Dir) left(hash, file string) error {
	return d.settle(hash, func(a *attached) {
		if a.File == file {
			a.File = ""
		}
	})
}

// settle is note where something of it has ended: when that was the last, it is forgotten.
func (d Dir) settle(hash string, change func(*attached)) error {
	var a attached
	err := d.load(attachedTo+hash, &a)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if change(&a); err != nil || a.File == "" && !a.Intercept {
		return d.forget(attachedTo + hash)
	}
	if err := d.save(attachedTo+hash, a); err != nil {
		return fmt.Errorf("note of what was taken out: %w", err)
	}
	return nil
}
