package netlists

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAFileIsReadAgainUnlessItsStampTellsThatItIsAsItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	later := time.Now().Add(time.Hour)
	at := func(now time.Time) stamp {
		t.Helper()
		f, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return stampOf(f, now)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	if at(time.Now()) != (stamp{}) {
		t.Error("one that was written just now may be written again in the same moment")
	}
	was := at(later)
	if was == (stamp{}) || was != at(later) {
		t.Errorf("one that is as it was: %+v", was)
	}
	for what, change := range map[string]func(){
		"longer":    func() { write("longer") },
		"a link":    func() { os.Remove(path); os.Symlink("/dev/null", path) },
		"unread":    func() { os.Chmod(path, 0) },
		"backdated": func() { write("two"); os.Chtimes(path, was.written, was.written) },
	} {
		write("one")
		was := at(later)
		tick := time.Now()
		for now := tick; now.Sub(tick) < 20*time.Millisecond; now = time.Now() { // the kernel's clock goes in ticks
		}
		if change(); at(later) == was {
			t.Errorf("%s: the stamp is the same", what)
		}
		os.Remove(path)
	}
}

func TestAFileThatCouldNotBeReadIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.conflist")
	if err := os.WriteFile(path, []byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"weave-net"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // until its stamp tells
		if st, err := os.Lstat(path); err != nil || time.Now().After(end) {
			t.Fatal("its stamp never tells", err)
		} else if stampOf(st, time.Now()) != (stamp{}) {
			break
		}
	}
	var most unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &most); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: most.Max}); err != nil {
		t.Fatal(err)
	}
	f := read(dir, "x.conflist", file{})
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &most); err != nil {
		t.Fatal(err)
	}
	if f.err == "" {
		t.Fatal("it was read without a descriptor")
	}
	if f = read(dir, "x.conflist", f); f.err != "" {
		t.Errorf("still: %s", f.err)
	}
	if again := read(dir, "x.conflist", f); again.stamp == (stamp{}) {
		t.Error("one that was read is read again and again")
	}
}
