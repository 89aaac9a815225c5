package ctl

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestTheRoutersProcessIsKnownAlsoWhereItAnswersNothing(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	c := New(socket, 0)
	if pid, err := c.PID(t.Context()); pid != 0 || !NotSent(err) {
		t.Errorf("nobody listens: %d, %v", pid, err)
	}
	l, err := net.Listen("unix", socket) // and nobody takes calls
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if pid, err := c.PID(t.Context()); pid != os.Getpid() || err != nil {
		t.Errorf("got %d, %v, want %d", pid, err, os.Getpid())
	}
}
