// Package knownhosts keeps on disk where the other hosts of the cluster were last
// reached, so that a router that starts again finds them although it is told one
// of them only, or one that is away.
//
// It is a help and no truth: a file that is missing, damaged or too old costs
// nothing but the help. What it leads to is authenticated like any other peer.
package knownhosts

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/identity"
)

// Bounds of what is kept. Each kept host leads to all the others, so a few are enough.
const (
	MaxHosts = 64
	maxAddrs = 4        // of one host
	maxFile  = 64 << 10 // bytes
)

// keepFor is how long a host is kept that is not seen, while others are: its age
// counts from the time at which any host was last seen. So a cluster that was off
// for months finds itself again, and a clock that was wrong while nobody was seen
// does no harm.
const keepFor = 30 * 24 * time.Hour

// seenStep is what the time of a host's entry is rounded down to, so that the file
// is not written for its sake alone. All that are reached now have one time, and of
// more than are kept the same ones stay.
const seenStep = time.Hour

// Host is where one host was reached.
type Host struct {
	Name   gossip.Peer      `json:"name"`
	Member uint64           `json:"member"`
	Addrs  []netip.AddrPort `json:"addresses"`
	Seen   time.Time        `json:"seen"` // by the wall clock
}

// file is the form on disk.
type file struct {
	Hosts []Host `json:"hosts"`
}

// Load reads the file, without what is not valid in it. None is no error.
func Load(path string) ([]Host, error) {
	b, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("read the known hosts: %w", err)
	}
	if b == nil {
		return nil, nil
	}
	return decode(b)
}

// read reads a file of ours, which nobody else may write; nil where there is none.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s must be a file that others cannot write (chmod 600)", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return b, err
}

func decode(b []byte) ([]Host, error) {
	var in file
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("read the known hosts: %w", err)
	}
	return tidy(in.Hosts), nil
}

// Save writes the file in the place of the last one, for its owner only.
func Save(path string, hosts []Host) error {
	if err := replace(path, file{hosts}); err != nil {
		return fmt.Errorf("write the known hosts: %w", err)
	}
	return nil
}

// replace writes a value in the place of a file.
func replace(path string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	// Always the same name: a router that is killed in between leaves one file, not many.
	temp, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = temp.Write(append(b, '\n'))
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}

// Merge is what to keep of the hosts of before and of those that are reached now,
// the latest first, and those of one time by name. gone tells who has left the cluster.
//
// None of before was seen later than the latest of now: there the clock was ahead,
// and must not make those of now too old.
func Merge(before, now []Host, gone func(Host) bool) []Host {
	var all []Host
	var latest time.Time
	for _, h := range now {
		h.Seen = h.Seen.Truncate(seenStep)
		if h.Seen.After(latest) {
			latest = h.Seen
		}
		all = append(all, h)
	}
	for _, h := range before {
		if len(now) > 0 && h.Seen.After(latest) {
			h.Seen = latest
		}
		all = append(all, h)
	}
	return slices.DeleteFunc(tidy(all), gone)
}

// Equal reports whether two lists need not be told apart on disk.
func Equal(a, b []Host) bool {
	return slices.EqualFunc(a, b, func(x, y Host) bool {
		return x.Name == y.Name && x.Member == y.Member && x.Seen.Equal(y.Seen) && slices.Equal(x.Addrs, y.Addrs)
	})
}

// tidy keeps what is valid, of each name the first, the latest seen first, within
// the bounds.
func tidy(hosts []Host) []Host {
	var out []Host
	for _, h := range hosts {
		h.Addrs = addrsOf(h)
		_, err := identity.ValidName(string(h.Name))
		twice := slices.ContainsFunc(out, func(o Host) bool { return o.Name == h.Name })
		if err == nil && !twice && len(h.Addrs) > 0 && len(out) < 16*MaxHosts {
			out = append(out, h)
		}
	}
	slices.SortStableFunc(out, func(a, b Host) int { return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.Name, b.Name)) })
	out = out[:min(len(out), MaxHosts)]
	if len(out) > 0 {
		latest := out[0].Seen
		out = slices.DeleteFunc(out, func(h Host) bool { return latest.Sub(h.Seen) > keepFor })
	}
	return out
}

// addrsOf are a host's addresses that somebody else can call.
func addrsOf(h Host) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range h.Addrs {
		ip := a.Addr().Unmap()
		usable := ip.IsValid() && a.Port() != 0 && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLoopback()
		if usable && len(out) < maxAddrs {
			out = append(out, netip.AddrPortFrom(ip, a.Port()))
		}
	}
	return out
}
