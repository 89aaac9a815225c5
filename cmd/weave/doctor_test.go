package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/doctor"
)

// confs is a directory with a list of another network first, and plugins that lack one.
func confs(t *testing.T) (lists, plugins string) {
	t.Helper()
	lists, plugins = t.TempDir(), t.TempDir()
	shipped, err := os.ReadFile("../../conflist/10-weave.conflist")
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(lists, "10-weave.conflist"): string(shipped),
		filepath.Join(lists, "05-a.conf"):         `{"cniVersion":"0.4.0","name":"a","type":"bridge"}`,
		filepath.Join(plugins, "weave-net"):       "#!/bin/sh\ncat >/dev/null; echo '{\"supportedVersions\":[\"0.4.0\",\"1.0.0\"]}'\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return lists, plugins
}

func TestTheDoctorSaysWhatItFindsWithItsCure(t *testing.T) {
	lists, plugins := confs(t)
	args := []string{"doctor", "--conf-dir", lists, "--plugin-dir", plugins, "--socket", filepath.Join(t.TempDir(), "none")}
	code, out, errs := weave(t, false, nil, args...)
	if code != exitFailed || errs != "" {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	for _, want := range []string{
		"problem  router: the weave router does not answer at ", "         → systemctl start weaver\n",
		"loads " + lists + "/05-a.conf, network \"a\"", "\n         if they are to be on it, give 10-weave.conflist a name that sorts before",
		"portmap is not in " + plugins, " problems, ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	_, out, _ = weave(t, false, nil, append(args, "--json")...)
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(out), &all); err != nil || doctor.Worst(all) != doctor.Problem {
		t.Errorf("%v in %s", err, out)
	}
}

func TestTheDoctorKnowsARouterThatHangs(t *testing.T) {
	lists, plugins := confs(t)
	_, out, _ := weave(t, true, nil, "doctor", "--conf-dir", lists, "--plugin-dir", plugins, "--socket", hung(t))
	if !strings.Contains(out, "router: it runs and does not answer") || !strings.Contains(out, "systemctl restart weaver") || !strings.Contains(out, "\x1b[31mproblem") {
		t.Errorf("got %s", out)
	}
}
