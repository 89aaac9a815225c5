package inject

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/weave-cni/weave-cni/pkg/resolvconf"
)

// RemoveFrom is Remove of one whose container is known. Where nothing is noted of it, the
// state may have been lost: then the file that an ADD would write is as its text says that
// it was, unless what stands in it is known to be another attachment's.
func (d Dir) RemoveFrom(c Container, hash string) (said string, err error) {
	if _, err := os.Lstat(filepath.Join(d.Path, attachedTo+hash)); !errors.Is(err, fs.ErrNotExist) {
		return d.Remove(hash)
	}
	f, err := d.Host.Find(c)
	var l *Left
	switch {
	case errors.As(err, &l), err == nil && f == nil:
		return "", nil // ADD has not written there either
	case err != nil:
		return "", err
	}
	defer f.Close()
	if f.file == nil || bytes.Equal(resolvconf.Take(f.text), f.text) {
		return "", nil
	}
	unlock, err := d.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := f.again(); err != nil || f.file == nil {
		return "", err
	}
	return d.takeOutUnknown(f, hash)
}

// takeOutUnknown takes ours out of a file of which no note is. The lock is held.
func (d Dir) takeOutUnknown(f *File, hash string) (said string, err error) {
	name := recordName(f.path)
	var known record
	if d.load(name, &known) == nil && known.Path == f.path && len(known.Entries) > 0 {
		return d.takeOut(name, hash) // which is for its own entry alone
	}
	base := resolvconf.Take(f.text)
	if f.made && bytes.Equal(base, f.host.text()) {
		return "", os.Remove(f.path)
	}
	if f.made {
		said = f.path + " was changed since, and stays: only what weavedns wrote is taken out"
	}
	return said, f.write(base)
}
