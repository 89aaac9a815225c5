package router

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/control"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func (r *lone) trace(in ctl.TraceRequest) (out ctl.Trace, err error) {
	r.t.Helper()
	err = ctl.New(r.config.Socket, 0).Call(r.t.Context(), ctl.PathTrace, in, &out)
	return out, err
}

// told are the calls, one word of each step that matters, and what is remarked.
func told(t ctl.Trace) []string {
	var out []string
	for _, c := range t.Calls {
		line := fmt.Sprint(c.Call, " ", c.Code)
		if slices.ContainsFunc(c.Steps, func(s ctl.TracedStep) bool { return s.What == "claim written" }) {
			line += " written"
		}
		if c.Remark != "" {
			line += " !"
		}
		out = append(out, line)
	}
	return out
}

func TestARealRouterRemembersWhatWasAskedAboutAContainer(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	r := startOn(t, h, func(*Config) {})
	r.until("it is ready", ready)
	client := ctl.New(r.config.Socket, 0)
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	t.Setenv("TRACEPARENT", "00-"+id+"-00f067aa0ba902b7-01")
	allocate := func(container string, by ctl.Decider) (out ctl.AllocateReply) {
		t.Helper()
		must(t, client.Call(t.Context(), ctl.PathAllocate, ctl.AllocateRequest{Key: key(container), Network: DefaultNetwork, Decider: by}, &out))
		return out
	}
	release := func(container string) {
		t.Helper()
		must(t, client.Call(t.Context(), ctl.PathRelease, ctl.KeyRequest{Key: key(container)}, nil))
	}
	got := allocate("web-1", ctl.DecidedByVeth) // and its plugin fails then
	release("web-1")
	if err := client.Call(t.Context(), ctl.PathAllocate, ctl.AllocateRequest{Key: key("web-1"), Network: "none"}, nil); err == nil {
		t.Error("an address of no network")
	}
	allocate("web-2", ctl.DecidedByClaim)

	out, err := r.trace(ctl.TraceRequest{Container: "web-1"})
	must(t, err)
	if want := []string{"allocate 0 written", "release 0 !", "allocate 7"}; !slices.Equal(told(out), want) {
		t.Fatalf("%q, want %q\n%+v", told(out), want, out.Calls)
	}
	first := out.Calls[0]
	if first.TraceID != id || first.Detail != got.Addresses[0].Address.String()+", weave" || first.Network != DefaultNetwork || first.Key != key("web-1") || first.Took <= 0 || len(out.Claims) != 0 {
		t.Errorf("%+v", out)
	}
	if last := out.Calls[2]; !strings.Contains(last.Error, `no network is called "none"`) {
		t.Errorf("%+v", last)
	}
	if out, err := r.trace(ctl.TraceRequest{Container: "web-2", Last: 1}); err != nil || len(out.Calls) != 1 || len(out.Claims) != 1 || out.Claims[0].State != "attached" {
		t.Errorf("%+v, %v", out, err)
	}
	if out, err := r.trace(ctl.TraceRequest{Last: 2}); err != nil || len(out.Calls) != 2 || out.Calls[1].Key.ContainerID != "web-2" {
		t.Errorf("the latest: %+v, %v", out, err)
	}
	for container, code := range map[string]uint{"web": ctl.CodeAmbiguous, "nobody": ctl.CodeUnknownContainer} {
		_, err := r.trace(ctl.TraceRequest{Container: container})
		var coded *ctl.Error
		if !errors.As(err, &coded) || coded.Code != code {
			t.Errorf("%s: %v, want code %d", container, err, code)
		}
		if code == ctl.CodeAmbiguous && coded.Details != "web-1, web-2" {
			t.Errorf("candidates %q", coded.Details)
		}
	}

	// By a name, also after the container; by its namespace.
	register := func(container string, names ...string) {
		t.Helper()
		must(t, client.Call(t.Context(), ctl.PathRegister, ctl.RegisterRequest{Key: key(container), Names: names}, nil))
	}
	ns := attachment.NSID{Dev: 4, Ino: 4711}
	must(t, client.Call(t.Context(), ctl.PathAllocate, ctl.AllocateRequest{Key: key("5e24637c4a1a"), Network: DefaultNetwork, Decider: ctl.DecidedByClaim, NetNS: ns}, nil))
	register("5e24637c4a1a", "hopper", "shared")
	register("web-2", "shared")
	allocate("web-3", ctl.DecidedByClaim)
	register("web-3", "lovelace")
	release("web-3")
	for id, in := range map[string]ctl.TraceRequest{"5e24637c4a1a": {Container: "Hopper"}, "web-3": {Container: "lovelace"}} {
		if out, err := r.trace(in); err != nil || out.Calls[0].Key.ContainerID != id {
			t.Errorf("%+v: %+v, %v, want %s", in, out, err, id)
		}
	}
	if out, err := r.trace(ctl.TraceRequest{NetNS: ns}); err != nil || out.Calls[0].Key.ContainerID != "5e24637c4a1a" {
		t.Errorf("by its namespace: %+v, %v", out, err)
	}
	_, err = r.trace(ctl.TraceRequest{Container: "shared"})
	coded(t, err, ctl.CodeAmbiguous, "2 containers are called", "hopper (5e24637c4a1a)", "shared (web-2)")
	_, err = r.trace(ctl.TraceRequest{NetNS: attachment.NSID{Dev: 4, Ino: 1}})
	coded(t, err, ctl.CodeUnknownContainer, "no container in that namespace")

	// What it has is known over a restart, what was asked is not.
	must(t, r.Kill())
	must(t, r.Restart())
	r.until("it is ready again", ready)
	if out, err := r.trace(ctl.TraceRequest{Container: "web-2"}); err != nil || len(out.Calls) != 0 || len(out.Claims) != 1 || time.Since(out.Since) > time.Hour {
		t.Errorf("after the restart: %+v, %v", out, err)
	}
}

