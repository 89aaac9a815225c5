package attach

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// mountNS makes a network namespace that only the mount at path holds.
func mountNS(t *testing.T, path string) {
	t.Helper()
	if err := onItsOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
}

// onItsOwnThread runs f on a thread that ends with it. The process's first one cannot end:
// with it in another namespace /proc/self would be no more the host's for any later test.
func onItsOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onItsOwnThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

func TestANamespaceWithTheNumberOfOneThatIsGoneIsAnotherLife(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: wants root, for network namespaces of its own")
	}
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mountNS(t, path)
	c := runtimes.Container{Runtime: runtimes.NamePath, NetNS: path, State: runtimes.Running}
	first, err := lifeOf(c)
	if err != nil {
		t.Fatal(err)
	}
	if !(Intent{Life: first}).lives() {
		t.Error("it does not live while it is there")
	}
	second := first
	for second.Made == first.Made { // the clock of inodes has ticks of some ms
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		mountNS(t, path)
		if second, err = lifeOf(c); err != nil {
			t.Fatal(err)
		}
	}
	first.NetNS = second.NetNS // the kernel gives numbers again, and not at a test's wish
	if (Intent{Life: first}).lives() {
		t.Error("the second is taken for the first")
	}
}
