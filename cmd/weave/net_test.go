package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/control"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

const (
	blueID  = "67ea60624dfc1a6c08ba141c6cc022265e6fff81a44668c0135830a92de0b5e1"
	storeID = "5a624939c64c751c6276f852c2a01e54de49ba2894d922a07feebd2c56834900"
	fermiID = "ca88a6e0b1f94c7d2b3a11907f5e6c8d4a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d"
)

// registry answers the calls about networks as the router would.
type registry struct {
	mu     sync.Mutex
	nets   map[string]*ctl.Net // by name
	calls  []any               // the requests that change something
	refuse *ctl.Error          // of the next change
	lags   int                 // so many lists show a network that is removed
	lost   bool                // the cluster has no majority
}

// networks is a router with some of them.
func networks(t *testing.T) (*registry, string) {
	t.Helper()
	idle := t.TempDir() // with a podman that has no containers
	if err := os.WriteFile(filepath.Join(idle, "podman"), []byte("#!/bin/sh\necho '[]'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", idle+":"+os.Getenv("PATH"))
	addr := func(s ...string) []netip.Prefix { return prefixes(s...) }
	r := &registry{nets: map[string]*ctl.Net{
		"blue": {ID: blueID, Name: "blue", Driver: "weave", Subnets: addr("10.48.0.0/20", "fd6b:1:2:3::/64"), VNI: 71, MTU: 1430, State: "ready",
			Labels: map[string]string{"tier": "web", "owner": "ann"}, Bridge: "wv-67ea60624dfc", Conflist: "/etc/cni/net.d/weave-blue.conflist",
			Endpoints: []ctl.NetEndpoint{
				{Host: "alpha", ContainerID: "5e24637c4a1a8cfd2d5b44a1041496b9", IfName: "eth0", MAC: "02:42:0a:30:00:02", Addresses: addr("10.48.0.2/20"), Names: []string{"db"}},
				{Host: "alpha", ContainerID: "5e24637c4a1a8cfd2d5b44a1041496b9", IfName: "eth1", MAC: "02:42:0a:30:00:03", Addresses: addr("10.48.0.3/20"), Names: []string{"db"}},
				{Host: "alpha", ContainerID: "3f1d7a22c9b04e5d8f6a", IfName: "eth0", MAC: "02:42:0a:30:00:04", Addresses: addr("10.48.0.4/20")},
				{Host: "beta", MAC: "02:42:0a:30:04:01", Addresses: addr("10.48.4.1/20")},
				{Host: "beta", MAC: "02:42:0a:30:04:02", Addresses: addr("10.48.4.2/20")},
			}},
		"store":           {ID: storeID, Name: "store", Driver: "weave", Subnets: addr("10.60.0.0/16"), Internal: true, State: "removing", Waiting: "gamma: it gives its addresses back when it is there"},
		"stupefied_fermi": {ID: fermiID, Name: "stupefied_fermi", Driver: "simplebridge", Host: "gamma", Subnets: addr("10.48.16.0/20"), State: "elsewhere"},
	}}
	return r, r.listen(t)
}

func (r *registry) listen(t *testing.T) string {
	t.Helper()
	s := control.New(slog.New(slog.DiscardHandler))
	control.HandleGet(s, ctl.PathReady, func(context.Context) (ctl.Ready, error) { return ctl.Ready{}, nil })
	control.HandleGet(s, ctl.PathNets, r.list)
	control.HandleGet(s, ctl.PathNetChangeable, r.changeable)
	control.Handle(s, ctl.PathNetInspect, r.inspect)
	control.Handle(s, ctl.PathNetCreate, r.create)
	control.Handle(s, ctl.PathNetRemove, r.remove)
	control.Handle(s, ctl.PathNetLabel, r.label)
	dir, err := os.MkdirTemp("", "weave") // t.TempDir can be longer than a socket's path may
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return socket
}

func (r *registry) list(context.Context) (l ctl.NetList, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lags--; r.lags == 0 {
		delete(r.nets, "blue")
	}
	for _, name := range slices.Sorted(maps.Keys(r.nets)) {
		l.Networks = append(l.Networks, *r.nets[name])
	}
	return l, nil
}

func (r *registry) find(ref string) (*ctl.Net, error) {
	for _, n := range r.nets {
		if n.Name == ref || strings.HasPrefix(n.ID, ref) {
			return n, nil
		}
	}
	return nil, ctl.Errorf(ctl.CodeInvalidConfig, "no network is called %q", ref)
}

func (r *registry) inspect(_ context.Context, in ctl.NetRef) (ctl.Net, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.find(in.Ref)
	if err != nil {
		return ctl.Net{}, err
	}
	return *n, nil
}

func (r *registry) changeable(context.Context) (struct{}, error) {
	if r.lost {
		return struct{}{}, ctl.Errorf(ctl.CodeNoMajority, "nothing was changed: a change of the networks needs a majority of the voters")
	}
	return struct{}{}, nil
}

// change notes a request, and fails if it is to.
func (r *registry) change(in any) error {
	r.calls = append(r.calls, in)
	if r.refuse != nil {
		return r.refuse
	}
	return nil
}

func (r *registry) create(_ context.Context, in ctl.NetCreateRequest) (ctl.Net, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := ctl.Net{ID: storeID, Name: in.Name, State: "ready"}
	if in.Name == "slow" {
		n.State, n.Waiting = "starting", "waits for an address of its bridge"
	}
	return n, r.change(in)
}

func (r *registry) remove(_ context.Context, in ctl.NetRemoveRequest) (out ctl.NetRemoved, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.find(in.Ref)
	if err != nil {
		return out, err
	}
	if err := r.change(in); err != nil {
		return out, err
	}
	out.ID = n.ID
	switch n.Name {
	case "store":
		out.Waiting = []string{"gamma"}
	case "blue":
		out.Waiting, r.lags = []string{"beta"}, 3
	default:
		delete(r.nets, n.Name)
	}
	return out, nil
}

func (r *registry) label(_ context.Context, in ctl.NetLabelRequest) (ctl.Net, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := r.find(in.Ref)
	if err != nil {
		return ctl.Net{}, err
	}
	if err := r.change(in); err != nil {
		return ctl.Net{}, err
	}
	after := *n
	after.Labels = maps.Clone(n.Labels)
	for _, k := range in.Drop {
		delete(after.Labels, k)
	}
	maps.Copy(after.Labels, in.Set)
	return after, nil
}

// changes are the requests so far, as JSON.
func (r *registry) changes(t *testing.T) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	text, err := json.Marshal(r.calls)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestNetworksAreShown(t *testing.T) {
	_, socket := networks(t)
	for name, args := range map[string][]string{
		"net-list": {"list"}, "net-list-no-trunc": {"ls", "--no-trunc"}, "net-inspect": {"inspect", "67ea", "stupefied_fermi"},
		"net-list-table": {"list", "--format", `table {{.ID}}\t{{.Name}}\t{{.Scope}}\t{{.Containers}}`},
		"net-list-lines": {"list", "--format", "{{.ID}} {{.Name}} {{.Driver}} {{.Labels}} [{{.Subnets}}] {{.Internal}} {{.State}}", "--no-trunc"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := weave(t, false, nil, append([]string{"net", "--socket", socket}, args...)...)
			if code != 0 || errs != "" {
				t.Errorf("exit %d, stderr %q", code, errs)
			}
			golden(t, name, out)
		})
	}
}