func TestAnInterfaceThatWentByItselfIsInItsTrace(t *testing.T) {
	h := netlab.New(t, netlab.Options{}).Host(0)
	r := startOn(t, h, func(*Config) {})
	r.until("it is ready", ready)
	client, k := ctl.New(r.config.Socket, 0), key("gone")
	var got ctl.AllocateReply
	must(t, client.Call(t.Context(), ctl.PathAllocate, ctl.AllocateRequest{Key: k, Network: DefaultNetwork, Decider: ctl.DecidedByVeth}, &got))
	addr := got.Addresses[0].Address
	mac := attachment.MACFor(addr.Addr())
	alias, err := attachment.Alias{Hash: k.Hash(), Network: "weave", MAC: mac}.Encode()
	must(t, err)
	h.MustRun(t, "ip", "link", "add", k.Veth(), "type", "veth", "peer", "name", "inside")
	h.MustRun(t, "ip", "link", "set", k.Veth(), "alias", alias, "master", "weave")
	must(t, client.Call(t.Context(), ctl.PathCommit, ctl.CommitRequest{Key: k, Network: DefaultNetwork, MAC: mac.String(), Addresses: prefixesOf(got)}, nil))
	h.MustRun(t, "ip", "link", "del", k.Veth())
	must(t, netlab.Wait(patience, "the reconciliation is in the trace", func() error {
		out, err := r.trace(ctl.TraceRequest{Container: "gone"})
		if want := []string{"allocate 0 written", "commit 0 written", "reconcile 0 !"}; err == nil && !slices.Equal(told(out), want) {
			err = fmt.Errorf("%q, want %q", told(out), want)
		}
		return err
	}))
}

func TestOnlyCallsAboutAContainerAreKept(t *testing.T) {
	k := key("c")
	for name, c := range map[string]struct {
		in    any
		about bool
		says  string
	}{
		"allocate":        {ctl.AllocateRequest{Key: k, Requested: []string{"10.32.0.5"}, Subnet: "10.32.0.0/24"}, true, "asked for 10.32.0.5, 10.32.0.0/24"},
		"commit":          {ctl.CommitRequest{Key: k, MAC: "02:42:0a:20:00:05"}, true, "02:42:0a:20:00:05"},
		"names":           {ctl.RegisterRequest{Key: k, Names: []string{"web", "db"}}, true, "web, db"},
		"DEL":             {ctl.KeyRequest{Key: k}, true, ""},
		"the network":     {ctl.NetworkRequest{Key: k, Name: "weave", Endpoint: "weave://10.32.0.5/24"}, true, "weave://10.32.0.5/24"},
		"no container":    {ctl.NetworkRequest{Name: "weave"}, false, ""},
		"GC":              {ctl.CollectRequest{Network: "weave"}, false, ""},
		"status":          {nil, false, ""},
		"not a container": {ctl.KeyRequest{Key: attachment.Key{Network: "weave", ContainerID: strings.Repeat("x", 1<<20), IfName: "eth0"}}, false, ""},
	} {
		got, about := tracedOf(control.Call{Path: "/v1/x", In: c.in})
		if about != c.about || about && (got.Detail != c.says || got.Key != k || got.Call != "x") {
			t.Errorf("%s: %+v, %v", name, got, about)
		}
	}
	if got, _ := tracedOf(control.Call{Path: ctl.PathAllocate, In: ctl.AllocateRequest{Key: k, Decider: ctl.DecidedByClaim}}); !got.NoCommit || got.Call != calllog.Allocate {
		t.Errorf("another main plugin's: %+v", got)
	}
	for path, want := range map[string]string{ctl.PathCommit: calllog.Commit, ctl.PathDetach: calllog.Detach, ctl.PathRelease: calllog.Release} {
		if got := callName(path); got != want {
			t.Errorf("%s is called %q, and calllog expects %q", path, got, want)
		}
	}
}

func prefixesOf(r ctl.AllocateReply) (out []netip.Prefix) {
	for _, a := range r.Addresses {
		out = append(out, a.Address)
	}
	return out
}
