package router

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestALockIsWaitedForAsLongAsAKilledRouterMayHoldIt(t *testing.T) {
	held := errors.New("held")
	for freed, want := range map[time.Duration]error{0: nil, lockWithin - lockEvery: nil, lockWithin + time.Minute: held} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			got := patiently(t.Context(), held, func() error {
				if time.Since(begin) < freed {
					return held
				}
				return nil
			})
			if got != want || time.Since(begin) > lockWithin+2*lockEvery {
				t.Errorf("freed after %v: %v after %v", freed, got, time.Since(begin))
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		begin, other := time.Now(), errors.New("another")
		if err := patiently(t.Context(), held, func() error { return other }); err != other || time.Since(begin) != 0 {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}

// bindAs binds the lock's name in a host, as a user with that uid.
func bindAs(h *netlab.Host, uid int) (l *net.UnixListener, err error) {
	err = h.Do(func() error {
		if err := threadUID(uid); err != nil {
			return err
		}
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: networkLock, Net: "unix"})
		return errors.Join(err, threadUID(0))
	})
	return l, err
}

// threadUID changes the effective user of the calling thread alone.
func threadUID(uid int) error {
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
		return errno
	}
	return nil
}

// full has a listener's queue as long as it may be: who connects gets EAGAIN.
func full(h *netlab.Host, l *net.UnixListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }); cerr != nil || err != nil {
		return errors.Join(cerr, err)
	}
	return h.Do(func() error {
		for range 8 {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: networkLock}); err != nil {
				unix.Close(fd)
				if errors.Is(err, unix.EAGAIN) {
					return nil
				}
				return err
			}
			// Left open: it waits in the queue until the test's process ends.
		}
		return errors.New("the queue takes everybody")
	})
}

// silentHolder binds the lock's name in a host and does not listen.
func silentHolder(t *testing.T, h *netlab.Host) {
	t.Helper()
	must(t, h.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		return unix.Bind(fd, &unix.SockaddrUnix{Name: networkLock})
	}))
}

// Any user may bind an abstract name, and listen or not, and take connections or not.
func TestAUserWhoIsNoRouterKeepsNoneFromStarting(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 3})
	routers := map[string]*lone{}
	for i, how := range []string{"listens", "is busy", "is silent"} {
		h := lab.Host(i)
		if how == "is silent" {
			silentHolder(t, h)
		} else {
			l, err := bindAs(h, 65534)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
				t.Skipf("here is no other user than root: %v", err)
			}
			must(t, err)
			defer l.Close()
			if how == "is busy" {
				must(t, full(h, l))
			}
		}
		routers[how] = startOn(t, h, func(*Config) {})
	}
	for how, r := range routers {
		r.until("it is ready where a stranger "+how, ready)
		if !strings.Contains(r.Log(), "one who is no router holds the lock") {
			t.Errorf("where a stranger %s it does not say so", how)
		}
	}
}

func TestAHolderThatCannotBeAskedMayHaveJustEnded(t *testing.T) {
	root, unknown := holder{known: true}, holder{}
	for what, c := range map[string]struct {
		freed time.Duration // from the first question
		asked []holder
		want  error
	}{
		"it has just ended":          {0, []holder{unknown}, nil},
		"it had not begun to listen": {time.Hour, []holder{unknown, root}, syscall.EADDRINUSE},
		"it is silent":               {time.Hour, []holder{unknown, unknown}, syscall.EADDRINUSE},
		"it is a router":             {time.Hour, []holder{root}, syscall.EADDRINUSE},
		"it ends while it is waited": {lockEvery, []holder{unknown}, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			var first time.Time
			asked := 0
			h, err := takeName(t.Context(), func() error {
				if !first.IsZero() && time.Since(first) >= c.freed {
					return nil
				}
				return syscall.EADDRINUSE
			}, func() holder {
				if first.IsZero() {
					first = time.Now()
				}
				asked++
				return c.asked[asked-1]
			})
			if last := c.asked[len(c.asked)-1]; err != c.want || asked != len(c.asked) || h != last {
				t.Errorf("%s: %+v, %v, asked %d times", what, h, err, asked)
			}
		})
	}
}
