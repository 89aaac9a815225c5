package netdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyANetworkNamespaceIsTakenForOne(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		"":                             ErrNSGone,
		"/run/netns/there is no such":  ErrNSGone,
		file + "/below":                ErrNSGone,
		"/proc/4194304999/ns/net":      ErrNSGone,
		file:                           ErrNotNS,
		fifo:                           ErrNotNS, // and it does not hang
		dir:                            ErrNotNS,
		"/dev/null":                    ErrNotNS,
		"/proc/thread-self/ns/mnt":     ErrNotNS,
		"/proc/thread-self/ns/user":    ErrNotNS,
		"/proc/thread-self/ns/net":     nil,
		"/proc/self/task/../ns/net":    nil,
		"/proc/thread-self/ns/net\x00": nil,
	} {
		ns, err := OpenNS(path)
		if path[max(0, len(path)-1):] == "\x00" {
			if err == nil {
				t.Errorf("%q was opened", path)
			}
			continue
		}
		if !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", path, err, want)
		}
		if err == nil {
			ns.Close()
			ns.Close()
		}
	}
}

func TestOwnNamespaceIsRecognisedByWhateverPath(t *testing.T) {
	ns, err := OpenNS(fmt.Sprintf("/proc/%d/ns/net", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if !ns.IsOwn() || !ns.ID().Known() {
		t.Errorf("own namespace not recognised: %+v", ns.ID())
	}
	s := newSpace(t)
	if s.IsOwn() || s.ID() == ns.ID() {
		t.Error("another namespace is taken for the own")
	}
	s.in(func() error {
		if !s.IsOwn() {
			t.Error("inside it, it is the own")
		}
		return nil
	})
}

func TestASocketOnceOpenedSpeaksToItsNamespaceFromOutside(t *testing.T) {
	s := newSpace(t)
	s.must("ip link add inside type bridge")
	c, err := s.conn()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.index("inside"); err != nil {
		t.Error(err)
	}
	if err := writeSysctl(s.conf6, "inside/accept_ra", "2"); err != nil {
		t.Error(err)
	}
	if out := s.must("sysctl -n net.ipv6.conf.inside.accept_ra"); out != "2\n" {
		t.Errorf("sysctl went elsewhere: %q", out)
	}
}
