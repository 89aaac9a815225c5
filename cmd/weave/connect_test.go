package main

import (
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func TestWhatBecameOfEachPeerIsSaid(t *testing.T) {
	socket := router(t, ctl.Status{})
	for command, want := range map[string]string{
		"connect": "b:6783 is dialled from now on\nc:6783 is dialled again\nd:6783 was named before\n",
		"forget":  "b:6783 is forgotten\nc:6783 is forgotten until the router's next start: take it out of its PEERs too\nd:6783 is forgotten\n",
	} {
		code, out, errs := weave(t, false, nil, command, "--socket", socket, "b", "c", "d")
		if code != 0 || out != want || errs != "" {
			t.Errorf("%s: %d %q %q, want %q", command, code, out, errs, want)
		}
		if code, _, errs := weave(t, false, nil, command, "--socket", socket); code != exitUsage || !strings.Contains(errs, "at least one HOST") {
			t.Errorf("%s of nobody: %d %q", command, code, errs)
		}
	}
}

func TestThePeersThatTheRouterWasToldOfAreShown(t *testing.T) {
	s := busy()
	s.Targets = []ctl.Target{{Peer: "a:6783", AtStart: true}, {Peer: "b:6783", AtStart: true, Forgotten: true}, {Peer: "c:6783"}}
	_, out, _ := weave(t, false, nil, "status", "peers", "--socket", router(t, s))
	if want := "\nPEERs: a:6783, b:6783 (forgotten until the next start), c:6783 (weave connect)\n"; !strings.HasSuffix(out, want) {
		t.Errorf("got %s", out)
	}
}
