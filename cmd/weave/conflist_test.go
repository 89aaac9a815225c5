package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asNetavark says to a child that it is in the mount namespace of a host whose podman has netavark.
const asNetavark = "WEAVE_TEST_NETAVARK"

// A list that podman never reads is installed without a fault, and no network is found later.
func TestConflistSaysThatAPodmanWithNetavarkReadsNoLists(t *testing.T) {
	if os.Getenv(asNetavark) != "" {
		installOnNetavark(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a mount namespace")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tools := t.TempDir()
	if err := os.WriteFile(filepath.Join(tools, "podman"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-euc", `
for d in /etc /usr/share /var/lib; do mount -t tmpfs none $d; done
mkdir -p /etc/containers /var/lib/containers/storage
printf netavark > /var/lib/containers/storage/defaultNetworkBackend
exec "$0" -test.run "$1"`, self, "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), asNetavark+"=1", "PATH="+tools+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func installOnNetavark(t *testing.T) {
	lists, plugins := confs(t)
	file := filepath.Join(lists, "10-weave.conflist")
	install := func(dir string) string {
		t.Helper()
		for _, p := range []string{"weave-ipam", "weavedns", "portmap"} {
			if err := os.Symlink("weave-net", filepath.Join(plugins, p)); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
		}
		code, out, errs := 1, "", "no answer within"
		for tries := 0; code != 0 && tries < 20 && strings.Contains(errs, "no answer within"); tries++ { // the plugins, on a busy host
			code, out, errs = weave(t, false, nil, "conflist", "--plugin-dir", plugins, "--out", dir, file)
		}
		if code != 0 || dir != "-" && !strings.Contains(out, "installed") {
			t.Fatalf("exit %d, %s%s", code, out, errs)
		}
		return errs
	}
	const podmans = "/etc/cni/net.d"
	if err := os.MkdirAll(podmans, 0o755); err != nil {
		t.Fatal(err)
	}
	errs := install(podmans + "/")
	if want := "weave: podman on this host uses netavark"; strings.Count(errs, want) != 1 || !strings.Contains(errs, `network_backend = "cni"`) {
		t.Errorf("want %q once, and what to do, got %q", want, errs)
	}
	for _, dir := range []string{"-", t.TempDir()} {
		if errs := install(dir); errs != "" {
			t.Errorf("--out %s: podman takes nothing from there: %q", dir, errs)
		}
	}
	if err := os.WriteFile("/etc/containers/containers.conf", []byte("[network]\nnetwork_backend = \"cni\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(podmans, "10-weave.conflist")); err != nil {
		t.Fatal(err)
	}
	if errs := install(podmans); errs != "" {
		t.Errorf("podman is told to read lists: %q", errs)
	}
}
