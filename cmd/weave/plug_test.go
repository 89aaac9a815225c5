package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachment"
)

func TestPSShowsWhatIsPluggedAndNotThereYetByWhatUnplugTakes(t *testing.T) {
	state := t.TempDir()
	k := attachment.Key{Network: "weave", ContainerID: "feed", IfName: "eth1"}
	i := attach.Intent{ID: k.EndpointID(), Key: k, Road: attach.ByHook, Container: attach.Container{Runtime: "nerdctl", ID: "feed"},
		Net: attach.Net{ID: "ab", Name: "blue"}, Wish: attach.Wish{Names: []string{"idle"}, Labels: map[string]string{"of": "us"}}}
	made := i
	made.Key = busy().Attachments[0].Key // the router has it
	made.ID = made.Key.EndpointID()
	for _, i := range []attach.Intent{i, made} {
		if err := (attach.Intents{Dir: filepath.Join(state, "plugs")}).Put(i); err != nil {
			t.Fatal(err)
		}
	}
	socket := router(t, busy())
	_, out, errs := weave(t, false, nil, "ps", "--socket", socket, "--state-dir", state)
	var rows []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "idle") {
			rows = append(rows, line)
		}
	}
	if len(rows) != 1 || strings.Join(strings.Fields(rows[0]), " ") != "feed "+i.ID[:12]+" blue eth1 - - idle - planned: its container has not started" || errs != "" {
		t.Errorf("got %q, %q", rows, errs)
	}
	if strings.Count(out, made.ID[:12]) != 1 {
		t.Errorf("the endpoint that the router has:\n%s", out)
	}
	_, out, _ = weave(t, false, nil, "ps", "--json", "--socket", socket, "--state-dir", state)
	if !strings.Contains(out, `"endpointID": "`+i.ID+`"`) || strings.Count(out, `"of": "us"`) != 2 {
		t.Errorf("got %s", out)
	}
}

// The router's report, which would say it too, is as long as all of its parts are.
func TestPSLooksForWhatIsPluggedWhereTheRoutersStatusSays(t *testing.T) {
	s := busy()
	s.StateDir = t.TempDir()
	k := attachment.Key{Network: "weave", ContainerID: "feed", IfName: "eth1"}
	i := attach.Intent{ID: k.EndpointID(), Key: k, Road: attach.ByHook, Container: attach.Container{Runtime: "nerdctl", ID: "feed"}}
	if err := (attach.Intents{Dir: filepath.Join(s.StateDir, "plugs")}).Put(i); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := weave(t, false, nil, "ps", "--socket", router(t, s)); code != 0 || !strings.Contains(out, i.ID[:12]) {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}

func TestUnplugTakesAnEndpointsIDOrANetwork(t *testing.T) {
	for what, isID := range map[string]bool{"5a62": true, "5A624939C64C": true, "backend": false, "5a6": false, "beef": true, "net1": false, "": false} {
		byID, byNetwork := detachRequests("web", what)
		if (byID != nil) != isID || byID != nil && (byID.EndpointID != what || byID.ContainerID != "web") || byNetwork.Network != what || byNetwork.EndpointID != "" {
			t.Errorf("%q: %+v, %+v", what, byID, byNetwork)
		}
	}
}

func TestAHookFindsItsFilesFromAnyDirectory(t *testing.T) {
	a := &app{socket: "run/weave.sock"}
	at, err := a.attacher(&here{conflists: "lists", plugins: []string{"bin", "/opt/cni/bin"}, state: "state", containerd: "c.sock", docker: "/run/docker.sock"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, word := range at.Hook[3:] {
		if i%2 == 1 && !filepath.IsAbs(word) {
			t.Errorf("%s %s", at.Hook[2+i], word)
		}
	}
	if n := len(at.Hook); n != 13 || !filepath.IsAbs(at.Intents.Dir) || !filepath.IsAbs(at.CNI.CacheDir) {
		t.Errorf("got %q", at.Hook)
	}
}

func TestPsNamesAContainerAsPlugAndUnplugTakeIt(t *testing.T) {
	for want, c := range map[string]attach.Container{
		"/run/netns/box": {Runtime: "path", ID: "/run/netns/box"}, "pid:7": {Runtime: "pid", ID: "7"},
		"default/cre1": {Runtime: "containerd", Namespace: "default", ID: "cre1"}, "": {Runtime: "podman", ID: "feed"},
	} {
		if got := refOf(attach.Intent{Container: c}); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
}

func TestAPlugsAddressIsOneAndAnAddressElseItIsMisuse(t *testing.T) {
	_, socket := networks(t)
	for args, want := range map[string]string{
		"--ip 10.48.0.9 --ip 10.48.0.10": "--ip is given 2 times (10.48.0.9, 10.48.0.10)",
		"--ip 10.48.0.9 --ip fd6b::9":    "--ip is given 2 times",
		"--ip nonsense":                  `--ip "nonsense": want an address`,
		"--mac nonsense":                 `--mac "nonsense": want a hardware address`,
		"--mac 02:42:0a:20:00:50:01:02":  "want a hardware address",
	} {
		line := append(append([]string{"net", "plug", "--socket", socket}, strings.Fields(args)...), "web", "blue")
		if code, out, errs := weave(t, false, nil, line...); code != exitUsage || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %q, stderr %q", args, code, out, errs)
		}
	}
}

func TestAFlagsErrorNamesNoFunctionOfGo(t *testing.T) {
	code, _, errs := weave(t, false, nil, "trace", "--last", "web1")
	if code != exitUsage || strings.Contains(errs, "strconv") || !strings.Contains(errs, "want a number") {
		t.Errorf("exit %d, %q", code, errs)
	}
}