func TestTheListAsJSONIsWhatTheRouterSays(t *testing.T) {
	_, socket := networks(t)
	_, out, _ := weave(t, false, nil, "net", "list", "--format", "json", "--socket", socket)
	var nets []ctl.Net
	if err := json.Unmarshal([]byte(out), &nets); err != nil || len(nets) != 3 || nets[0].Name != "blue" || len(nets[0].Endpoints) != 5 {
		t.Errorf("%v: %s", err, out)
	}
	none := (&registry{}).listen(t)
	if _, out, _ = weave(t, false, nil, "net", "list", "--format", "json", "--socket", none); out != "[]\n" {
		t.Errorf("of none: %q", out)
	}
	if _, out, _ = weave(t, false, nil, "net", "list", "--socket", none); out != "NETWORK ID  NAME  DRIVER  SCOPE  SUBNETS  LABELS  CONTAINERS\n" {
		t.Errorf("of none: %q", out)
	}
}

func TestANetworkIsMadeAsItIsAskedFor(t *testing.T) {
	for _, c := range []struct{ args, want, says string }{
		{"", `{"driver":"weave"}`, ""},
		{"blue", `{"name":"blue","driver":"weave"}`, ""},
		{"--driver simplebridge --ipv6 --internal --subnet 10.60.0.0/16 --subnet fd00:1::/64 --label a=b --label c=d=e,f db",
			`{"name":"db","driver":"simplebridge","subnets":["10.60.0.0/16","fd00:1::/64"],"ipv6":true,"internal":true,"labels":{"a":"b","c":"d=e,f"}}`, ""},
		{"slow", `{"name":"slow","driver":"weave"}`, "weave: network slow is there, and not ready on this host: waits for an address of its bridge\n"},
	} {
		r, socket := networks(t)
		code, out, errs := weave(t, false, nil, append([]string{"net", "create", "--socket", socket}, strings.Fields(c.args)...)...)
		if code != 0 || out != storeID+"\n" || errs != c.says || r.changes(t) != "["+c.want+"]" {
			t.Errorf("%s: exit %d, %q, stderr %q, asked %s", c.args, code, out, errs, r.changes(t))
		}
	}
}

