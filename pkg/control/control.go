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
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Limits of one connection. A plugin makes one call and goes.
const (
	readHeaderTimeout = 2 * time.Second
	readTimeout       = 5 * time.Second
	writeTimeout      = 30 * time.Second
	callTimeout       = 27 * time.Second // what a call's context has: it ends while its answer still arrives
	idleTimeout       = 30 * time.Second
	maxHeader         = 8 << 10
	maxInFlight       = 1024 // calls; a bridge takes 1023 ports
	shutdownTimeout   = 3 * time.Second
)

// Server serves the calls that Handle gave it.
type Server struct {
	log      *slog.Logger
	mux      *http.ServeMux
	methods  map[string]string // by path
	inFlight chan struct{}
	shed     atomic.Uint64
	watch    Watcher
}

// Call is one call, as a Watcher sees it.
type Call struct {
	Path    string // one of those that Handle was given
	In      any    // the request; nil for a GET, and where it could not be read
	TraceID string // of the trace that the runtime began, 32 hexadecimal digits; "" for none
}

// Watcher sees every call begin, and may put something into its context; what it
// returns sees it end, also when it panics. It must not block.
type Watcher func(ctx context.Context, c Call) (context.Context, func(out any, err error))

// New returns a server without calls.
func New(log *slog.Logger) *Server {
	return &Server{log: log, mux: http.NewServeMux(), methods: map[string]string{}, inFlight: make(chan struct{}, maxInFlight), watch: unwatched}
}

func unwatched(ctx context.Context, _ Call) (context.Context, func(any, error)) {
	return ctx, func(any, error) {}
}

// Watch has w see every call from now on; before Serve only.
func (s *Server) Watch(w Watcher) { s.watch = w }

// Load is how many calls are in hand, and how many were turned away because there were
// too many.
func (s *Server) Load() (inHand int, shed uint64) { return len(s.inFlight), s.shed.Load() }

// Handle serves POST of In at path with Out. An error that is, or wraps, a
// *ctl.Error goes to the caller as it is, any other with ctl.CodeInternal.
func Handle[In, Out any](s *Server, path string, fn func(context.Context, In) (Out, error)) {
	s.methods[path] = http.MethodPost
	s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		var in In
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, ctl.MaxRequest))
		if err == nil {
			err = json.Unmarshal(body, &in)
		}
		if err != nil {
			err = ctl.Errorf(ctl.CodeInvalidConfig, "read request to %s: %s", path, unread(err))
			_, ended := s.watch(r.Context(), Call{Path: path, TraceID: traceID(r)})
			ended(nil, err)
			reply(w, nil, err)
			return
		}
		out, err := watched(s, r, Call{path, in, traceID(r)}, func(ctx context.Context) (Out, error) { return fn(ctx, in) })
		s.note(r, err)
		reply(w, out, err)
	})
}

// unread says why a request cannot be read, without the names of Go's types.
func unread(err error) string {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return fmt.Sprintf("want a JSON object, not a JSON %s", wrong.Value)
	case errors.As(err, &wrong):
		return fmt.Sprintf("key %q: a JSON %s does not do there", wrong.Field, wrong.Value)
	}
	return err.Error()
}

// HandleGet serves GET at path with Out.
func HandleGet[Out any](s *Server, path string, fn func(context.Context) (Out, error)) {
	s.methods[path] = http.MethodGet
	s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		out, err := watched(s, r, Call{Path: path, TraceID: traceID(r)}, fn)
		reply(w, out, err)
	})
}

// errPanicked is how a call ended that did not end: its Watcher hears of it.
var errPanicked = ctl.Errorf(ctl.CodeInternal, "it panicked")

func watched[Out any](s *Server, r *http.Request, c Call, fn func(context.Context) (Out, error)) (out Out, err error) {
	bounded, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	ctx, ended := s.watch(bounded, c)
	err = errPanicked
	defer func() { ended(out, err) }()
	out, err = fn(ctx)
	return out, err
}

// traceID is that of a traceparent, as W3C's Trace Context has it: "00-" and 32
// hexadecimal digits, not all of them 0, "-", the span's 16, "-" and two of flags.
func traceID(r *http.Request) string {
	t := r.Header.Get("Traceparent")
	if len(t) != 55 || t[2] != '-' || t[35] != '-' || t[52] != '-' {
		return ""
	}
	id := t[3:35]
	if strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
		return ""
	}
	return id
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
	replyWith(w, http.StatusUnprocessableEntity, out, err)
}

// replyWith answers an error with that status.
func replyWith(w http.ResponseWriter, status int, out any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var coded *ctl.Error
		if !errors.As(err, &coded) {
			coded = ctl.Errorf(ctl.CodeInternal, "%v", err)
		}
		w.WriteHeader(status)
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
		s.shed.Add(1)
		reply(w, nil, ctl.Errorf(ctl.CodeTryAgain, "the weave router has %d calls in hand", maxInFlight))
		return
	}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("call panicked", "call", r.URL.Path, "panic", p)
			reply(w, nil, ctl.Errorf(ctl.CodeInternal, "the weave router failed in %s: %v", r.URL.Path, p))
		}
	}()
	switch method, known := s.methods[r.URL.Path]; {
	case !known:
		replyWith(w, http.StatusNotFound, nil, ctl.Errorf(ctl.CodeInvalidConfig, "there is no call %.80q here (404): it is misspelt, or this weave is older than the caller", r.URL.Path))
	case method != r.Method:
		w.Header().Set("Allow", method)
		replyWith(w, http.StatusMethodNotAllowed, nil, ctl.Errorf(ctl.CodeInvalidConfig, "%s takes %s, not %.20q (405)", r.URL.Path, method, r.Method))
	default:
		s.mux.ServeHTTP(w, r)
	}
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
	path string // "": somebody else's, who removes it
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
	if g.path != "" {
		_ = os.Remove(g.path) // so that callers see at once that nobody is there
	}
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
