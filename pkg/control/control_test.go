package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func serveWith(t *testing.T, change func(*Server)) *ctl.Client {
	t.Helper()
	c, _ := serve(t, change)
	return c
}

// serve runs a server with calls echo, fail and panic, and gives a client for it.
func serve(t *testing.T, changes ...func(*Server)) (*ctl.Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "weave.sock")
	s := New(slog.New(slog.NewTextHandler(io.Discard, nil)))
	Handle(s, "/v1/echo", func(_ context.Context, in ctl.NetworkRequest) (ctl.Network, error) {
		return ctl.Network{Name: in.Name}, nil
	})
	Handle(s, "/v1/fail", func(context.Context, ctl.NetworkRequest) (ctl.Network, error) {
		return ctl.Network{}, ctl.Errorf(ctl.CodeNetworkFull, "no address left")
	})
	Handle(s, "/v1/panic", func(context.Context, ctl.NetworkRequest) (ctl.Network, error) {
		panic("broken")
	})
	HandleGet(s, "/v1/get", func(context.Context) (ctl.Ready, error) { return ctl.Ready{}, nil })
	for _, change := range changes {
		change(s)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Error("the socket outlived the server")
		}
		goleak.VerifyNone(t, goleak.IgnoreCurrent())
	})
	return ctl.New(path, time.Second), path
}

func TestCallsAnswer(t *testing.T) {
	c, path := serve(t)
	var out ctl.Network
	if err := c.Call(t.Context(), "/v1/echo", ctl.NetworkRequest{Name: "weave"}, &out); err != nil || out.Name != "weave" {
		t.Errorf("got %+v, %v", out, err)
	}
	if err := c.Call(t.Context(), "/v1/get", nil, &ctl.Ready{}); err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", fi, err)
	}
	if fi, err := os.Stat(filepath.Dir(path)); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", fi, err)
	}
}

func TestErrorsKeepTheirCodes(t *testing.T) {
	c, _ := serve(t)
	for path, want := range map[string]uint{"/v1/fail": ctl.CodeNetworkFull, "/v1/panic": ctl.CodeInternal, "/v1/none": ctl.CodeInvalidConfig} {
		err := c.Call(t.Context(), path, ctl.NetworkRequest{}, nil)
		var coded *ctl.Error
		if !errors.As(err, &coded) || coded.Code != want {
			t.Errorf("%s: got %v, want code %d", path, err, want)
		}
	}
}

// Whoever tries a call by hand sees what is wrong, as an Error too.
func TestAMistakenRequestIsAnsweredInTheFormOfAllErrors(t *testing.T) {
	_, path := serve(t, func(s *Server) {
		Handle(s, "/v1/attach", func(_ context.Context, in ctl.AttachRequest) (struct{}, error) { return struct{}{}, in.Settle() })
	})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/none", "{}", 404, `no call "/v1/none"`},
		{"GET", "/v1/echo", "", 405, "takes POST"},
		{"POST", "/v1/get", "{}", 405, "takes GET"},
		{"POST", "/v1/echo", "[]", 422, "want a JSON object, not a JSON array"},
		{"POST", "/v1/echo", `{"name": 1}`, 422, `key "name": a JSON number does not do there`},
		{"POST", "/v1/attach", "[]", 422, "want a JSON object, not a JSON array"},
		{"POST", "/v1/attach", `{"Endpont": "blue"}`, 422, `no key "Endpont"`},
		{"POST", "/v1/attach", `{"ContainerID": "web"}`, 422, "which network?"},
		{"POST", "/v1/attach", `{"ContainerID": "web", "Network": "blue"}`, 200, "{}"},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%s %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", c.method, c.path, len(c.body), c.body)
		answer, _ := io.ReadAll(conn)
		conn.Close()
		head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
		var e ctl.Error
		if err := json.Unmarshal([]byte(body), &e); err != nil || !strings.HasPrefix(head, fmt.Sprintf("HTTP/1.0 %d ", c.status)) ||
			!strings.Contains(cmp.Or(e.Msg, body), c.want) || c.status >= 400 && e.Code == 0 {
			t.Errorf("%s %s %s: got %s", c.method, c.path, c.body, answer)
		}
	}
}

func TestHostileRequestsAreRefusedAndTheServerLives(t *testing.T) {
	c, path := serve(t)
	for name, raw := range map[string]string{
		"garbage":     "\x00\xff\x00\r\n\r\n",
		"huge body":   "POST /v1/echo HTTP/1.1\r\nHost: weave\r\nConnection: close\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("a", 1<<20),
		"bad json":    "POST /v1/echo HTTP/1.1\r\nHost: weave\r\nConnection: close\r\nContent-Length: 3\r\n\r\n{{{",
		"huge header": "GET /v1/get HTTP/1.1\r\nHost: weave\r\nX: " + strings.Repeat("a", 1<<16) + "\r\n\r\n",
		"traversal":   "POST /v1/../../etc HTTP/1.1\r\nHost: weave\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = conn.Write([]byte(raw)) // the server may close before it has read all
		answer, _ := io.ReadAll(conn)
		conn.Close()
		if strings.Contains(string(answer), "200 OK") {
			t.Errorf("%s: answered %q", name, answer)
		}
	}
	if err := c.Call(t.Context(), "/v1/get", nil, nil); err != nil {
		t.Error(err)
	}
}

