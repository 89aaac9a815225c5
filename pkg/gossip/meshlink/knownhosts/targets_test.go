package knownhosts

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNamedPeersAreKeptUntilTheyAreTakenAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers")
	if got, err := LoadTargets(path); err != nil || got != nil {
		t.Errorf("of no file: %v, %v", got, err)
	}
	for _, want := range [][]string{{"host-b:6783", "[2001:db8::1]:7000"}, {"host-c:6783"}, nil, nil} {
		if err := SaveTargets(path, want); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadTargets(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("none are named, and the file is there")
	}
}

func TestAFileOfPeersThatOthersMayWriteIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers")
	if err := SaveTargets(path, []string{"a:1"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTargets(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("got %v", err)
	}
}

func FuzzLoadTargets(f *testing.F) {
	f.Add([]byte(`{"peers": ["host-b:6783"]}`))
	f.Add([]byte(`{"peers": [1]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if peers, err := decodeTargets(b); err == nil && len(peers) > MaxHosts {
			t.Errorf("%d peers", len(peers))
		}
	})
}
