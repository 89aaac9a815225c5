package netdev

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// NS is an open network namespace. The namespace lives at least as long as the
// NS is open, whatever happens to the path that it was opened by. An NS is for
// one goroutine.
type NS struct {
	path string
	fd   int
	id   attachment.NSID

	// Opened on the first use inside the namespace, and good from outside.
	sock  *conn
	conf6 int // directory of the IPv6 sysctls of its devices; noIPv6 where the kernel has none
}

const (
	notOpen = -1
	noIPv6  = -2
)

const selfNS = "/proc/thread-self/ns/net"

// OpenNS opens the namespace at a path such as /run/netns/x or /proc/42/ns/net.
// What else is there (a file, a FIFO, a namespace of another kind) is recognised
// without waiting for it: ErrNotNS. ErrNSGone when there is nothing.
func OpenNS(path string) (*NS, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("open network namespace %q: %w", path, ErrNSGone)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("open network namespace %q: %w", path, ErrNotNS)
	case err != nil:
		return nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	id, err := identify(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	return &NS{path: path, fd: fd, id: id, conf6: notOpen}, nil
}

// identify checks that fd is a network namespace, and says which.
func identify(fd int) (attachment.NSID, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return attachment.NSID{}, err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return attachment.NSID{}, ErrNotNS
	}
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return attachment.NSID{}, ErrNotNS
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return attachment.NSID{}, err
	}
	return attachment.NSID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// FD is the open file of the namespace; the NS keeps owning it.
func (ns *NS) FD() int { return ns.fd }

// ID identifies the namespace for as long as somebody holds it.
func (ns *NS) ID() attachment.NSID { return ns.id }

// Made is when the kernel made the namespace's inode, in ns since 1970: it tells one from
// another that is gone and had the same number. It changes while nothing holds the inode,
// no mount and no open file.
func (ns *NS) Made() int64 {
	var st unix.Stat_t
	if err := unix.Fstat(ns.fd, &st); err != nil {
		return 0
	}
	return st.Ctim.Nano()
}

// IsOwn reports whether it is the namespace of the calling thread, which no
// attachment may ever be made into. In doubt it says yes.
func (ns *NS) IsOwn() bool {
	var st unix.Stat_t
	if err := unix.Stat(selfNS, &st); err != nil {
		return true
	}
	return ns.id == attachment.NSID{Dev: uint64(st.Dev), Ino: st.Ino}
}

// Close lets go of the namespace. It may be called more than once.
func (ns *NS) Close() {
	if ns.sock != nil {
		ns.sock.close()
		ns.sock = nil
	}
	for _, fd := range []*int{&ns.conf6, &ns.fd} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = notOpen
	}
}

// conn gives the netlink socket inside the namespace, opening it at the first call.
func (ns *NS) conn() (*conn, error) {
	if ns.sock != nil {
		return ns.sock, nil
	}
	err := ns.do(func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		// A directory of sysctls belongs to the namespace of who opened it, for good.
		dir, err := unix.Open("/proc/sys/net/ipv6/conf", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			dir, err = noIPv6, nil
		}
		if err != nil {
			c.close()
			return fmt.Errorf("open IPv6 sysctls: %w", err)
		}
		ns.sock, ns.conf6 = c, dir
		return nil
	})
	return ns.sock, err
}

// do runs f inside the namespace, on the caller's thread. Before it goes in it
// tries the way back (in a user namespace one can be let in and not out), so it
// does not fail afterwards. Should it all the same, the thread stays locked to
// the caller, who must end, and no other goroutine goes on in the wrong place
// without knowing.
func (ns *NS) do(f func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open(selfNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	err = unix.Setns(home, unix.CLONE_NEWNET)
	if err == nil {
		err = unix.Setns(ns.fd, unix.CLONE_NEWNET)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %q: %w", ns.path, err)
	}
	err = f()
	if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("return from network namespace %q: %w", ns.path, back))
	}
	runtime.UnlockOSThread()
	return err
}

// HasLink reports whether the namespace (nil: the caller's own) has a device of
// that name, or with it as an alternative name.
func HasLink(ns *NS, ifname string) (bool, error) {
	c, err := connTo(ns)
	if err != nil {
		return false, err
	}
	if ns == nil {
		defer c.close()
	}
	_, err = c.index(ifname)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func connTo(ns *NS) (*conn, error) {
	if ns == nil {
		return dial()
	}
	return ns.conn()
}