func TestNoRouterIsCodeTryAgainAfterThePatience(t *testing.T) {
	for patience, begins := range map[time.Duration]string{50 * time.Millisecond: "waited 50ms; is weaver running", 0: "is weaver running"} {
		c := ctl.New(filepath.Join(t.TempDir(), "none.sock"), patience)
		err := c.Call(t.Context(), ctl.PathReady, nil, nil)
		var coded *ctl.Error
		if !errors.As(err, &coded) || coded.Code != ctl.CodeTryAgain || !ctl.IsUnavailable(err) || !strings.HasPrefix(coded.Details, begins) {
			t.Errorf("patience %v: got %v", patience, err)
		}
	}
}

// seen is what a Watcher saw.
type seen struct {
	Call
	out any
	err error
}

func TestEveryCallIsSeenToBeginAndToEnd(t *testing.T) {
	var mu sync.Mutex
	var all []seen
	type mark struct{}
	c := serveWith(t, func(s *Server) {
		Handle(s, "/v1/marked", func(ctx context.Context, in ctl.NetworkRequest) (ctl.Network, error) {
			if ctx.Value(mark{}) != in.Name {
				return ctl.Network{}, errors.New("the context is not the watcher's")
			}
			return ctl.Network{Name: in.Name}, nil
		})
		s.Watch(func(ctx context.Context, c Call) (context.Context, func(any, error)) {
			if in, ok := c.In.(ctl.NetworkRequest); ok {
				ctx = context.WithValue(ctx, mark{}, in.Name)
			}
			return ctx, func(out any, err error) {
				mu.Lock()
				defer mu.Unlock()
				all = append(all, seen{c, out, err})
			}
		})
	})
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for trace, want := range map[string]string{
		"00-" + id + "-00f067aa0ba902b7-01":                        id,
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01":   "",
		"00-" + strings.Repeat("X", 32) + "-00f067aa0ba902b7-01":   "",
		"00." + id + "-00f067aa0ba902b7-01":                        "",
		"00-4bf92f3577b34da6a3ce929d0e0e47366-0f067aa0ba902b7-01 ": "",
	} {
		t.Setenv("TRACEPARENT", trace)
		all = nil
		if err := c.Call(t.Context(), "/v1/marked", ctl.NetworkRequest{Name: "weave"}, nil); err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 || all[0].Path != "/v1/marked" || all[0].TraceID != want || all[0].err != nil || all[0].out.(ctl.Network).Name != "weave" {
			t.Errorf("%q: saw %+v", trace, all)
		}
	}
	t.Setenv("TRACEPARENT", "")
	all = nil
	for _, path := range []string{"/v1/fail", "/v1/panic", "/v1/get", "/v1/none"} {
		var in any = ctl.NetworkRequest{}
		if path == "/v1/get" {
			in = nil
		}
		_ = c.Call(t.Context(), path, in, nil)
	}
	_ = c.Call(t.Context(), "/v1/echo", []int{1}, nil) // no NetworkRequest
	var got []string
	for _, s := range all {
		got = append(got, fmt.Sprint(s.Path, " ", s.err))
	}
	want := []string{"/v1/fail no address left", "/v1/panic it panicked", "/v1/get <nil>",
		"/v1/echo read request to /v1/echo: want a JSON object, not a JSON array"}
	if !slices.Equal(got, want) {
		t.Errorf("saw %q, want %q", got, want)
	}
}

func TestACallsContextEndsWhileItsAnswerStillArrives(t *testing.T) {
	left := make(chan time.Duration, 2)
	c := serveWith(t, func(s *Server) {
		note := func(ctx context.Context) {
			end, ok := ctx.Deadline()
			if !ok {
				t.Error("it is not bounded")
			}
			left <- time.Until(end)
		}
		Handle(s, "/v1/bound", func(ctx context.Context, _ ctl.NetworkRequest) (ctl.Network, error) {
			note(ctx)
			return ctl.Network{}, nil
		})
		HandleGet(s, "/v1/bounded", func(ctx context.Context) (ctl.Ready, error) { note(ctx); return ctl.Ready{}, nil })
	})
	if err := errors.Join(c.Call(t.Context(), "/v1/bound", ctl.NetworkRequest{}, nil), c.Call(t.Context(), "/v1/bounded", nil, nil)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if d := <-left; d > callTimeout || callTimeout >= writeTimeout {
			t.Errorf("%v, and its answer is written for %v", d, writeTimeout)
		}
	}
}