func TestWhatIsWrongWithACommandLineIsSaidAtOnceAndTheRouterNotAsked(t *testing.T) {
	r, socket := networks(t)
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"create", "--driver", "bridge", "--subnet", "10.60", "--subnet", "10.60.1.0/16", "--label", "x", "--label", "=y"},
			[]string{`--driver "bridge": want weave or simplebridge`, `--subnet "10.60"`, "did you mean 10.60.0.0/16?", `--label "x": want KEY=VALUE`, `--label "=y"`}},
		{[]string{"create", "a", "b"}, []string{"2 names are given (a b)"}},
		{[]string{"create", "--mtu", "1400"}, []string{"unknown flag: --mtu"}},
		{[]string{"create", "--encrypt"}, []string{"unknown flag: --encrypt"}},
		{[]string{"list", "--format", "{{.Nme}}"}, []string{"Nme", "net list --help"}},
		{[]string{"list", "--format", "{{.Nme}}"}, []string{"weave: --format: a network has no .Nme"}},
		{[]string{"list", "--format", "yaml"}, []string{`--format "yaml": want "json", or a Go template such as '{{.Name}} {{.Subnets}}'`}},
		{[]string{"list", "--format", "{{.Name"}, []string{"--format"}},
		{[]string{"list", "blue"}, []string{"blue"}},
		{[]string{"inspect"}, []string{"no network is named; want: weave net inspect REF…"}},
		{[]string{"rm"}, []string{"want: weave net rm [--force] REF…"}},
		{[]string{"create", ""}, []string{"NAME is empty: leave it out"}},
		{[]string{"create", "--label", "a=1", "--label", "a=2", "x"}, []string{"--label a is given twice"}},
		{[]string{"label", "blue", "a=1", "a=2"}, []string{`"a" is to be set twice`}},
		{[]string{"label"}, []string{"want: weave net label REF KEY=VALUE"}},
		{[]string{"label", "blue"}, []string{"no label is given"}},
		{[]string{"label", "blue", "x"}, []string{`label "x": want KEY=VALUE, or KEY- to take it away`}},
		{[]string{"label", "blue", "x=1", "x-"}, []string{`"x" is to be set and taken away`}},
		{[]string{"plug"}, []string{"0 arguments given; want: weave net plug [flags] CONTAINER NETWORK"}},
		{[]string{"unplug", "web"}, []string{"1 argument given; want: weave net unplug [flags] CONTAINER ENDPOINT|NETWORK"}},
		{[]string{"nonsense"}, []string{"nonsense"}},
	} {
		code, out, errs := weave(t, false, nil, append([]string{"net", "--socket", socket}, c.args...)...)
		if code != exitUsage || out != "" {
			t.Errorf("%q: exit %d, stdout %q", c.args, code, out)
		}
		for _, w := range c.words {
			if !strings.Contains(errs, w) {
				t.Errorf("%q: %q is not in %q", c.args, w, errs)
			}
		}
	}
	if got := r.changes(t); got != "null" {
		t.Errorf("asked: %s", got)
	}
}

func TestLabelsAreSetAndTakenAway(t *testing.T) {
	r, socket := networks(t)
	code, out, errs := weave(t, false, nil, "net", "label", "blue", "--socket", socket, "tier=db", "key-=x=y", "owner-", "none-")
	if code != 0 || out != "key-=x=y\ntier=db\n" {
		t.Errorf("exit %d, %q, stderr %q", code, out, errs)
	}
	if got := r.changes(t); got != `[{"ref":"blue","set":{"key-":"x=y","tier":"db"},"drop":["owner","none"]}]` {
		t.Errorf("asked: %s", got)
	}
}

