package runtimes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ownPodman is the real one, with storage, networks and plugins of the test's own.
func ownPodman(t *testing.T) (p Podman, networks string) {
	t.Helper()
	if _, err := exec.LookPath("podman"); err != nil || os.Geteuid() != 0 {
		t.Skip("SKIPPED: wants podman, and root")
	}
	dir, err := os.MkdirTemp("", "wp") // t.TempDir can be longer than podman takes
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"root", "run", "tmp", "net", "bin", "rootfs"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/weave-net", "#!/bin/sh\ncat >/dev/null\necho '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.4.0\",\"1.0.0\"]}'\n")
	write("net/gone.conflist", `{"cniVersion":"0.4.0","name":"blue","plugins":[{"type":"weave-net"}]}`)
	write("containers.conf", fmt.Sprintf("[network]\nnetwork_backend=\"cni\"\nnetwork_config_dir=%q\ncni_plugin_dirs=[%q]\n[engine]\nevents_logger=\"none\"\n",
		filepath.Join(dir, "net"), filepath.Join(dir, "bin")))
	const inside = `mount -t tmpfs none /run && exec podman --root DIR/root --runroot DIR/run --tmpdir DIR/tmp --cgroup-manager cgroupfs "$@"`
	write("podman", "#!/bin/sh\nCONTAINERS_CONF="+dir+"/containers.conf exec unshare -m sh -c '"+strings.ReplaceAll(inside, "DIR", dir)+"' sh \"$@\"\n")
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Podman{Program: filepath.Join(dir, "podman")}, filepath.Join(dir, "net")
}

func TestPodmanLetsAContainerGoFromANetworkThatItHasNoMore(t *testing.T) {
	p, networks := ownPodman(t)
	rootfs := filepath.Join(filepath.Dir(networks), "rootfs")
	out, err := p.run(t.Context(), "create", "--name", "c1", "--network", "blue", "--rootfs", rootfs, "/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	c := Container{Runtime: NamePodman, ID: strings.TrimSpace(string(out))}
	on := func() []string {
		t.Helper()
		all, err := p.List(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return all[0].Networks
	}
	if nets := on(); len(nets) != 1 || nets[0] != "blue" {
		t.Fatalf("it is on %q", nets)
	}
	if err := os.Remove(filepath.Join(networks, "gone.conflist")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.run(t.Context(), "network", "disconnect", "-f", "blue", c.ID); err == nil || !strings.Contains(err.Error(), notFound) {
		t.Errorf("podman cures it itself, says %v: then what is tested here is not needed", err)
	}
	for range 2 {
		if err := p.Disconnect(t.Context(), c, "blue"); err != nil {
			t.Error(err)
		}
	}
	if nets := on(); len(nets) != 0 {
		t.Errorf("it is on %q still", nets)
	}
}
