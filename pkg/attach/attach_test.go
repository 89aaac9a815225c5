package attach

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

func intent(runtime, id, name, network, ifname string) Intent {
	k := attachment.Key{Network: network, ContainerID: id, IfName: ifname}
	return Intent{ID: k.EndpointID(), Key: k, Road: ByCNI, Container: Container{Runtime: runtime, ID: id, Name: name}}
}

func TestIntentsAreReadBackAsTheyWereWrittenAndOthersAreTold(t *testing.T) {
	s := Intents{Dir: filepath.Join(t.TempDir(), "plugs")}
	if all, err := s.All(); err != nil || len(all) != 0 {
		t.Errorf("before the first: %v, %v", all, err)
	}
	a, b := intent(runtimes.NamePodman, "aa", "web", "weave", "eth1"), intent(runtimes.NamePath, "bb", "", "weave", "eth0")
	a.Wish = Wish{IP: netip.MustParseAddr("10.32.0.9"), MAC: "02:42:00:00:00:01", Names: []string{"web"}, Labels: map[string]string{"k": "v"}}
	a.Life = Life{PID: 7, Started: 99, NetNS: attachment.NSID{Dev: 1, Ino: 2}, Path: "/proc/7/ns/net", Boot: "b"}
	a.Net = Net{ID: "ab", Name: "blue"}
	a.Container.Names, a.Container.Typed = []string{"web", "prod/web"}, "podman:web"
	for _, i := range []Intent{a, b} {
		if err := s.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Get(a.ID)
	x, _ := json.Marshal(got)
	y, _ := json.Marshal(a)
	if err != nil || string(x) != string(y) {
		t.Errorf("got %s, want %s, %v", x, y, err)
	}
	bad := filepath.Join(s.Dir, strings.Repeat("0", 64)+".json")
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := s.All()
	if len(all) != 2 || err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("got %v, %v", all, err)
	}
	if err := errors.Join(s.Drop(a.ID), s.Drop(a.ID)); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(a.ID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after its end: %v", err)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func FuzzAnIntentIsReadOrRefused(f *testing.F) {
	text, _ := json.Marshal(intent(runtimes.NamePodman, "aa", "web", "weave", "eth1"))
	f.Add(text)
	f.Add([]byte(`{"key":{"network":"weave"},"wish":{"ip":"x"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		i, err := decode(text)
		if err != nil {
			return
		}
		back, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(back)
		if err != nil || again.ID != i.ID || again.Key != i.Key || again.Life != i.Life {
			t.Errorf("%s became %s: %v", text, back, err)
		}
		_ = i.conf("")
		_ = i.String()
	})
}

func TestOneCallAtATimeChangesAContainer(t *testing.T) {
	s := Intents{Dir: t.TempDir()}
	unlock, err := s.lock(t.Context().Done(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.lock(short.Done(), "c1"); err == nil {
		t.Error("two have it")
	}
	other, err := s.lock(short.Done(), "c2")
	if err != nil {
		t.Fatalf("another container waits for it: %v", err)
	}
	other()
	unlock()
	if unlock, err = s.lock(t.Context().Done(), "c1"); err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestTheInterfaceIsTheNextThatNobodyHas(t *testing.T) {
	for _, c := range []struct {
		nets, taken []string
		want        string
	}{
		{nil, nil, "eth0"},
		{[]string{"a"}, nil, "eth1"},
		{[]string{"a", "b"}, []string{"foo"}, "eth1"},
		{[]string{"a"}, []string{"eth0"}, "eth1"},
		{[]string{"a"}, []string{"eth1"}, "eth0"},
	} {
		if got := podmanNext(runtimes.Container{Networks: c.nets, Taken: c.taken}); got != c.want {
			t.Errorf("podman, networks %q, taken %q: %s, want %s", c.nets, c.taken, got, c.want)
		}
	}
	own := []Intent{intent(runtimes.NameNerdctl, "x", "", "weave", "eth1"), intent(runtimes.NameNerdctl, "x", "", "b", "eth2")}
	if got := freeBefore(runtimes.Container{Networks: []string{"bridge"}}, own); got != "eth3" {
		t.Errorf("got %s", got)
	}
}

// lookup finds containers by a name, and says their id in CNI's calls.
type lookup map[string]string

func (l lookup) Find(_ context.Context, text string) (runtimes.Container, error) {
	if l[text] == "" {
		return runtimes.Container{}, runtimes.ErrGone
	}
	return runtimes.Container{Runtime: runtimes.NamePodman, ID: l[text], CNI: l[text]}, nil
}
func (lookup) Again(context.Context, runtimes.Container) (runtimes.Container, error) {
	return runtimes.Container{}, runtimes.ErrGone
}

// podman knows the networks of its keys and does nothing.
type podman map[string]bool

func (p podman) Knows(_ context.Context, network string) (bool, error) { return p[network], nil }
func (podman) Connect(context.Context, runtimes.Container, string, runtimes.Wish) error {
	return nil
}
func (podman) Disconnect(context.Context, runtimes.Container, string) error { return nil }
func (podman) Joined(context.Context, runtimes.Container, string) (runtimes.Joined, error) {
	return runtimes.Joined{}, nil
}

func TestEachRuntimeIsTakenByItsRoadOrRefusedWithWhatToDo(t *testing.T) {
	a := &Attacher{Podman: podman{"weave": true}, CNI: CNI{ConfDir: "/etc/cni/net.d"}}
	web := func(runtime string, state runtimes.State, nets ...string) runtimes.Container {
		return runtimes.Container{Runtime: runtime, ID: "ab", CNI: "ab", Names: []string{"web"}, State: state, NetNS: "/proc/self/ns/net", Networks: nets}
	}
	for name, c := range map[string]struct {
		c       runtimes.Container
		network string
		ifname  string
		wish    Wish
		road    Road
		refusal string
	}{
		"podman, created":                     {web(runtimes.NamePodman, runtimes.Created), "weave", "", Wish{}, ByRuntime, ""},
		"podman, stopped":                     {web(runtimes.NamePodman, runtimes.Stopped, "podman"), "weave", "eth1", Wish{}, ByRuntime, ""},
		"podman, running":                     {web(runtimes.NamePodman, runtimes.Running), "weave", "", Wish{}, ByRuntime, ""},
		"podman, running, a second time":      {web(runtimes.NamePodman, runtimes.Running, "weave"), "weave", "", Wish{}, ByCNI, ""},
		"podman, running, of another backend": {web(runtimes.NamePodman, runtimes.Running), "other", "", Wish{}, ByCNI, ""},
		"podman, created, of another backend": {web(runtimes.NamePodman, runtimes.Created), "other", "", Wish{}, "", "podman does not know network other"},
		"podman, created, a second time":      {web(runtimes.NamePodman, runtimes.Created, "weave"), "weave", "", Wish{}, "", "start it, then plug it: podman start web"},
		"podman, created, another interface":  {web(runtimes.NamePodman, runtimes.Created), "weave", "eth7", Wish{}, "", "podman would call the interface eth0"},
		"podman, created, in a subnet":        {web(runtimes.NamePodman, runtimes.Created), "weave", "", Wish{Endpoint: "weave://10.32.4.0/24"}, "", "podman cannot be told of weave://10.32.4.0/24"},
		"podman, created, at an address":      {web(runtimes.NamePodman, runtimes.Created), "weave", "", Wish{IP: netip.MustParseAddr("10.32.4.7")}, ByRuntime, ""},
		"containerd, created":                 {web(runtimes.NameContainerd, runtimes.Created), "weave", "", Wish{}, ByHook, ""},
		"nerdctl, running":                    {web(runtimes.NameNerdctl, runtimes.Running), "weave", "", Wish{}, ByHook, ""},
		"docker, running":                     {web(runtimes.NameDocker, runtimes.Running), "weave", "", Wish{}, ByCNI, ""},
		"docker, created":                     {web(runtimes.NameDocker, runtimes.Created), "weave", "", Wish{}, "", "docker knows no road"},
		"a pod":                               {web(runtimes.NameCRI, runtimes.Running), "weave", "", Wish{}, ByCNI, ""},
		"a path that is not there any more":   {runtimes.Container{Runtime: runtimes.NamePath, ID: "/run/netns/x", State: runtimes.Stopped}, "weave", "", Wish{}, "", "/run/netns/x is not there"},
	} {
		road, _, err := a.road(t.Context(), c.c, c.network, c.ifname, c.wish, nil)
		switch {
		case c.refusal == "" && (err != nil || road != c.road):
			t.Errorf("%s: %q, %v", name, road, err)
		case c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)):
			t.Errorf("%s: %q, %v", name, road, err)
		}
	}
}

func TestAnEndpointIsNamedByTheBeginningOfItsIDOrByItsContainerAndNetwork(t *testing.T) {
	a := &Attacher{Intents: Intents{Dir: t.TempDir()}, Finder: lookup{"app": "abcdef"}, Log: slog.New(slog.DiscardHandler)}
	one, two := intent(runtimes.NamePodman, "abcdef", "web", "weave", "eth1"), intent(runtimes.NamePodman, "abcdef", "web", "weave", "eth2")
	three := intent(runtimes.NamePath, "/run/netns/x", "", "backend", "eth0")
	three.Key.ContainerID = "netns-1"
	three.ID = three.Key.EndpointID()
	pod := intent(runtimes.NameCRI, "5b5b5b", "web-0", "weave", "eth1")
	pod.Container.Namespace, pod.Container.Names, pod.Container.Typed = "k8s.io", []string{"web-0", "prod/web-0"}, "nginx"
	pod.Net = Net{ID: "b1b1b1b1", Name: "blue"} // by the default list
	for _, i := range []Intent{one, two, three, pod} {
		if err := a.Intents.Put(i); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		req  ctl.DetachRequest
		want string
		code uint
	}{
		{ctl.DetachRequest{EndpointID: one.ID}, one.ID, 0},
		{ctl.DetachRequest{EndpointID: strings.ToUpper(one.ID[:9]), ContainerID: "web"}, one.ID, 0},
		{ctl.DetachRequest{EndpointID: two.ID[:9], ContainerID: "abc"}, two.ID, 0},
		{ctl.DetachRequest{EndpointID: two.ID[:9], ContainerID: "podman:abcdef"}, two.ID, 0},
		{ctl.DetachRequest{ContainerID: "/var/run/netns/x", Network: "backend"}, three.ID, 0},
		{ctl.DetachRequest{EndpointID: one.ID[:9], ContainerID: "podman:web"}, one.ID, 0},
		{ctl.DetachRequest{EndpointID: one.ID[:9], ContainerID: "podman:abc"}, one.ID, 0},
		{ctl.DetachRequest{EndpointID: one.ID[:9], ContainerID: "app"}, one.ID, 0}, // it shares the namespace, says the runtime
		{ctl.DetachRequest{EndpointID: one.ID[:9], ContainerID: "docker:web"}, "", ctl.CodeUnknownContainer},
		{ctl.DetachRequest{EndpointID: one.ID[:1]}, "", ctl.CodeInvalidConfig},
		{ctl.DetachRequest{EndpointID: one.ID[:4], ContainerID: "web"}, one.ID, 0},
		{ctl.DetachRequest{ContainerID: "prod/web-0", Network: "blue"}, pod.ID, 0},
		{ctl.DetachRequest{ContainerID: "cri:prod/web-0", Network: "b1b1"}, pod.ID, 0},
		{ctl.DetachRequest{ContainerID: "nginx", Network: "blue"}, pod.ID, 0},
		{ctl.DetachRequest{ContainerID: "cri:k8s.io/5b5", Network: "blue"}, pod.ID, 0},
		{ctl.DetachRequest{ContainerID: "web-0", Network: "weave"}, "", ctl.CodeUnknownContainer}, // it is on blue
		{ctl.DetachRequest{ContainerID: "web-0", Network: "weave://"}, "", ctl.CodeUnknownContainer},
		{ctl.DetachRequest{ContainerID: "web-0", Network: "weave://blue"}, pod.ID, 0},
		{ctl.DetachRequest{ContainerID: "web-0", Network: "10.2.0.0/16"}, "", ctl.CodeInvalidConfig},
		{ctl.DetachRequest{EndpointID: three.ID, ContainerID: "web"}, "", ctl.CodeUnknownContainer},
		{ctl.DetachRequest{ContainerID: "web", Network: "weave"}, "", ctl.CodeAmbiguous},
		{ctl.DetachRequest{ContainerID: "web"}, "", ctl.CodeInvalidConfig},
		{ctl.DetachRequest{}, "", ctl.CodeInvalidConfig},
	} {
		i, err := a.wanted(t.Context(), c.req)
		var coded *ctl.Error
		if c.code == 0 && (err != nil || i.ID != c.want) || c.code != 0 && (!errors.As(err, &coded) || coded.Code != c.code) {
			t.Errorf("%+v: got %.9s, %v", c.req, i.ID, err)
		}
	}
}

// cluster answers as a router that has two networks, of which one is another host's.
type cluster struct{}

func (cluster) Call(_ context.Context, path string, in, out any) error {
	nets := []ctl.Net{
		{ID: strings.Repeat("ab", 32), Name: "backend", Driver: ctl.DriverWeave, Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}},
		{ID: strings.Repeat("cd", 32), Name: "far", Driver: ctl.DriverSimpleBridge, Host: "h9", State: "elsewhere"},
	}
	switch in := in.(type) {
	case ctl.NetworkRequest:
		if !strings.HasPrefix(in.Endpoint, "weave://10.2.") {
			return ctl.Errorf(ctl.CodeInvalidConfig, "no network holds %s", in.Endpoint)
		}
		*out.(*ctl.Network) = ctl.Network{ID: nets[0].ID, Name: nets[0].Name}
		return nil
	case ctl.NetRef:
		for _, n := range nets {
			if n.Name == in.Ref || strings.HasPrefix(n.ID, in.Ref) {
				*out.(*ctl.Net) = n
				return nil
			}
		}
	}
	return ctl.Errorf(ctl.CodeUnknownContainer, "no network is called so: there are backend, far")
}

func TestAnEndpointLeadsToANetworkListOfThisHost(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		text := `{"cniVersion":"1.0.0","name":"` + name + `","plugins":[{"type":"weave-net"}]}`
		if err := os.WriteFile(filepath.Join(dir, name+".conflist"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("weave")
	write("own")
	if err := os.WriteFile(filepath.Join(dir, "00-foreign.conflist"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &Attacher{CNI: CNI{ConfDir: dir}, Router: cluster{}}
	look := func(text, network, rest, ip, refusal string) {
		t.Helper()
		got, w, err := a.wish(t.Context(), ctl.AttachRequest{Endpoint: text, Names: []string{"n"}}, runtimes.Container{})
		have := ""
		if w.IP.IsValid() {
			have = w.IP.String()
		}
		switch {
		case refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal)):
			t.Errorf("%q: %+v, %v, want %q", text, got, err, refusal)
		case refusal == "" && (err != nil || got.list != network || w.Endpoint != rest || have != ip):
			t.Errorf("%q: %+v, %+v, %v", text, got, w, err)
		}
	}
	look("", "weave", "", "", "")
	look("weave://?alias=db", "weave", "", "", "")
	look("weave://own?dns=no", "own", "weave://own?dns%3Dno", "", "")
	look("backend", "weave", "weave://"+strings.Repeat("ab", 32), "", "") // no list of its own yet
	write("backend")
	look("backend", "backend", "", "", "")
	look("ababab", "backend", "", "", "")
	look("10.2.67.0/24", "backend", "weave://10.2.67.0/24", "", "")
	look("weave://10.2.45.3/24", "backend", "weave://10.2.45.3/24", "", "")
	look("weave://10.2.45.3/16", "backend", "", "10.2.45.3", "")
	look("10.9.0.0/24", "", "", "", "no network holds")
	look("far", "", "", "", "of host h9: plug there")
	look("nonet", "", "", "", `this host has no network "nonet"`)
	look("10.2.45.3", "", "", "", "want one like")
	if _, w, err := a.wish(t.Context(), ctl.AttachRequest{Endpoint: "own?alias=db", Names: []string{"n"}, Aliases: []string{"x"}}, runtimes.Container{}); err != nil || !slices.Equal(w.Names, []string{"n", "x", "db"}) {
		t.Errorf("%+v, %v", w, err)
	}
}

func TestAContainerIsCalledWhatItIsCalledWhereItIsFrom(t *testing.T) {
	for _, c := range []struct {
		c    runtimes.Container
		want []string
	}{
		{runtimes.Container{Runtime: runtimes.NamePodman, Names: []string{"web"}}, []string{"web"}},
		{runtimes.Container{Runtime: runtimes.NameContainerd, ID: "web"}, []string{"web"}},
		{runtimes.Container{Runtime: runtimes.NameContainerd, ID: strings.Repeat("a", 64)}, nil},
		{runtimes.Container{Runtime: runtimes.NameCRI, Names: []string{"web-0", "prod/web-0"}}, []string{"web-0.prod"}},
		{runtimes.Container{Runtime: runtimes.NameDocker, Names: []string{"-no-"}}, nil},
		{runtimes.Container{Runtime: runtimes.NamePID, ID: "7"}, nil},
	} {
		if got := givenName(c.c); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.c, got, c.want)
		}
	}
}

func TestAnEndpointIsToldByAShortIDAndTheContainersName(t *testing.T) {
	i := Intent{ID: strings.Repeat("e", 64), Container: Container{Runtime: "podman", ID: strings.Repeat("c", 64), Name: "web"}}
	i.Key.IfName, i.Key.Network = "eth1", "blue"
	if got, want := i.String(), "endpoint eeeeeeeeeeee (eth1 of podman:cccccccccccc (web) on network "; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
