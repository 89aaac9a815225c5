package router

import (
	"errors"
	"net"
	"strings"
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

func TestAUserWhoIsNoRouterKeepsNoneFromStarting(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	l, err := bindAs(h, 65534)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		t.Skipf("here is no other user than root: %v", err)
	}
	must(t, err)
	defer l.Close()
	r := startOn(t, h, func(*Config) {})
	r.until("it is ready", ready)
	if !strings.Contains(r.Log(), "a user who is no router holds the lock") {
		t.Error("it does not say so")
	}
}
