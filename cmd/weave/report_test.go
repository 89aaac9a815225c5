package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/doctor"
	"github.com/weave-cni/weave-cni/pkg/identity"
)

// talkative is a router that has written the cluster's secret where it does not belong.
func talkative(t *testing.T, secretFile, secret string) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(path string, v any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	answer(ctl.PathReport, map[string]any{"config": map[string]string{"SecretFile": secretFile, "Name": "it is " + secret, "StateDir": filepath.Dir(secretFile)}})
	answer(ctl.PathStatus, busy())
	answer(ctl.PathTopology, seen())
	mux.HandleFunc("POST "+ctl.PathReset, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	srv := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String()
}

// unpack gives the parts of an archive.
func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o600 || strings.Contains(h.Name, "..") {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		parts[filepath.Base(h.Name)] = string(text)
	}
}

func TestTheReportHasAllPartsAndNoSecret(t *testing.T) {
	t.Chdir(t.TempDir())
	s, err := identity.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(s)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (attach.Intents{Dir: filepath.Join(filepath.Dir(file), "plugs")}).Put(web()); err != nil {
		t.Fatal(err)
	}
	socket := talkative(t, file, secret)
	for _, want := range []string{"weave-report-alpha-20260101-120000.tar.gz", "weave-report-alpha-20260101-120000-2.tar.gz"} {
		code, out, errs := weave(t, false, nil, "report", "--socket", socket)
		if code != 0 || errs != "" || !strings.HasPrefix(out, want+": ") {
			t.Fatalf("exit %d, %q, %q, want %s", code, out, errs, want)
		}
		if st, err := os.Stat(want); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
	}
	archive, err := os.ReadFile("weave-report-alpha-20260101-120000.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	parts := unpack(t, archive)
	for _, name := range []string{"report.json", "status.json", "topology.json", "doctor.json", "runtimes.json", "versions.txt", "links.txt", "routes.txt", "nft-ours.txt", "log.txt", "attachd.txt", "plugs.json"} {
		if parts[name] == "" {
			t.Errorf("no %s", name)
		}
	}
	if !strings.Contains(parts["report.json"], "it is [the cluster secret]") {
		t.Errorf("the router did not say the secret: %s", parts["report.json"])
	}
	if !strings.Contains(parts["plugs.json"], `"name": "web"`) {
		t.Errorf("what is plugged is not in it: %s", parts["plugs.json"])
	}
	for name, text := range parts {
		if strings.Contains(text, secret) {
			t.Errorf("the secret is in %s", name)
		}
	}
}

func TestAReportIsNeverWrittenOverAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.tar.gz")
	socket := router(t, busy())
	if code, _, errs := weave(t, false, nil, "report", "--out", file, "--socket", socket); code != 0 {
		t.Fatalf("exit %d, %s", code, errs)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := weave(t, false, nil, "report", "--out", file, "--socket", socket)
	if code != exitFailed || out != "" || !strings.Contains(errs, "is there already") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed: %v", err)
	}
	code, _, errs = weave(t, false, nil, "report", "--out", filepath.Join(file, "x"), "--socket", socket)
	if code != exitFailed || !strings.Contains(errs, file) {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestWithoutARouterTheReportSaysSo(t *testing.T) {
	for name, socket := range map[string]string{"gone": filepath.Join(t.TempDir(), "none"), "hung": hung(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := weave(t, false, nil, "report", "--out", "-", "--socket", socket)
			if code != 0 || errs != "" {
				t.Fatalf("exit %d, %s", code, errs)
			}
			parts := unpack(t, []byte(out))
			if !strings.Contains(parts["report.txt"], "does not answer at "+socket) || parts["status.json"] != "" || !strings.Contains(parts["doctor.json"], "does not answer") {
				t.Errorf("report.txt %q, doctor.json %s", parts["report.txt"], parts["doctor.json"])
			}
		})
	}
}

func TestAPartWithoutEndIsCut(t *testing.T) {
	got := withoutSecrets([]doctor.Piece{{Name: "x", Text: make([]byte, 2*maxPart)}}, nil)
	if n := len(got[0].Text); n > maxPart+100 || !bytes.HasSuffix(got[0].Text, []byte("cut here\n")) {
		t.Errorf("%d bytes", n)
	}
	if got := fileName("../a b\x00" + strings.Repeat("x", 300)); strings.ContainsAny(got, "./ \x00") || len(got) > 63 {
		t.Errorf("got %q", got)
	}
}
