package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

func TestAHungRouterIsToldFromOneThatIsGone(t *testing.T) {
	socket := hung(t)
	for _, cmd := range []string{
		"status", "status peers --json", "ps", "report --json", "status topology", "top --once",
		"rmpeer --destroyed host-b", "reset", // orders ask first
	} {
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

// The time itself is not measured here, where a machine may be ten times slower than any:
// it is what every question is given.
func TestAQuestionIsGivenLessThanTwoSeconds(t *testing.T) {
	if answerIn+500*time.Millisecond > 2*time.Second {
		t.Errorf("%v, and the command has to start and to say so", answerIn)
	}
}

func TestAnOrderIsNotRefusedForWhatTheRouterSaysOfItsReadiness(t *testing.T) {
	socket := router(t, ctl.Status{}) // answers no PathReady, as a router of another version may not
	_, _, errs := weave(t, false, nil, "reset", "--socket", socket)
	if !strings.Contains(errs, "404") || strings.Contains(errs, "does not answer") {
		t.Errorf("stderr %q", errs)
	}
}
