// Package offers keeps, in the state directory, what a host is giving back: once an
// offer is written the host allocates nothing of it, though it crash or lose its
// power, until the ledger has answered.
package offers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
)

// maxFile is the most bytes that are read back; what is written is far less.
const maxFile = 1 << 20

// File is an allot.Offers. It is not safe for concurrent use.
type File struct{ path string }

// New names the file; it is made by the first Save.
func New(path string) *File { return &File{path} }

// Load implements allot.Offers. A file that cannot be read is an error: a host that
// does not know what it gave away may not allocate.
func (f *File) Load() ([]allot.Offer, error) {
	file, err := os.Open(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read offers: %w", err)
	}
	defer file.Close()
	var list []allot.Offer
	b, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read offers: %s: %w", f.path, err)
	}
	for _, o := range list {
		for _, r := range o.Ranges {
			if !r.Valid() {
				return nil, fmt.Errorf("read offers: %s: range %v", f.path, r)
			}
		}
	}
	return list, nil
}

// Save implements allot.Offers: after a crash the file is the one before or this one.
func (f *File) Save(list []allot.Offer) error {
	b, err := json.Marshal(list)
	if err == nil {
		err = replace(f.path, b)
	}
	if err != nil {
		return fmt.Errorf("write offers: %w", err)
	}
	return nil
}

func replace(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

var _ allot.Offers = (*File)(nil)
