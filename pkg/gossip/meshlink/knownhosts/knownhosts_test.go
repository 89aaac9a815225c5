package knownhosts

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

var day0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func host(name string, seen time.Time, addrs ...string) Host {
	h := Host{Name: gossip.Peer(name), Member: 7, Seen: seen}
	for _, a := range addrs {
		h.Addrs = append(h.Addrs, netip.MustParseAddrPort(a))
	}
	return h
}

func nobody(Host) bool { return false }

func names(hosts []Host) (s string) {
	for _, h := range hosts {
		s += string(h.Name) + " "
	}
	return strings.TrimSpace(s)
}

func TestWhatIsSavedIsLoadedAndIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known-hosts")
	if got, err := Load(path); err != nil || got != nil {
		t.Errorf("without a file: %v, %v", got, err)
	}
	want := []Host{host("b", day0.Add(time.Hour), "192.0.2.2:6783", "[2001:db8::2]:6783"), host("a", day0, "192.0.2.1:7000")}
	for range 2 {
		if err := Save(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(path)
	if err != nil || !Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || len(entries) != 1 {
		t.Errorf("%v, %v, %d files", info.Mode(), err, len(entries))
	}
	big := make([]Host, MaxHosts)
	for i := range big {
		name := fmt.Sprintf("%064d", i)
		big[i] = host(name, day0, "[2001:db8:1111:2222:3333:4444:5555:6661]:65535", "[2001:db8:1111:2222:3333:4444:5555:6662]:65535",
			"[2001:db8:1111:2222:3333:4444:5555:6663]:65535", "[2001:db8:1111:2222:3333:4444:5555:6664]:65535")
	}
	if err := Save(path, big); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path); err != nil || len(got) != MaxHosts {
		t.Errorf("the largest file: %d hosts, %v", len(got), err)
	}
}

func TestAFileThatOthersMayWriteOrThatIsDamagedIsRefused(t *testing.T) {
	dir := t.TempDir()
	for what, write := range map[string]func(path string) error{
		"writable":  func(p string) error { return os.WriteFile(p, []byte(`{}`), 0o600) },
		"damaged":   func(p string) error { return os.WriteFile(p, []byte(`{"hosts":[{"name":`), 0o600) },
		"too large": func(p string) error { return os.WriteFile(p, make([]byte, maxFile+1), 0o600) },
		"a link":    func(p string) error { return os.Symlink("/etc/passwd", p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		path := filepath.Join(dir, what)
		if err := write(path); err != nil {
			t.Fatal(err)
		}
		if what == "writable" {
			if err := os.Chmod(path, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := Load(path); err == nil || got != nil {
			t.Errorf("%s: got %v, %v", what, got, err)
		}
	}
}

func TestOnlyWhatCanBeCalledIsKept(t *testing.T) {
	got := tidy([]Host{
		host("a", day0, "0.0.0.0:1", "127.0.0.1:1", "224.0.0.1:1", "192.0.2.1:0", "[fe80::1%eth0]:1", "[::ffff:192.0.2.1]:6783"),
		host("a", day0.Add(time.Hour), "192.0.2.9:1"), // a second one of that name
		host("none", day0, "127.0.0.1:1"),
		host("no/name", day0, "192.0.2.1:1"), host("", day0, "192.0.2.1:1"),
		{Name: "empty"}, {Name: "zero", Addrs: make([]netip.AddrPort, 9)},
	})
	if len(got) != 1 || fmt.Sprint(got[0].Addrs) != "[192.0.2.1:6783]" {
		t.Errorf("got %v", got)
	}
}

func TestHostsAreForgottenThatLeftOrWereNotSeenWhileOthersWere(t *testing.T) {
	before := []Host{host("b", day0, "192.0.2.2:1"), host("c", day0, "192.0.2.3:1"), host("left", day0, "192.0.2.4:1")}
	gone := func(h Host) bool { return h.Name == "left" }
	soon := Merge(before, []Host{host("b", day0.Add(time.Minute), "192.0.2.2:1")}, gone)
	if names(soon) != "b c" || !Equal(soon, before[:2]) {
		t.Errorf("a minute later the file changes: %v", soon)
	}
	if moved := Merge(before, []Host{host("b", day0.Add(time.Minute), "192.0.2.22:1")}, nobody); Equal(moved, before) || moved[0].Addrs[0].String() != "192.0.2.22:1" {
		t.Errorf("a new address is not kept: %v", moved)
	}
	if late := Merge(before, []Host{host("b", day0.Add(keepFor+time.Hour), "192.0.2.2:1")}, nobody); names(late) != "b" {
		t.Errorf("after a month with b alone: %v", late)
	}
	// A cluster that was off for a year: nobody was seen later than the others.
	if off := Merge(before, nil, nobody); len(off) != 3 {
		t.Errorf("after a year off: %v", off)
	}
	var many []Host
	for i := range 10 * MaxHosts {
		many = append(many, host(fmt.Sprint("h", i), day0.Add(time.Duration(i)*time.Minute), "192.0.2.1:1"))
	}
	if got := Merge(before, many, nobody); len(got) != MaxHosts || got[0].Name != "h639" {
		t.Errorf("of many %d are kept, the first %v", len(got), got[0])
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"hosts":[{"name":"a","member":1,"addresses":["192.0.2.1:6783"],"seen":"2026-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		hosts, err := decode(b)
		if err != nil {
			return
		}
		if len(hosts) > MaxHosts {
			t.Fatal("too many hosts")
		}
		if got := Merge(hosts, nil, nobody); !Equal(got, hosts) {
			t.Fatalf("%v is not stable: %v", hosts, got)
		}
	})
}
