package netdev

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another process is making the link.
var ErrHeld = errors.New("another ADD of this attachment is under way")

const (
	holders   = 1024                  // callers that may ask a holder who it is, at most
	holdTries = 50                    // looks at a holder that does not answer ...
	holdPause = 10 * time.Millisecond // ... and the pause between them
)

// Held is the right to make the link of one name. It ends with Release, or with
// the process, however that ends.
type Held struct{ fd int }

// Hold gives one process of this network namespace the right to make the link
// of a name, so that of two which are at it only one goes on. ErrHeld: another has it.
//
// The right is an abstract unix socket of that name: the kernel gives a name once
// in a namespace, and takes it back when the process dies. Anybody may bind
// such a name, so one that belongs to somebody else than root or this user, or
// to somebody who does not say so, holds nobody up: then Hold goes without.
func Hold(name string) (*Held, error) {
	at := &unix.SockaddrUnix{Name: "@weave-cni/" + name}
	for range holdTries {
		h, err := bindHeld(at)
		if !errors.Is(err, unix.EADDRINUSE) {
			return h, wrap(fmt.Sprintf("hold %q", name), err)
		}
		uid, err := holderOf(at)
		switch {
		case err == nil && (uid == 0 || uid == os.Geteuid()):
			return nil, fmt.Errorf("hold %q: %w", name, ErrHeld)
		case !errors.Is(err, unix.ECONNREFUSED):
			return &Held{-1}, nil // a stranger
		}
		time.Sleep(holdPause) // it has bound the name and does not listen yet, or has just gone
	}
	return &Held{-1}, nil // a stranger, too
}

func bindHeld(at unix.Sockaddr) (*Held, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(fd, at); err == nil {
		err = unix.Listen(fd, holders)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Held{fd}, nil
}

// holderOf asks the kernel whose process holds the name. ECONNREFUSED: nobody
// does, or does not say so.
func holderOf(at unix.Sockaddr) (uid int, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, at); err != nil {
		return 0, err
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// Release gives the right back. It may be called again.
func (h *Held) Release() {
	if h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
}
