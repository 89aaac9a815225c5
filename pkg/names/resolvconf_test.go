package names

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// longAgo is before the clock of any synctest bubble.
var longAgo = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)

// writeConf writes a resolv.conf with one server, in place, with that time of change.
func writeConf(t *testing.T, file, server string, changed time.Time) {
	t.Helper()
	if err := os.WriteFile(file, []byte("nameserver "+server+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, changed, changed); err != nil {
		t.Fatal(err)
	}
}

func TestResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# comment\nsearch example.com\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver 2001:db8::1\noptions ndots:2\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{"192.0.2.1:53", "[fe80::1%eth0]:53", "[2001:db8::1]:53"}
	conf := NewResolvConf(file, "")
	for range 2 {
		got := conf.Upstreams()
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		clear(got) // it is ours
	}
	if got := NewResolvConf(file+".none", "").Upstreams(); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestAResolvConfIsReadAgainOnlyWhenItHasChanged(t *testing.T) {
	const old, fresh = "192.0.2.1", "192.0.2.2" // of one length
	for name, c := range map[string]struct {
		change func(t *testing.T, file string)
		want   []string
	}{
		"no sign of a change": {func(t *testing.T, file string) { writeConf(t, file, fresh, longAgo) }, []string{old + ":53"}},
		"its time":            {func(t *testing.T, file string) { writeConf(t, file, fresh, longAgo.Add(time.Nanosecond)) }, []string{fresh + ":53"}},
		"its size":            {func(t *testing.T, file string) { writeConf(t, file, fresh+"2", longAgo) }, []string{fresh + "2:53"}},
		"another file": {func(t *testing.T, file string) {
			writeConf(t, file+".new", fresh, longAgo)
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		}, []string{fresh + ":53"}},
		"no file": {func(t *testing.T, file string) { os.Remove(file) }, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "resolv.conf")
			writeConf(t, file, old, longAgo)
			conf := NewResolvConf(file, "")
			conf.Upstreams()
			time.Sleep(resolvConfCheck) // of the bubble
			conf.Upstreams()
			c.change(t, file)
			if got := conf.Upstreams(); !slices.Equal(got, []string{old + ":53"}) {
				t.Errorf("%s: %v: looked at twice within a second", name, got)
			}
			time.Sleep(resolvConfCheck)
			if got := conf.Upstreams(); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
			writeConf(t, file, "2001:db8::1", longAgo)
			time.Sleep(resolvConfCheck)
			if got := conf.Upstreams(); !slices.Equal(got, []string{"[2001:db8::1]:53"}) {
				t.Errorf("%s: then %v", name, got)
			}
		})
	}
}

func TestAResolvConfThatHasJustChangedIsReadOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		changed := time.Now()
		writeConf(t, file, "192.0.2.1", changed)
		conf := NewResolvConf(file, "")
		conf.Upstreams()
		writeConf(t, file, "192.0.2.2", changed) // within the same step of the file system's clock
		time.Sleep(resolvConfCheck)
		if got := conf.Upstreams(); !slices.Equal(got, []string{"192.0.2.2:53"}) {
			t.Errorf("got %v", got)
		}
	})
}

// It is truncated and written by some, and replaced by others.
func TestAResolvConfThatIsBeingWrittenCostsNoQueryItsServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		writeConf(t, file, "192.0.2.1", longAgo)
		conf := NewResolvConf(file, "")
		conf.Upstreams()
		if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil { // reading it fails, and not since it is not there
			t.Fatal(err)
		}
		time.Sleep(resolvConfCheck)
		if got := conf.Upstreams(); !slices.Equal(got, []string{"192.0.2.1:53"}) {
			t.Errorf("while it cannot be read: %v", got)
		}
		if err := errors.Join(os.Remove(file), os.WriteFile(file, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(resolvConfCheck)
		if got := conf.Upstreams(); len(got) != 0 {
			t.Errorf("while it is empty: %v", got)
		}
		writeConf(t, file, "192.0.2.2", longAgo)
		if got := conf.Upstreams(); !slices.Equal(got, []string{"192.0.2.2:53"}) {
			t.Errorf("a moment later: %v", got)
		}
	})
}

func TestTheStubOfSystemdResolvedIsSeenThrough(t *testing.T) {
	for name, c := range map[string]struct{ file, behind, want string }{
		"the stub":                {"127.0.0.53", "192.0.2.1", "192.0.2.1:53"},
		"its other address":       {"127.0.0.54", "192.0.2.1", "192.0.2.1:53"},
		"another local server":    {"127.0.0.1", "192.0.2.1", "127.0.0.1:53"},
		"another server":          {"192.0.2.2", "192.0.2.1", "192.0.2.2:53"},
		"the stub and another":    {"127.0.0.53\nnameserver 192.0.2.2", "192.0.2.1", "127.0.0.53:53 192.0.2.2:53"},
		"the stub, nothing known": {"127.0.0.53", "", "127.0.0.53:53"},
	} {
		dir := t.TempDir()
		file, behind := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "behind")
		writeConf(t, file, c.file, longAgo)
		if c.behind != "" {
			writeConf(t, behind, c.behind, longAgo)
		}
		if got := strings.Join(NewResolvConf(file, behind).Upstreams(), " "); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
