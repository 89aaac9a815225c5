package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachment"
)

func TestAnAttachdThatHangsIsNamedAndNotTheRouter(t *testing.T) {
	_, socket := networks(t)
	attachd := filepath.Join(filepath.Dir(socket), "attach.sock")
	l, err := net.Listen("unix", attachd)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the kernel takes the connections, and nobody reads from them
	for _, args := range []string{"net plug web blue", "net unplug web blue", "net unplug web beef"} {
		code, out, errs := weave(t, false, nil, append(strings.Fields(args), "--socket", socket)...)
		if code != exitNoRouter || out != "" || !strings.Contains(errs, "weave attachd does not answer at "+attachd+", though it runs") ||
			!strings.Contains(errs, "systemctl restart weave-attachd") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}

func TestAPlugWithoutARouterSaysWhatToStart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	code, _, errs := weave(t, false, nil, "net", "plug", "web", "blue", "--socket", socket, "--conflist-dir", t.TempDir())
	if code != exitNoRouter || !strings.Contains(errs, "start it with: weaver") {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
}

func TestStatusSaysThatPlugsWaitForAnAttachdThatIsAwayOrHangs(t *testing.T) {
	socket := router(t, busy())
	state := t.TempDir()
	ask := func() string {
		t.Helper()
		_, out, _ := weave(t, false, nil, "status", "--socket", socket, "--state-dir", state)
		return out
	}
	if out := ask(); strings.Contains(out, "attachd") {
		t.Errorf("nobody waits for it:\n%s", out)
	}
	k := attachment.Key{Network: "weave", ContainerID: "feed", IfName: "eth1"}
	i := attach.Intent{ID: k.EndpointID(), Key: k, Road: attach.ByCNI, Container: attach.Container{Runtime: "docker", ID: "feed"}}
	if err := (attach.Intents{Dir: filepath.Join(state, "plugs")}).Put(i); err != nil {
		t.Fatal(err)
	}
	if out := ask(); !strings.Contains(out, "problem  weave attachd does not run: 1 plug of this host") {
		t.Errorf("it is away:\n%s", out)
	}
	l, err := net.Listen("unix", filepath.Join(filepath.Dir(socket), "attach.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if out := ask(); !strings.Contains(out, "problem  weave attachd does not answer, though it runs") {
		t.Errorf("it hangs:\n%s", out)
	}
}
