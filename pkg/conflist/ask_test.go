package conflist

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const reference = "github.com/containernetworking/plugins/plugins/meta/portmap"

// plugin puts a shell script in place of a plugin.
func plugin(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func says(versions string) string {
	return fmt.Sprintf(`[ "$CNI_COMMAND" = VERSION ] && cat >/dev/null && echo '{"cniVersion":"1.1.0","supportedVersions":[%s]}'`, versions)
}

func TestTheFirstDirectoryWinsAsItDoesForARuntime(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	plugin(t, first, "a", says(`"1.0.0"`))
	plugin(t, second, "a", says(`"1.1.0"`))
	plugin(t, second, "b", says(`"1.0.0","1.1.0"`))
	l := parse(t, `{"name":"n","plugins":[{"type":"a"},{"type":"b"}]}`)
	spoken, err := Ask(t.Context(), l, []string{first, second})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(spoken["a"], []string{"1.0.0"}) || len(spoken["b"]) != 2 {
		t.Errorf("got %v", spoken)
	}
}

func TestAPluginThatCannotAnswerIsNamed(t *testing.T) {
	dir := t.TempDir()
	plugin(t, dir, "broken", "echo no such thing >&2; exit 3")
	plugin(t, dir, "chatty", "echo hello")
	plugin(t, dir, "silent", "exit 0")
	plugin(t, dir, "empty", "echo '{}'")
	for name, want := range map[string]string{
		"broken": "no such thing", "chatty": "undecodable", "silent": "undecodable", "empty": "supportedVersions",
		"absent": "is not in " + dir, "../broken": "not a file name",
	} {
		_, err := Ask(t.Context(), parse(t, `{"name":"n","plugins":[{"type":"`+name+`"}]}`), []string{dir})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestAPluginThatHangsIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	plugin(t, dir, "slow", "sleep 600") // and its child keeps the pipes open
	start := time.Now()
	_, err := Ask(t.Context(), parse(t, `{"name":"n","plugins":[{"type":"slow"}]}`), []string{dir})
	if err == nil || !strings.Contains(err.Error(), "no answer within 2s") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func TestAnAnswerWithoutEndIsCutOff(t *testing.T) {
	dir := t.TempDir()
	plugin(t, dir, "endless", "head -c 4000000 /dev/zero")
	if _, err := Ask(t.Context(), parse(t, `{"name":"n","plugins":[{"type":"endless"}]}`), []string{dir}); err == nil {
		t.Error("want an error")
	}
}

// withPortmap fits the shipped default list, our own plugins played by scripts
// and portmap by the real one.
func withPortmap(t *testing.T, portmapDir string) []string {
	t.Helper()
	ours := t.TempDir()
	for _, p := range []string{"weave-net", "weave-ipam", "weavedns"} {
		plugin(t, ours, p, says(`"0.3.1","0.4.0","1.0.0","1.1.0"`))
	}
	l := parse(t, string(read(t, "../../conflist/10-weave.conflist")))
	spoken, err := Ask(t.Context(), l, []string{ours, portmapDir})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Fit(spoken); err != nil {
		t.Fatal(err)
	}
	return l.Versions()
}

func TestDebiansPortmapKeepsTheListAtOneZero(t *testing.T) {
	const dir = "/usr/lib/cni"
	about, _ := exec.Command(filepath.Join(dir, "portmap")).CombinedOutput()
	if !strings.Contains(string(about), "CNI portmap plugin") {
		t.Skipf("needs Debian's containernetworking-plugins in %s", dir)
	}
	if strings.Contains(string(about), "1.1.0") {
		t.Skipf("needs portmap 1.1.1, has a newer one: %s", about)
	}
	if got := withPortmap(t, dir); !slices.Equal(got, []string{"0.4.0", "1.0.0"}) {
		t.Errorf("got %v", got)
	}
}

func TestReferencePortmapLetsTheListHaveOneOne(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir, reference).CombinedOutput(); err != nil {
		t.Fatalf("build the reference portmap: %v\n%s", err, out)
	}
	if got := withPortmap(t, dir); !slices.Equal(got, []string{"0.4.0", "1.0.0", "1.1.0"}) {
		t.Errorf("got %v", got)
	}
}
