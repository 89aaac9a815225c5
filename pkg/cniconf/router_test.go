package cniconf

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// serve answers at a socket until the test ends or stop is called.
func serve(t *testing.T, socket string, h http.HandlerFunc) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	stop = func() { s.Close(); <-done }
	t.Cleanup(stop)
	return stop
}

func ready(answer ctl.Ready) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(answer) }
}

func TestStatusHandsOnWhatTheRouterSays(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stop := serve(t, socket, ready(ctl.Ready{}))
	if err := NewImpatientRouter(socket).Ready(t.Context()); err != nil {
		t.Errorf("ready: got %v", err)
	}
	stop()
	for _, want := range []uint{ctl.CodeNotAvailable, ctl.CodeDegraded} {
		stop := serve(t, socket, ready(ctl.Ready{Error: ctl.Errorf(want, "x")}))
		if err := NewImpatientRouter(socket).Ready(t.Context()); Coded(err).Code != want {
			t.Errorf("got %v, want code %d", err, want)
		}
		stop()
	}
}

func TestStatusForgivesARouterThatHasJustGone(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	r := NewImpatientRouter(socket)
	age := func(of string, d time.Duration) {
		t.Helper()
		at := time.Now().Add(-d)
		if err := os.Chtimes(of, at, at); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	// The directory is new: its socket was taken away a moment ago.
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("just gone: %v", err)
	}
	age(dir, 3*time.Second)
	if err := r.Ready(t.Context()); Coded(err).Code != ctl.CodeNotAvailable {
		t.Errorf("gone for 3 s: got %v, want code 50", err)
	}
	age(dir, -time.Hour)
	if err := r.Ready(t.Context()); Coded(err).Code != ctl.CodeNotAvailable {
		t.Errorf("clock set back: got %v, want code 50", err)
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // left by a router that was killed
		t.Fatal(err)
	}
	age(dir, 3*time.Second)
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("touched a moment ago: %v", err)
	}
	age(socket, 3*time.Second)
	age(dir, 3*time.Second)
	if err := r.Ready(t.Context()); Coded(err).Code != ctl.CodeNotAvailable {
		t.Errorf("untouched for 3 s: got %v, want code 50", err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("five answers took %v: STATUS waited", d)
	}
	if err := NewImpatientRouter("/nowhere/at/all/s").Ready(t.Context()); Coded(err).Code != ctl.CodeNotAvailable {
		t.Errorf("no directory: got %v, want code 50", err)
	}
}

func TestARouterThatIsRestartedCostsACallNoError(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	var calls atomic.Int32
	down := make(chan struct{})
	stop := serve(t, socket, func(http.ResponseWriter, *http.Request) {
		calls.Add(1)
		close(down)
		panic(http.ErrAbortHandler) // the connection breaks off without an answer
	})
	up := make(chan struct{})
	go func() {
		defer close(up)
		<-down
		stop()
		serve(t, socket, ready(ctl.Ready{}))
	}()
	if err := NewRouter(socket).Call(t.Context(), "/x", ctl.KeyRequest{}, nil); err != nil {
		t.Errorf("got %v after %d calls", err, calls.Load())
	}
	<-up
}

func TestAMissingRouterIsCode11AfterTwoSecondsAndAtOnceForDEL(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	begin := time.Now()
	err := NewImpatientRouter(socket).Call(t.Context(), "/x", ctl.KeyRequest{}, nil)
	if d := time.Since(begin); Coded(err).Code != ctl.CodeTryAgain || !Gone(err) || d > time.Second {
		t.Errorf("impatient: got %v after %v", err, d)
	}
	begin = time.Now()
	err = NewRouter(socket).Call(t.Context(), "/x", ctl.KeyRequest{}, nil)
	if d := time.Since(begin); Coded(err).Code != ctl.CodeTryAgain || !Gone(err) || d < 1900*time.Millisecond || d > 3*time.Second {
		t.Errorf("patient: got %v after %v", err, d)
	}
}

func TestASilentRouterIsNotGone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	release := make(chan struct{})
	serve(t, socket, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := NewImpatientRouter(socket).Call(ctx, "/x", ctl.KeyRequest{}, nil); Coded(err).Code != ctl.CodeTryAgain || Gone(err) {
		t.Errorf("got %v, gone %v", err, Gone(err))
	}
}
