package conflist

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestInstallWritesOnceAndLeavesNothingBeside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cni", "net.d")
	text := []byte("{}\n")
	for i, want := range []bool{true, false} {
		changed, err := Install(dir, "10-weave.conflist", text)
		if err != nil || changed != want {
			t.Fatalf("time %d: changed %v, %v", i+1, changed, err)
		}
	}
	if changed, err := Install(dir, "10-weave.conflist", []byte("{ }\n")); !changed || err != nil {
		t.Errorf("another text: changed %v, %v", changed, err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 || entries[0].Name() != "10-weave.conflist" {
		t.Errorf("left behind: %v", entries)
	}
	if st, err := os.Stat(filepath.Join(dir, "10-weave.conflist")); err != nil || st.Mode() != 0o644 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestInstallIntoWhatIsNoDirectoryFailsAndSaysWhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(file, "10-weave.conflist", nil); err == nil || !bytes.Contains([]byte(err.Error()), []byte(file)) {
		t.Errorf("got %v", err)
	}
}

// containerd watches the directory and passes over CREATE and CHMOD. What is
// left must come, and come when the list is complete in its place.
func TestInstallIsSeenByAWatcherThatIgnoresCreate(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_FROM); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(dir, "10-weave.conflist", []byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	var fds = []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, int(30*time.Second/time.Millisecond)); n != 1 {
		t.Fatalf("no event: %v", err)
	}
	buf := make([]byte, 4096)
	n, err := watch.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var renamed bool
	for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		renamed = renamed || binary.NativeEndian.Uint32(b[4:])&unix.IN_MOVED_FROM != 0
		b = b[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(b[12:]):]
	}
	if !renamed {
		t.Error("the rename was not seen")
	}
}
