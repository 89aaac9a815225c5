package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// onlyPodman puts a podman into the PATH that lists a container on blue, and notes what it
// is told.
func onlyPodman(t *testing.T, state string) (told func() string) {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
echo "$*" >>` + dir + `/told
[ "$1" = ps ] && echo '[{"Id":"e796a1b2c3d4e5f6","Names":["c1"],"State":"` + state + `","Networks":["blue"]}]'
exit 0
`
	if err := os.WriteFile(filepath.Join(dir, "podman"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	storage(t, "overlay-containers/e796a1b2c3d4e5f6/userdata")
	return func() string { text, _ := os.ReadFile(filepath.Join(dir, "told")); return string(text) }
}

// storage gives podman a storage with these directories.
func storage(t *testing.T, dirs ...string) {
	t.Helper()
	root := t.TempDir()
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(root, "storage.conf")
	if err := os.WriteFile(conf, []byte("[storage]\ngraphroot = \""+root+"\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
}

func TestANetworkIsNotRemovedWhileThoseThatDoNotRunWouldNotStartWithoutIt(t *testing.T) {
	r, socket := networks(t)
	told := onlyPodman(t, "created")
	state, lists := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(lists, "cni.lock"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	plugs := attach.Intents{Dir: filepath.Join(state, "plugs")}
	k := attachment.Key{Network: "blue", ContainerID: "feed", IfName: "eth1"}
	i := attach.Intent{ID: k.EndpointID(), Key: k, Road: attach.ByHook, Container: attach.Container{Runtime: "nerdctl", ID: "feed", Name: "c2"},
		Net: attach.Net{ID: blueID, Name: "blue"}}
	other := i
	other.Key.IfName, other.Net.ID = "eth2", storeID // of a network that had the name before
	other.ID = other.Key.EndpointID()
	second := i
	second.Key.IfName = "eth3"
	second.ID = second.Key.EndpointID()
	for _, i := range []attach.Intent{i, other, second} {
		if err := plugs.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	rm := []string{"net", "rm", "blue", "--socket", socket, "--state-dir", state, "--conflist-dir", lists, "--containerd", filepath.Join(state, "none")}
	code, out, errs := weave(t, false, nil, rm...)
	if code != exitFailed || out != "" || r.changes(t) != "null" {
		t.Errorf("exit %d, %q, asked %s", code, out, r.changes(t))
	}
	for _, w := range []string{"c2 (feed), which is plugged", "weave net unplug c2 " + i.ID[:12], "weave net unplug c2 " + second.ID[:12], "container c1 (e796a1b2c3d4), which is created", "podman network disconnect blue c1", "weave net rm --force blue"} {
		if !strings.Contains(errs, w) {
			t.Errorf("%q is not in %q", w, errs)
		}
	}
	if strings.Count(errs, "c2 (feed)") != 1 {
		t.Errorf("a container is named twice: %q", errs)
	}
	if strings.Contains(errs, other.ID[:12]) {
		t.Errorf("another network's plug: %q", errs)
	}
	code, out, errs = weave(t, false, nil, append(rm, "--force")...)
	if code != 0 || out != "blue\n" || errs != "" || !strings.Contains(told(), "network disconnect blue e796a1b2c3d4e5f6") {
		t.Errorf("by force: exit %d, %q, stderr %q, podman was told %q", code, out, errs, told())
	}
	if all, err := plugs.All(); err != nil || len(all) != 1 || all[0].ID != other.ID {
		t.Errorf("plugs %v, %v", all, err)
	}
}

// podman leaves a lock in each directory of lists that it looks into, also when it is asked
// what it has.
func TestAPodmanThatNeverLookedForTheListsIsNotAsked(t *testing.T) {
	_, socket := networks(t)
	told := onlyPodman(t, "created")
	code, out, errs := weave(t, false, nil, "net", "rm", "blue", "--socket", socket, "--state-dir", t.TempDir(), "--conflist-dir", t.TempDir())
	if code != 0 || out != "blue\n" || told() != "" {
		t.Errorf("exit %d, %q, %q; podman was told %q", code, out, errs, told())
	}
}

// A process of podman takes longer than all the rest of the command.
func TestAPodmanWithoutContainersIsNotAsked(t *testing.T) {
	_, socket := networks(t)
	told, lists := onlyPodman(t, "created"), t.TempDir()
	if err := os.WriteFile(filepath.Join(lists, "cni.lock"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	storage(t, "overlay-containers", "libpod")
	code, out, errs := weave(t, false, nil, "net", "rm", "blue", "--socket", socket, "--state-dir", t.TempDir(), "--conflist-dir", lists)
	if code != 0 || out != "blue\n" || told() != "" && os.Geteuid() == 0 {
		t.Errorf("exit %d, %q, %q; podman was told %q", code, out, errs, told())
	}
}

// Without a majority nothing is decided: that is said at once, however long podman takes.
func TestWithoutAMajorityNobodyWaitsForPodman(t *testing.T) {
	r, socket := networks(t)
	onlyPodman(t, "created")
	lists, slow := t.TempDir(), t.TempDir()
	for file, text := range map[string]string{filepath.Join(lists, "cni.lock"): "", filepath.Join(slow, "podman"): "#!/bin/sh\nexec sleep 600\n"} {
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", slow+":"+os.Getenv("PATH"))
	r.lost = true
	code, out, errs := weave(t, false, nil, "net", "rm", "blue", "--socket", socket, "--state-dir", t.TempDir(), "--conflist-dir", lists)
	if code != exitFailed || out != "" || !strings.Contains(errs, "a majority of the voters") || strings.Contains(errs, "podman") || r.changes(t) != "null" {
		t.Errorf("exit %d, %q, %q, asked %s", code, out, errs, r.changes(t))
	}
}
