package netdev

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// hold is Hold in a namespace. What it gives ends with the test.
func (s space) hold(name string) (h *Held, err error) {
	s.t.Helper()
	s.in(func() error { h, err = Hold(name); return nil })
	if h != nil {
		s.t.Cleanup(h.Release)
	}
	return h, err
}

func TestANameIsHeldByOneAtATimeInEachNamespace(t *testing.T) {
	s, other := newSpace(t), newSpace(t)
	first, err := s.hold("vethx")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.hold("vethx"); !errors.Is(err, ErrHeld) {
		t.Errorf("held twice: %v", err)
	}
	if _, err := s.hold("vethy"); err != nil {
		t.Errorf("another name: %v", err)
	}
	if _, err := other.hold("vethx"); err != nil {
		t.Errorf("another namespace: %v", err)
	}
	first.Release()
	first.Release()
	if _, err := s.hold("vethx"); err != nil {
		t.Errorf("after the release: %v", err)
	}
}

func TestOfManyParallelHoldersOneGetsTheName(t *testing.T) {
	s := newSpace(t)
	for range 50 {
		var wg sync.WaitGroup
		held := make([]*Held, 8)
		for i := range held {
			wg.Go(func() {
				err := s.do(func() (err error) { held[i], err = Hold("vethx"); return err })
				if err != nil && !errors.Is(err, ErrHeld) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := 0
		for _, h := range held {
			if h != nil {
				n++
				h.Release()
			}
		}
		if n != 1 {
			t.Fatalf("%d hold one name", n)
		}
	}
}

// TestAStrangerWithTheNameHoldsNobodyUp: any user may bind an abstract socket, and listen or not.
func TestAStrangerWithTheNameHoldsNobodyUp(t *testing.T) {
	if os.Getenv("HOLD_AS_A_STRANGER") != "" {
		stranger()
	}
	for _, how := range []string{"listens", "is silent"} {
		t.Run(how, func(t *testing.T) {
			s := newSpace(t)
			cmd := exec.Command("/proc/self/exe", "-test.run", "^TestAStrangerWithTheNameHoldsNobodyUp$")
			cmd.Env = append(os.Environ(), "HOLD_AS_A_STRANGER="+how)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			s.in(cmd.Start)
			defer func() { in.Close(); _ = cmd.Wait() }()
			b := make([]byte, 64)
			if n, _ := out.Read(b); !strings.HasPrefix(string(b[:n]), "bound") {
				t.Fatalf("the stranger said %q", b[:n])
			}
			if _, err := s.hold("vethx"); err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

// stranger binds the name, says so, and ends with its stdin.
func stranger() {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: "@weave-cni/vethx"})
	}
	if err == nil && os.Getenv("HOLD_AS_A_STRANGER") == "listens" {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString("bound\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}
