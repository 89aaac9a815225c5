package router

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// mute takes calls and answers none: it calls took (nil: it breaks the connection off).
func mute(t *testing.T, took func()) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "weave") // t.TempDir can be longer than a socket's path may
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "attach.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var open []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1))
			if took == nil {
				c.Close()
				continue
			}
			open = append(open, c)
			took()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, c := range open {
			c.Close()
		}
		os.RemoveAll(dir)
	})
	return socket
}

// works says that it is there, and then takes calls and answers none: it calls took.
func works(t *testing.T, took func()) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "weave")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "attach.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ctl.PathReady, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}")) })
	mux.HandleFunc("POST /", func(_ http.ResponseWriter, r *http.Request) { took(); <-r.Context().Done() })
	srv := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done; os.RemoveAll(dir) })
	return socket
}

func TestAttachdIsToBeStartedOnlyWhereNobodyTookTheCall(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, c := range []struct {
		name, socket, want string
		ctx                context.Context
		code               uint
	}{
		{"nobody listens", filepath.Join(t.TempDir(), "none"), "start it with: weave attachd", t.Context(), ctl.CodeNotAvailable},
		{"it breaks off", mute(t, nil), "it may have been done", t.Context(), ctl.CodeTryAgain},
		{"it hangs", mute(t, func() {}), "though it runs; nothing was done", t.Context(), ctl.CodeNotAvailable},
		{"it hangs over its work", works(t, cancel), "it may have been done", ended, ctl.CodeTryAgain},
	} {
		f := forward{c.socket, make(chan struct{}, 1)}
		err := f.passOn(c.ctx, ctl.PathNetAttach, ctl.AttachRequest{}, &ctl.Attached{})
		var coded *ctl.Error
		if !errors.As(err, &coded) || coded.Code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestCallsThatArePassedOnLeaveTheOthersTheirs(t *testing.T) {
	f := forward{mute(t, func() {}), make(chan struct{}, 1)}
	f.slots <- struct{}{}
	var coded *ctl.Error
	if err := f.passOn(t.Context(), ctl.PathNetAttach, ctl.AttachRequest{}, &ctl.Attached{}); !errors.As(err, &coded) || coded.Code != ctl.CodeTryAgain || !strings.Contains(err.Error(), "1 calls in hand") {
		t.Errorf("got %v", err)
	}
}
