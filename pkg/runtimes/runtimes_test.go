package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func refs(list []Container) (out []string) {
	for _, c := range list {
		out = append(out, c.Ref())
	}
	slices.Sort(out)
	return out
}

func TestATextMeansTheContainersThatHaveItElseThoseWhoseIDBeginsWithIt(t *testing.T) {
	all := []Container{
		{Runtime: NamePodman, ID: "ca88a6e123", Names: []string{"web"}},
		{Runtime: NamePodman, ID: "ca88b00000", Names: []string{"ca88"}},
		{Runtime: NameDocker, ID: "web123"},
		{Runtime: NameContainerd, Namespace: "default", ID: "web"},
		{Runtime: NameContainerd, Namespace: "e2e", ID: "web"},
		{Runtime: NameNerdctl, Namespace: "default", ID: "5e24637c4a1a", Names: []string{"hopper"}},
		{Runtime: NameCRI, Namespace: "k8s.io", ID: "f00d", Names: []string{"web-0", "prod/web-0"}},
	}
	for text, want := range map[string][]string{
		"hopper":               {"nerdctl:default/5e24637c4a1a"},
		"5e24":                 {"nerdctl:default/5e24637c4a1a"},
		"nerdctl:default/5e24": {"nerdctl:default/5e24637c4a1a"},
		"web":                  {"containerd:default/web", "containerd:e2e/web", "podman:ca88a6e123"}, // not docker's, which only begins like that
		"podman:web":           {"podman:ca88a6e123"},
		"e2e/web":              {"containerd:e2e/web"},
		"containerd:e2e/web":   {"containerd:e2e/web"},
		"ca88":                 {"podman:ca88b00000"}, // a name goes before the beginning of an id
		"ca88a":                {"podman:ca88a6e123"},
		"ca8":                  {"podman:ca88a6e123", "podman:ca88b00000"},
		"ca":                   nil, // two digits are no beginning
		"we":                   nil,
		"web1":                 nil, // what a person chose is a name
		"e2e/we":               nil,
		"prod/web-0":           {"cri:k8s.io/f00d"},
		"docker:":              nil,
		"":                     nil,
		"nothing":              nil,
	} {
		if got, _ := Choose(text, all); !slices.Equal(refs(got), want) {
			t.Errorf("%q: got %q, want %q", text, refs(got), want)
		}
	}
}

// shelf is a runtime that has what a test put on it.
type shelf struct {
	name string
	has  []Container
	err  error
}

func (s shelf) Name() string                              { return s.name }
func (s shelf) List(context.Context) ([]Container, error) { return s.has, s.err }
func (s shelf) Look(_ context.Context, c Container) (Container, error) {
	for _, h := range s.has {
		if h.ID == c.ID {
			return h, s.err
		}
	}
	return Container{}, ErrGone
}

func TestFindSaysWhatItDidNotFindAndWhy(t *testing.T) {
	pod := Container{Runtime: NamePodman, ID: "aaaa", Names: []string{"infra"}}
	member := Container{Runtime: NamePodman, ID: "abcd", Names: []string{"app"}, Shares: "podman:aaaa"}
	here := shelf{name: NamePodman, has: []Container{pod, member}}
	for _, c := range []struct {
		text, want string
		code       uint
		runtimes   []Runtime
	}{
		{"app", "podman:aaaa", 0, []Runtime{here}},
		{"app", "podman:aaaa", 0, []Runtime{here, shelf{name: NameDocker, err: absent(os.ErrNotExist)}}},
		{"podman:abcd", "podman:aaaa", 0, []Runtime{here}},
		{"abcd", "podman:aaaa", 0, []Runtime{here, shelf{name: NameDocker, err: errors.New("it hangs")}}}, // its whole id
		{"abc", "podman:aaaa", 0, []Runtime{here}},
		{"abc", "docker: it hangs", ctl.CodeTryAgain, []Runtime{here, shelf{name: NameDocker, err: errors.New("it hangs")}}}, // docker may have an abc
		{"podman:abc", "podman:aaaa", 0, []Runtime{here, shelf{name: NameDocker, err: errors.New("it hangs")}}},
		{"aaa", "2 containers are called", ctl.CodeAmbiguous, []Runtime{shelf{name: NamePodman, has: []Container{pod, {Runtime: NamePodman, ID: "aaab"}}}}},
		{"b", `no container "b"`, ctl.CodeUnknownContainer, []Runtime{here}},
		{"b", "docker: it hangs", ctl.CodeTryAgain, []Runtime{here, shelf{name: NameDocker, err: errors.New("it hangs")}}},
		{"podman:b", `no container`, ctl.CodeUnknownContainer, []Runtime{here, shelf{name: NameDocker, err: errors.New("it hangs")}}},
		{"/run/netns/there-is-none", "no network namespace", ctl.CodeUnknownContainer, nil},
		{"pid:0", "want the number", ctl.CodeUnknownContainer, nil},
	} {
		got, err := Finder{c.runtimes}.Find(t.Context(), c.text)
		if c.code == 0 {
			if err != nil || got.Ref() != c.want {
				t.Errorf("%q: got %v, %v", c.text, got, err)
			}
			continue
		}
		var coded *ctl.Error
		if !errors.As(err, &coded) || coded.Code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want code %d and %q", c.text, err, c.code, c.want)
		}
	}
}

