package runtimes

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPodmanIsKnownToHaveNothingOnlyWhereItsStorageIsSeenAndHasNone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("another user's podman keeps its containers elsewhere: only podman knows")
	}
	root := t.TempDir()
	conf := filepath.Join(root, "storage.conf")
	if err := os.WriteFile(conf, []byte("[storage]\ndriver = \"vfs\"\n# graphroot = \"/elsewhere\"\n  graphroot = '"+root+"'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	is := func(when string, want bool) {
		t.Helper()
		if got := (Podman{}).Empty(); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	is("no storage is there", false)
	dir := filepath.Join(root, "vfs-containers")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"containers.json", "containers.lock"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("[]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is("all were removed", true)
	if err := os.MkdirAll(filepath.Join(dir, "e796a1b2c3d4e5f6", "userdata"), 0o700); err != nil {
		t.Fatal(err)
	}
	is("a container is there", false)
	t.Setenv("CONTAINERS_STORAGE_CONF", filepath.Join(root, "none"))
	is("where the storage is nobody knows", false)
}
