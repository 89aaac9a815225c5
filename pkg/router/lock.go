package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// networkLock is an abstract unix socket, of which each network namespace has its
// own: who is bound to it is the router of this namespace's bridge, devices and
// rules. The kernel frees the name when the process ends, however it ends.
const networkLock = ctl.RouterLock

// Times of taking a lock. A router that was killed holds its locks until the
// kernel has taken it apart, and its successor may come before that.
const (
	lockWithin = 3 * time.Second
	lockEvery  = 20 * time.Millisecond
	askWithin  = 500 * time.Millisecond
)

// patiently tries to take a lock until another's hold on it has lasted lockWithin.
func patiently(ctx context.Context, held error, try func() error) error {
	end := time.Now().Add(lockWithin)
	for {
		err := try()
		if !errors.Is(err, held) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lockEvery):
		}
	}
}

// lock makes sure that one router runs on a run directory. The kernel lets go of
// the lock when the process ends, however it ends.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	path := filepath.Join(dir, "weaver.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = patiently(ctx, unix.EWOULDBLOCK, func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another weaver runs on %s (%s is locked): stop it first", dir, path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// lockNetwork makes sure that one router writes into this network namespace. It
// tells whoever asks which run directory it has, until unlock.
//
// Any user may bind an abstract name. One that is neither root nor the router's own
// user is no router, and must not keep one from starting, nor must one that cannot
// be asked: then there is no lock.
func lockNetwork(ctx context.Context, runDir string, log *slog.Logger) (unlock func(), err error) {
	var l *net.UnixListener
	h, err := takeName(ctx, func() (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: networkLock, Net: "unix"})
		return err
	}, askHolder)
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && h.router():
		return nil, fmt.Errorf("another weaver runs in this network namespace%s: two would take bridge, VXLAN device and firewall from each other. "+
			"Stop that one, or give this one a network namespace of its own", h)
	case errors.Is(err, syscall.EADDRINUSE):
		log.Warn("one who is no router holds the lock of this network namespace: nothing keeps a second router away", "socket", networkLock, "holder", h.who())
		return func() {}, nil
	case err != nil:
		return nil, fmt.Errorf("take the lock of this network namespace: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { tellHolder(l, runDir) })
	return func() {
		l.Close()
		wg.Wait()
	}, nil
}

// takeName binds the lock's name, or says who holds it. A holder that cannot be
// asked has just ended, or has bound the name a moment ago, or is no router.
func takeName(ctx context.Context, bind func() error, ask func() holder) (h holder, err error) {
	err = patiently(ctx, syscall.EADDRINUSE, bind)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return h, err
	}
	if h = ask(); h.known {
		return h, err
	}
	time.Sleep(lockEvery)
	if err = bind(); errors.Is(err, syscall.EADDRINUSE) {
		h = ask()
	}
	return h, err
}

// tellHolder answers everybody who connects, until l is closed.
func tellHolder(l *net.UnixListener, runDir string) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(lockEvery) // no file descriptors: not to be spun on
			continue
		}
		conn.SetWriteDeadline(time.Now().Add(askWithin))
		io.WriteString(conn, runDir) // fits the socket's buffer
		conn.Close()
	}
}

// holder is who has the lock, as far as it can be known.
type holder struct {
	known  bool
	uid    uint32
	pid    int32 // 0: of another PID namespace
	runDir string
}

// router reports whether it may be one: a router that is stopped can be asked too,
// because the kernel answers for it.
func (h holder) router() bool { return h.known && (h.uid == 0 || int(h.uid) == os.Geteuid()) }

// who it is, for the log.
func (h holder) who() string {
	if !h.known {
		return "unknown: it takes no connection (see `ss -xlp`)"
	}
	return fmt.Sprintf("uid %d, pid %d", h.uid, h.pid)
}

// String is for the message about a router.
func (h holder) String() string {
	switch {
	case h.pid == 0 && h.runDir == "":
		return " (in another PID namespace)"
	case h.pid == 0:
		return fmt.Sprintf(" (in another PID namespace, with --run-dir %s)", h.runDir)
	case h.runDir == "":
		return " (process " + strconv.Itoa(int(h.pid)) + ")"
	}
	return fmt.Sprintf(" (process %d, with --run-dir %s)", h.pid, h.runDir)
}

func askHolder() (h holder) {
	conn, err := net.DialTimeout("unix", networkLock, askWithin)
	if err != nil {
		return h
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return h
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			h = holder{known: true, uid: cred.Uid, pid: cred.Pid}
		}
	})
	conn.SetReadDeadline(time.Now().Add(askWithin))
	if b, err := io.ReadAll(io.LimitReader(conn, unix.PathMax)); err == nil && filepath.IsAbs(string(b)) {
		h.runDir = strconv.Quote(string(b))
	}
	return h
}
