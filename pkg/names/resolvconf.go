package names

import (
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
	// a container's flood of queries must not become a flood of reads.
	resolvConfCheck = time.Second
	// resolvConfSettled is how old a file's last change must be before its time
	// tells it from the next one: some file systems count in steps of two seconds.
	resolvConfSettled = 2 * time.Second
)

// ResolvConf is the resolvers of a resolv.conf, which is read again only when it
// has changed. It is safe for concurrent use.
type ResolvConf struct {
	path string

	mu      sync.Mutex
	checked time.Time   // zero: never
	seen    fs.FileInfo // of what was read; nil: read it again
	servers []string
}

// NewResolvConf reads nothing yet.
func NewResolvConf(path string) *ResolvConf { return &ResolvConf{path: path} }

// Upstreams are the resolvers as host:port, in the file's order; none when it
// cannot be read. A change is seen within a second. Addresses of our own that
// stand there are the caller's to take out; the slice is the caller's.
func (r *ResolvConf) Upstreams() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.checked.IsZero() || now.Sub(r.checked) >= resolvConfCheck {
		r.checked = now
		r.refresh(now)
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
	r.seen, r.servers = nil, nil
	f, err := os.Open(r.path)
	if err != nil {
		return
	}
	defer f.Close()
	fi, err := f.Stat() // before the content: what changes in between shows next time
	if err != nil {
		return
	}
	conf, err := dns.ClientConfigFromReader(f)
	if err != nil {
		return
	}
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
