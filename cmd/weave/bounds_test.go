package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// hung is the socket of a router that is stopped: the kernel takes the connections, and
// nobody reads from them.
func hung(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// questions are the commands that only ask the router.
func questions() []string {
	return []string{
		"status", "status peers --json", "status ipam", "status dns", "status overlay", "ps", "report --json", "status topology", "top --once",
		"net list", "net inspect weave blue green", "trace", "trace web",
		"dns lookup web", "dns trace --for 1s web",
	}
}

// orders are those that have it do something.
func orders() []string {
	return []string{
		"rmpeer --destroyed host-b", "reset", "reset --stop", "connect host-b", "forget host-b",
		"net create blue", "net rm blue green", "net rm --force blue", "net label blue tier=db",
		"net plug web blue", "net unplug web blue",
		"dns add db 192.0.2.7", "dns remove db",
	}
}

func TestAHungRouterIsToldFromOneThatIsGone(t *testing.T) {
	socket := hung(t)
	for _, cmd := range append(questions(), orders()...) {
		t.Run(cmd, func(t *testing.T) {
			t.Parallel()
			code, out, errs := weave(t, false, nil, append(strings.Fields(cmd), "--socket", socket)...)
			if code != exitNoRouter || out != "" || !strings.Contains(errs, "does not answer at "+socket+", though it runs") ||
				!strings.Contains(errs, "systemctl restart weaver") {
				t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
			}
		})
	}
}

// Connections wait that nobody takes, as many as may: the kernel refuses the next one, as
// on a host that is far too busy.
func TestARouterWhoseCallersWaitIsToldFromOneThatIsGone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, &unix.SockaddrUnix{Name: socket}), unix.Listen(l, 0)); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	for _, cmd := range []string{"status", "trace", "dns trace --for 1s web"} {
		code, _, errs := weave(t, false, nil, append(strings.Fields(cmd), "--socket", socket)...)
		if code != exitNoRouter || !strings.Contains(errs, "though it runs") {
			t.Errorf("%s: exit %d, stderr %q", cmd, code, errs)
		}
	}
}

// What is given to the router is a question, which ends after answerIn: to one that does
// not answer that, no order goes, which may take doneIn. The time itself is not measured,
// where a machine may be ten times slower than any.
func TestNoOrderGoesToARouterThatHangs(t *testing.T) {
	reads := []string{"GET", "POST " + ctl.PathNetInspect + " ", "POST " + ctl.PathDNSTrace + " "}
	for _, cmd := range append(questions(), orders()...) {
		t.Run(cmd, func(t *testing.T) {
			t.Parallel()
			socket, heard := deaf(t)
			code, _, errs := weave(t, false, nil, append(strings.Fields(cmd), "--socket", socket)...)
			if code != exitNoRouter || !strings.Contains(errs, "though it runs") {
				t.Errorf("exit %d, stderr %q", code, errs)
			}
			all := heard()
			if len(all) != 1 {
				t.Errorf("asked %d times, each in vain: %q", len(all), all)
			}
			for _, line := range all {
				if !slices.ContainsFunc(reads, func(r string) bool { return strings.HasPrefix(line, r) }) {
					t.Errorf("got %q", line)
				}
			}
		})
	}
}

// deaf is the socket of a router that takes calls and answers none, with the first lines of
// those that it got.
func deaf(t *testing.T) (socket string, heard func() []string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			all = append(all, line)
			_, _ = io.Copy(io.Discard, c) // until the caller has had enough
			c.Close()
		}
	}()
	return l.Addr().String(), func() []string { l.Close(); <-done; return all }
}

func TestAnOrderIsNotRefusedForWhatTheRouterSaysOfItsReadiness(t *testing.T) {
	socket := router(t, ctl.Status{}) // answers no PathReady, as a router of another version may not
	_, _, errs := weave(t, false, nil, "reset", "--socket", socket)
	if !strings.Contains(errs, "404") || strings.Contains(errs, "does not answer") {
		t.Errorf("stderr %q", errs)
	}
}