func TestAProcessIsAContainerForAsLongAsItLives(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := Finder{}.Find(t.Context(), "/proc/"+itoa(cmd.Process.Pid)+"/ns/net")
	if err != nil || c.Ref() != "pid:"+itoa(cmd.Process.Pid) || c.State != Running {
		t.Fatalf("got %+v, %v", c, err)
	}
	if again, err := (Finder{}).Again(t.Context(), c); err != nil || again.CNI != c.CNI {
		t.Errorf("again: %+v, %v", again, err)
	}
	other := c
	other.CNI = "pid-1-1"
	if _, err := (Finder{}).Again(t.Context(), other); !errors.Is(err, ErrGone) {
		t.Errorf("a process that was started at another time is not the same: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := (Finder{}).Again(t.Context(), c); !errors.Is(err, ErrGone) {
		t.Errorf("after its end: %v", err)
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestAPathIsOneContainerByEachOfItsNames(t *testing.T) {
	x, err1 := byPath("/proc/self/ns/net")
	y, err2 := byPath("/proc//self/ns/../ns/net")
	if err1 != nil || err2 != nil || x.CNI != y.CNI || x.Ref() != "/proc/self/ns/net" {
		t.Errorf("%v %v %+v %+v", err1, err2, x, y)
	}
}

func TestWhatPodmanSaysIsRead(t *testing.T) {
	d, err := podmanInspected([]byte(`[{"Id":"ab12","Name":"web","State":{"Status":"running","Pid":42},
		"NetworkSettings":{"SandboxKey":"/run/netns/netns-1","Networks":{"weave":{"IPAddress":"10.32.0.5","IPPrefixLen":12,"Gateway":"10.32.0.1","MacAddress":"02:42:0a:20:00:05",
		"GlobalIPv6Address":"fd00::5","GlobalIPv6PrefixLen":64}}},
		"HostConfig":{"NetworkMode":"bridge"},"Config":{"CreateCommand":["podman","run","--network","weave:interface_name=foo,ip=10.32.0.5"]}}]`))
	if err != nil {
		t.Fatal(err)
	}
	if d.Ref() != "podman:ab12" || d.State != Running || d.NetNS != "/run/netns/netns-1" || d.HostNet || d.Shares != "" ||
		!slices.Equal(d.Networks, []string{"weave"}) || !slices.Equal(d.Taken, []string{"foo"}) {
		t.Errorf("got %+v", d.Container)
	}
	j := d.nets["weave"].joined()
	if len(j.Addresses) != 2 || j.Addresses[0].String() != "10.32.0.5/12" || j.Addresses[1].String() != "fd00::5/64" || len(j.Gateways) != 1 || j.MAC == "" {
		t.Errorf("got %+v", j)
	}
	d, err = podmanInspected([]byte(`[{"Id":"ab12","State":{"Status":"created"},"HostConfig":{"NetworkMode":"container:99"}}]`))
	if err != nil || d.State != Created || d.NetNS != "" || d.Shares != "podman:99" {
		t.Errorf("got %+v, %v", d.Container, err)
	}
	list, err := podmanList([]byte(`[{"Id":"a","Names":["x"],"State":"exited","Pid":0},{"Id":"b","State":"paused","Pid":7}]`))
	if err != nil || len(list) != 2 || list[0].State != Stopped || list[1].State != Running {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestARuntimeThatIsNotThereIsAbsentAndOneThatHangsIsNot(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.sock")
	for _, r := range []Runtime{Podman{Program: "no-such-podman"}, Containerd{Socket: none}, Docker{Socket: none}} {
		if _, err := r.List(t.Context()); !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v", r.Name(), err)
		}
	}
	mute := filepath.Join(t.TempDir(), "mute.sock")
	l, err := net.Listen("unix", mute)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	slow := filepath.Join(t.TempDir(), "podman")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\nsleep 1000 & wait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Runtime{Podman{Program: slow}, Containerd{Socket: mute}, Docker{Socket: mute}} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := r.List(ctx)
		cancel()
		if err == nil || errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v", r.Name(), err)
		}
	}
}

// dockerd answers as dockerd 20.10 and later do.
func dockerd(t *testing.T) Docker {
	socket := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`[{"Id":"d1","Names":["/web","/other/link"],"State":"running"},{"Id":"d2","Names":["/idle"],"State":"created"}]`))
	})
	mux.HandleFunc("GET /containers/d1/json", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"Id":"d1","Name":"/web","State":{"Status":"running","Pid":77},"HostConfig":{"NetworkMode":"default"},"NetworkSettings":{"Networks":{"bridge":{}}}}`))
	})
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
	return Docker{Socket: socket}
}

func TestWhatDockerdSaysIsRead(t *testing.T) {
	f := Finder{[]Runtime{dockerd(t)}}
	c, err := f.Find(t.Context(), "web")
	if err != nil || c.Ref() != "docker:d1" || c.State != Running || c.NetNS != "/proc/77/ns/net" || c.CNI != "d1" || c.Name() != "web" {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := f.Find(t.Context(), "idle"); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("one that went between the questions: %v", err)
	}
}

func TestAHookIsAddedAfterTheOthersAndOnceAndAllElseStays(t *testing.T) {
	spec := []byte(`{"ociVersion":"1.1.0","new":{"key":[1,2.50]},"hooks":{"createRuntime":[{"path":"/nerdctl","args":["nerdctl","internal"],"new":1}],"postStop":[{"path":"/x"}]}}`)
	h := Hook{Path: "/w", Args: []string{"w", "net", "hook", "e1"}}
	one, err := withHook(spec, h)
	if err != nil {
		t.Fatal(err)
	}
	two, err := withHook(one, h)
	if err != nil || string(one) != string(two) {
		t.Errorf("added twice: %s, %v", two, err)
	}
	var s struct {
		New   struct{ Key []json.Number }
		Hooks map[string][]map[string]any
	}
	if err := json.Unmarshal(two, &s); err != nil {
		t.Fatal(err)
	}
	list := s.Hooks["createRuntime"]
	if len(list) != 2 || list[0]["path"] != "/nerdctl" || list[0]["new"] == nil || list[1]["path"] != "/w" || len(s.Hooks["postStop"]) != 1 || s.New.Key[1] != "2.50" {
		t.Errorf("got %s", two)
	}
	back, err := withoutHook(two, "e1")
	if err != nil || !same(back, spec) {
		t.Errorf("taken away: %s, %v", back, err)
	}
	if none, err := withoutHook(back, "e1"); none != nil || err != nil {
		t.Errorf("nothing to take away: %s, %v", none, err)
	}
	bare, err := withHook([]byte(`{"a":1}`), h)
	if err != nil {
		t.Fatal(err)
	}
	if bare, err = withoutHook(bare, "e1"); err != nil || string(bare) != `{"a":1}` {
		t.Errorf("got %s, %v", bare, err)
	}
}

func same(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

func FuzzWhatRuntimesSayIsReadWithoutPanic(f *testing.F) {
	f.Add([]byte(`{"hooks":{"createRuntime":[{"args":["e1"]}]}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[{"Id":"a","NetworkSettings":{"Networks":{"x":{"IPAddress":"1.2.3.4","IPPrefixLen":99}}}}]`))
	f.Add([]byte("42 (a b) c) S 1 2 3"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if with, err := withHook(text, Hook{Path: "/w", Args: []string{"e1"}}); err == nil {
			if without, err := withoutHook(with, "e1"); err != nil || without == nil {
				t.Errorf("%s: %s, %v", text, without, err)
			}
		}
		if d, err := podmanInspected(text); err == nil {
			for _, n := range d.nets {
				n.joined()
			}
		}
		podmanList(text)
		startOf(string(text))
	})
}