func TestRemovingWaitsForHostsAndNamesThoseItWaitedForInVain(t *testing.T) {
	r, socket := networks(t)
	code, out, errs := weave(t, false, nil, "net", "rm", "--socket", socket, "blue", "nobody", "ca88", "store", "--force")
	if code != exitFailed || out != "blue\nca88\nstore\n" {
		t.Errorf("exit %d, %q", code, out)
	}
	if !strings.Contains(errs, "store takes no more containers; what it still waits for: gamma: it gives its addresses back when it is there\n") || strings.Contains(errs, "blue") {
		t.Errorf("stderr %q", errs)
	}
	if !strings.Contains(errs, `no network is called "nobody"`) {
		t.Errorf("stderr %q", errs)
	}
	if got := r.changes(t); strings.Count(got, `"force":true`) != 3 {
		t.Errorf("asked: %s", got)
	}
}

func TestOfSeveralNetworksThoseThatAreThereAreShown(t *testing.T) {
	_, socket := networks(t)
	code, out, errs := weave(t, false, nil, "net", "inspect", "none", "blue", "--socket", socket)
	if code != exitFailed || !strings.Contains(out, blueID) || !strings.Contains(errs, `no network is called "none"`) {
		t.Errorf("exit %d, %q, stderr %q", code, out, errs)
	}
	if code, out, _ = weave(t, false, nil, "net", "inspect", "none", "--socket", socket); code != exitFailed || out != "" {
		t.Errorf("exit %d, %q", code, out)
	}
}

func TestARefusalComesWithWhatToDo(t *testing.T) {
	for code, words := range map[uint]string{
		ctl.CodeNoMajority:   "who is missing: weave status peers\n",
		ctl.CodeInUse:        "all that are on it: weave net inspect blue\n",
		ctl.CodeAmbiguous:    "of course\n", // the router has said all
		ctl.CodeWrongHost:    "of course\n",
		ctl.CodeNotSupported: "of course\n",
	} {
		r, socket := networks(t)
		r.refuse = ctl.Errorf(code, "of course")
		for _, args := range []string{"create x", "rm blue", "label blue x=y"} {
			exit, out, errs := weave(t, false, nil, append([]string{"net", "--socket", socket}, strings.Fields(args)...)...)
			if exit != exitFailed || out != "" || !strings.HasPrefix(errs, "weave: of course") || args == "rm blue" && !strings.Contains(errs, words) {
				t.Errorf("%s, code %d: exit %d, stdout %q, stderr %q", args, code, exit, out, errs)
			}
		}
	}
}

func TestWithoutARouterNoCommandAboutNetworksWaits(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	for _, args := range []string{"create", "list", "inspect a b", "rm a b", "label a x=y"} {
		code, out, errs := weave(t, false, nil, append([]string{"net", "--socket", socket}, strings.Fields(args)...)...)
		if code != exitNoRouter || out != "" || !strings.Contains(errs, "start it with: weaver") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}

func TestWhatCannotBeDoneIsNotInTheHelp(t *testing.T) {
	for _, args := range []string{"net --help", "net create --help", "net list --help", "net inspect --help", "net rm --help", "net label --help"} {
		code, out, _ := weave(t, false, nil, strings.Fields(args)...)
		if code != 0 || strings.Contains(strings.ToLower(out), "encrypt") || strings.Contains(out, "--mtu") {
			t.Errorf("%s: exit %d\n%s", args, code, out)
		}
	}
}

// What another host tells of its containers is their names: two interfaces are one container.
func TestAContainerOfAnotherHostIsCountedOnce(t *testing.T) {
	n := ctl.Net{Endpoints: []ctl.NetEndpoint{
		{Host: "alpha", ContainerID: "5e24637c4a1a8cfd", Names: []string{"db"}},
		{Host: "beta", Names: []string{"web", "3f1d"}}, {Host: "beta", Names: []string{"web", "3f1d"}}, {Host: "beta", Names: []string{"web", "77aa"}},
		{Host: "gamma", Names: []string{"web", "3f1d"}},
	}}
	if got := containersOf(n, false); got != "db, web, web and 1 more" {
		t.Errorf("got %s", got)
	}
	if got := containersOf(n, true); got != "db (5e24637c4a1a8cfd), web, web, web" {
		t.Errorf("got %s", got)
	}
	for host, scope := range map[string]string{"": "cluster", "alpha": "host alpha", "host-0b62eefaed8c": "host-0b62eefaed8c"} {
		if r := rowOf(ctl.Net{Host: host}, false); r.Scope != scope {
			t.Errorf("%q: scope %q", host, r.Scope)
		}
	}
}
