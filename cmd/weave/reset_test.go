package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachment"
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
	want := "weave net unplug 5e24637c4a1a " + short(web().ID)
	if code, _, errs := weave(t, false, nil, "reset", "--socket", socket); code != 0 || !strings.Contains(errs, want) || !strings.Contains(errs, s.Dir) {
		t.Errorf("exit %d, %q, want %q", code, errs, want)
	}
}
