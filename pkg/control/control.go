// Package control serves the router's local API: JSON over HTTP on a unix
// socket that only root, or the router's own user, may open. It knows nothing of
// what the calls do; the router registers them.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Limits of one connection. A plugin makes one call and goes.
const (
	readHeaderTimeout = 2 * time.Second
	readTimeout       = 5 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 30 * time.Second
	maxHeader         = 8 << 10
	maxInFlight       = 1024 // calls; a bridge takes 1023 ports
	shutdownTimeout   = 3 * time.Second
)

// Server serves the calls that Handle gave it.
type Server struct {
	log      *slog.Logger
	mux      *http.ServeMux
	inFlight chan struct{}
}

// New returns a server without calls.
func New(log *slog.Logger) *Server {
	return &Server{log: log, mux: http.NewServeMux(), inFlight: make(chan struct{}, maxInFlight)}
}

// Handle serves POST of In at path with Out. An error that is, or wraps, a
// *ctl.Error goes to the caller as it is, any other with ctl.CodeInternal.
func Handle[In, Out any](s *Server, path string, fn func(context.Context, In) (Out, error)) {
	s.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in In
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, ctl.MaxRequest))
		if err == nil {
			err = json.Unmarshal(body, &in)
		}
		if err != nil {
			reply(w, nil, ctl.Errorf(ctl.CodeInvalidConfig, "read request to %s: %v", path, err))
			return
		}
		out, err := fn(r.Context(), in)
		s.note(r, err)
		reply(w, out, err)
	})
}

// HandleGet serves GET at path with Out.
func HandleGet[Out any](s *Server, path string, fn func(context.Context) (Out, error)) {
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		out, err := fn(r.Context())
		reply(w, out, err)
	})
}

// note logs a call: a failed one for the operator, any for whoever looks into a
// trace that the runtime began.
func (s *Server) note(r *http.Request, err error) {
	level := slog.LevelDebug
	if err != nil {
		level = slog.LevelInfo
	}
	s.log.Log(r.Context(), level, "call", "path", r.URL.Path, "trace", r.Header.Get("Traceparent"), "error", err)
}

func reply(w http.ResponseWriter, out any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var coded *ctl.Error
		if !errors.As(err, &coded) {
			coded = ctl.Errorf(ctl.CodeInternal, "%v", err)
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		out = coded
	}
	_ = json.NewEncoder(w).Encode(out) // the caller has gone: nobody is left to tell
}

// ServeHTTP bounds the calls in flight and turns a panic into an error of that one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case s.inFlight <- struct{}{}:
		defer func() { <-s.inFlight }()
	default:
		reply(w, nil, ctl.Errorf(ctl.CodeTryAgain, "the weave router has %d calls in hand", maxInFlight))
		return
	}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("call panicked", "call", r.URL.Path, "panic", p)
			reply(w, nil, ctl.Errorf(ctl.CodeInternal, "the weave router failed in %s: %v", r.URL.Path, p))
		}
	}()
	s.mux.ServeHTTP(w, r)
}

// Serve answers on a listener from Listen until ctx ends, then lets calls in hand finish.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if h.Shutdown(grace) != nil {
		h.Close()
	}
	<-failed
	return nil
}

// Listen opens the socket, 0600 in a directory made 0700, in the place of one
// that a dead router left. The caller makes sure (by a lock) that none lives.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	// Bound under another name and renamed, so that a plugin finds the old
	// socket, which refuses, or the new one, which answers; never none.
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, path)); err != nil {
		l.Close()
		return nil, fmt.Errorf("put control socket in place: %w", err)
	}
	return &guarded{l, path}, nil
}

// guarded accepts connections of root and of the router's own user only, and
// removes the socket when it is closed.
type guarded struct {
	*net.UnixListener
	path string
}

func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		c.Close()
	}
}

func (g *guarded) Close() error {
	_ = os.Remove(g.path) // so that callers see at once that nobody is there
	return g.UnixListener.Close()
}

func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
