package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachd"
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// worker does attachd's work as a test has it.
type worker struct {
	attached ctl.Attached
	fates    map[string]attach.Fate // by interface
	errs     map[string]error
}

func (w worker) Plug(context.Context, ctl.AttachRequest) (ctl.Attached, error) {
	return w.attached, nil
}
func (worker) Unplug(context.Context, ctl.DetachRequest) error { return nil }
func (w worker) KeepAll(_ context.Context, of []attach.Intent, seen func(attach.Intent, attach.Fate, error)) {
	for _, i := range of {
		seen(i, w.fates[i.Key.IfName], w.errs[i.Key.IfName])
	}
}

// runAttachd has a real attachd serve beside a router's socket.
func runAttachd(t *testing.T, socket string, w worker, plugs attach.Intents) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(filepath.Dir(socket), "attach.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- attachd.New(w, plugs, slog.New(slog.DiscardHandler)).Run(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestAPlugsNoteIsForPeopleAndItsIDAloneForScripts(t *testing.T) {
	_, socket := networks(t)
	runAttachd(t, socket, worker{attached: ctl.Attached{EndpointID: "5a62", Note: "web is on network blue already"}}, attach.Intents{Dir: t.TempDir()})
	code, out, errs := weave(t, false, nil, "net", "plug", "web", "blue", "--socket", socket)
	if code != 0 || out != "5a62\n" || errs != "weave: web is on network blue already\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestPsSaysWhyAnEndpointIsNotThere(t *testing.T) {
	state, socket := t.TempDir(), router(t, busy())
	plugs := attach.Intents{Dir: filepath.Join(state, "plugs")}
	made := attach.Life{Boot: "one"}
	for ifname, life := range map[string]attach.Life{"eth1": {}, "eth2": made, "eth3": made, "eth4": made} {
		k := attachment.Key{Network: "blue", ContainerID: "feed", IfName: ifname}
		i := attach.Intent{ID: k.EndpointID(), Key: k, Road: attach.ByCNI, Container: attach.Container{Runtime: "docker", ID: "feed", Name: "web"}, Life: life}
		if ifname == "eth1" {
			i.Wish.IP = netip.MustParseAddr("10.32.0.77")
		}
		if err := plugs.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	rows := func() map[string]string {
		t.Helper()
		code, out, errs := weave(t, false, nil, "ps", "--socket", socket, "--state-dir", state)
		if code != 0 || errs != "" {
			t.Fatalf("exit %d, %q", code, errs)
		}
		states := map[string]string{}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 8 && f[0] == "feed" {
				states[f[3]] = f[4] + " " + strings.Join(f[8:], " ")
			}
		}
		return states
	}
	const away = "- plugged: weave attachd, which knows why, does not answer"
	want := map[string]string{"eth1": "10.32.0.77/12 planned: its container has not started", "eth2": away, "eth3": away, "eth4": away}
	if got := rows(); !maps.Equal(got, want) {
		t.Errorf("without attachd: %q", got)
	}
	runAttachd(t, socket, worker{
		fates: map[string]attach.Fate{"eth1": attach.Rests, "eth2": attach.Rests, "eth3": attach.Unknown, "eth4": attach.Lives},
		errs:  map[string]error{"eth3": errors.New("podman inspect did not answer in time\nand more")},
	}, plugs)
	want = map[string]string{
		"eth1": "10.32.0.77/12 planned: its container does not run", "eth2": "- plugged: its container does not run",
		"eth3": "- plugged: podman inspect did not answer in time", "eth4": "- plugged: the router does not know it: it is just coming back, or of other plugins",
	}
	for deadline := time.Now().Add(time.Minute); ; {
		got := rows()
		if maps.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
	}
}
