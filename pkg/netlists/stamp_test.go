package netlists

import (
	"os"
	"path/filepath"
	"testing"
	"time"
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
