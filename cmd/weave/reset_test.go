package main

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// web is a plugged container that does not run.
func web() attach.Intent {
	key := attachment.Key{Network: "weave", ContainerID: "5e24637c4a1a", IfName: "eth1"}
	return attach.Intent{ID: key.EndpointID(), Key: key, Road: attach.ByHook, Container: attach.Container{Runtime: "containerd", Namespace: "default", ID: "5e24637c4a1a", Name: "web"}}
}

func TestAResetNamesWhatStaysPlugged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	s := attach.Intents{Dir: filepath.Join(filepath.Dir(file), "plugs")}
	socket := talkative(t, file, "none")
	if code, out, errs := weave(t, false, nil, "reset", "--socket", socket); code != 0 || !strings.Contains(out, "begins anew") || errs != "" {
		t.Errorf("with nothing plugged: exit %d, %q, %q", code, out, errs)
	}
	if err := s.Put(web()); err != nil {
		t.Fatal(err)
	}
	want := "weave net unplug web " + short(web().ID)
	if code, _, errs := weave(t, false, nil, "reset", "--socket", socket); code != 0 || !strings.Contains(errs, want) || !strings.Contains(errs, s.Dir) {
		t.Errorf("exit %d, %q, want %q", code, errs, want)
	}
}

// A report has all that the router knows, and a reset wants one word of it.
func TestAResetDoesNotDependOnTheReport(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ctl.PathReport, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("POST "+ctl.PathReset, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	srv := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	if code, out, errs := weave(t, false, nil, "reset", "--socket", l.Addr().String()); code != 0 || !strings.Contains(out, "begins anew") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

func TestPsFindsWhatIsPluggedWhereTheRouterHasItsState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := (attach.Intents{Dir: filepath.Join(filepath.Dir(file), "plugs")}).Put(web()); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := weave(t, false, nil, "ps", "--socket", talkative(t, file, "none")); code != 0 || !strings.Contains(out, short(web().ID)) {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}
