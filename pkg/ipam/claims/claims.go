// Package claims keeps one file for each claim, in the run directory: it survives a
// restart of the router and, as containers do, not a reboot.
//
// A file is written beside and renamed, so it is whole or not there; and since the
// directory is a tmpfs nothing is synced. A file that cannot be read all the same
// is reported and passed over: the kernel knows of most attachments, too.
package claims

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
)

const (
	prefixRest = ctl.ClaimsResting
	suffixTemp = ".tmp"
	maxFile    = 64 << 10 // bytes
	maxAddrs   = 64       // of one claim
)

// Dir is a directory of claim files. It is for one router at a time; its methods
// are not to be called side by side for one hash.
type Dir struct {
	root *os.Root
}

// Open opens the directory, and makes it, for its owner only, when it is not there.
func Open(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open claims: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open claims: %w", err)
	}
	return &Dir{root}, nil
}

// Announce says beside the router's socket where the claims are, by a link
// SOCKET.claims: a plugin knows the socket only, and when no router is behind it
// has to find the file of a claim that ends. Where the two have one directory no
// link is needed, and one of before goes. Call it before the socket answers.
func (d *Dir) Announce(socket string) error {
	if err := d.announce(socket); err != nil {
		return fmt.Errorf("announce the claims beside %s: %w", socket, err)
	}
	return nil
}

func (d *Dir) announce(socket string) error {
	path, err := filepath.Abs(d.root.Name())
	if err != nil {
		return err
	}
	link := socket + ctl.ClaimsLink
	if path == filepath.Join(filepath.Dir(socket), ctl.ClaimsDir) {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	if err := os.Remove(link + suffixTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(path, link+suffixTemp); err != nil {
		return err
	}
	return os.Rename(link+suffixTemp, link)
}

// Close ends the use of the directory.
func (d *Dir) Close() error { return d.root.Close() }

// file is a claim as it is written.
type file struct {
	book.Claim
	MAC string `json:"mac,omitempty"`
}

// Save writes a claim, before anybody hears of it.
func (d *Dir) Save(c book.Claim) error {
	f := file{Claim: c}
	if c.MAC != nil {
		f.MAC = c.MAC.String()
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("save claim %s: %w", c.Hash, err)
	}
	if err := d.write(c.Hash+suffixTemp, append(b, '\n')); err != nil {
		return fmt.Errorf("save claim %s: %w", c.Hash, err)
	}
	if err := d.root.Rename(c.Hash+suffixTemp, c.Hash); err != nil {
		return fmt.Errorf("save claim %s: %w", c.Hash, err)
	}
	return nil
}

func (d *Dir) write(name string, b []byte) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// Rest marks a claim as ended: a restarted router still knows that its addresses
// rest. A claim that has no file is no error.
func (d *Dir) Rest(hash string) error {
	if err := d.root.Rename(hash, prefixRest+hash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end claim %s: %w", hash, err)
	}
	return nil
}

// Drop removes what Rest left.
func (d *Dir) Drop(hash string) error { return d.remove(prefixRest + hash) }

func (d *Dir) remove(name string) error {
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove claim file: %w", err)
	}
	return nil
}

// Load reads all files: the claims that hold, those that rest, and what was wrong
// with the files that are neither. Left-over temporary files are removed.
func (d *Dir) Load() (live, resting []book.Claim, bad []error, err error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, nil, nil, fmt.Errorf("load claims: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, suffixTemp) {
			if err := d.remove(name); err != nil {
				bad = append(bad, err)
			}
			continue
		}
		hash, rests := strings.CutPrefix(name, prefixRest)
		c, err := d.read(name, hash)
		switch {
		case err != nil:
			bad = append(bad, fmt.Errorf("claim file %q: %w", name, err))
		case rests:
			resting = append(resting, c)
		default:
			live = append(live, c)
		}
	}
	return live, resting, bad, nil
}

func (d *Dir) read(name, hash string) (book.Claim, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return book.Claim{}, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return book.Claim{}, errors.Join(err, errors.New("not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return book.Claim{}, err
	}
	return parse(b, hash)
}

// parse trusts a file no more than it must: it may have been cut off, or edited.
func parse(b []byte, hash string) (book.Claim, error) {
	if len(b) > maxFile {
		return book.Claim{}, errors.New("longer than 64 KiB")
	}
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return book.Claim{}, err
	}
	c := f.Claim
	if f.MAC != "" {
		mac, err := net.ParseMAC(f.MAC)
		if err != nil || len(mac) != 6 {
			return book.Claim{}, fmt.Errorf("MAC %q", f.MAC)
		}
		c.MAC = mac
	}
	return c, check(c, hash)
}

func check(c book.Claim, hash string) error {
	_, err := attachment.ParseAlias("wv1 " + c.Hash + " n 02:00:00:00:00:00 ")
	switch {
	case c.Hash != hash || err != nil:
		return fmt.Errorf("hash %.40q is not the file's name", c.Hash)
	case c.Key.ContainerID != "" && c.Key.Hash() != c.Hash:
		return errors.New("the key is not the hash's")
	case c.Decider != ctl.DecidedByVeth && c.Decider != ctl.DecidedByClaim:
		return fmt.Errorf("decider %.40q", c.Decider)
	case c.State != book.Reserved && c.State != book.Attached:
		return fmt.Errorf("state %.40q", c.State)
	case len(c.Addrs) > maxAddrs:
		return fmt.Errorf("%d addresses", len(c.Addrs))
	}
	for _, p := range c.Addrs {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr() == (netip.Addr{}) {
			return fmt.Errorf("address %v", p)
		}
	}
	return nil
}
