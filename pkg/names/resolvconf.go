package names

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// resolvConfCheck is how often it is looked whether a resolv.conf has changed:
	// a container's flood of queries must not become a flood of reads. One without
	// servers may be half written, and is looked at by each call: who calls for each
	// query keeps what it was told for upstreamsFresh.
	resolvConfCheck = time.Second
	// resolvConfSettled is how old a file's last change must be before its time
	// tells it from the next one: some file systems count in steps of two seconds.
	resolvConfSettled = 2 * time.Second
)

// ResolvConf is the resolvers of a resolv.conf, which is read again only when it
// has changed. It is safe for concurrent use.
type ResolvConf struct {
	path   string
	behind *ResolvConf // where the servers of systemd-resolved are; nil: this is that

	mu      sync.Mutex
	checked time.Time   // zero: never, or no servers were found
	seen    fs.FileInfo // of what was read; nil: read it again
	servers []string
}

// NewResolvConf reads nothing yet. Where the file at path names but the stub of
// systemd-resolved, the one at behind is taken, in which that lists its own servers: the
// stub may send our names, and so our questions, to us.
func NewResolvConf(path, behind string) *ResolvConf {
	return &ResolvConf{path: path, behind: &ResolvConf{path: behind}}
}

// Upstreams are the resolvers as host:port, in the file's order; none when there is
// no file, and those of before when it cannot be read. A change is seen within a second.
// Addresses of our own that stand there are the caller's to take out; the slice is the
// caller's.
func (r *ResolvConf) Upstreams() []string {
	servers := r.listed()
	if len(servers) > 0 && !slices.ContainsFunc(servers, func(s string) bool { return !isStub(s) }) {
		if behind := r.behind.listed(); len(behind) > 0 {
			return behind
		}
	}
	return servers
}

// isStub reports whether a server is one of the two that systemd-resolved is for its host.
func isStub(server string) bool { return server == "127.0.0.53:53" || server == "127.0.0.54:53" }

func (r *ResolvConf) listed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.checked.IsZero() || now.Sub(r.checked) >= resolvConfCheck {
		r.refresh(now)
		if r.checked = now; len(r.servers) == 0 {
			r.checked = time.Time{}
		}
	}
	return slices.Clone(r.servers)
}

// refresh reads the file unless it is what was read last. r.mu is held.
func (r *ResolvConf) refresh(now time.Time) {
	if r.seen != nil {
		if fi, err := os.Stat(r.path); err == nil && sameFile(fi, r.seen) {
			return
		}
	}
	r.seen = nil
	f, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		r.servers = nil
	}
	if err != nil {
		return
	}
	defer f.Close()
	fi, err := f.Stat() // before the content: what changes in between shows next time
	if err != nil {
		return
	}
	text, err := io.ReadAll(f) // here, because the parser takes an error for the end
	if err != nil {
		return
	}
	conf, err := dns.ClientConfigFromReader(bytes.NewReader(text))
	if err != nil {
		return
	}
	r.servers = nil
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			r.servers = append(r.servers, net.JoinHostPort(a.String(), conf.Port))
		}
	}
	if now.Sub(fi.ModTime()) >= resolvConfSettled {
		r.seen = fi
	}
}

// sameFile goes by identity, time and size: the file is replaced, or written in place.
func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
