package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachd"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// worker does attachd's work as a test has it.
type worker struct {
	attached ctl.Attached
}

func (w worker) Plug(context.Context, ctl.AttachRequest) (ctl.Attached, error) {
	return w.attached, nil
}
func (worker) Unplug(context.Context, ctl.DetachRequest) error { return nil }
func (worker) Keep(context.Context, attach.Intent) (attach.Fate, error) {
	return attach.Rests, nil
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
	runAttachd(t, socket, worker{ctl.Attached{EndpointID: "5a62", Note: "web is on network blue already"}}, attach.Intents{Dir: t.TempDir()})
	code, out, errs := weave(t, false, nil, "net", "plug", "web", "blue", "--socket", socket)
	if code != 0 || out != "5a62\n" || errs != "weave: web is on network blue already\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}
