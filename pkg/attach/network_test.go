package attach

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/conflist"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// ids of two networks of one name.
var (
	firstID  = strings.Repeat("c6", 32)
	secondID = strings.Repeat("d2", 32)
)

// list writes the list that the router has for a network.
func (s stage) list(name, id string) {
	s.write(conflist.FileName(name), `{"cniVersion":"1.0.0","name":"`+name+`","weave.managed":"`+id+`","plugins":[{"type":"dummynet"}]}`)
}

// knowing is a router that has the networks of these ids.
type knowing map[string]bool

func (k knowing) Call(_ context.Context, path string, in, _ any) error {
	if ref, is := in.(ctl.NetRef); is && !k[ref.Ref] {
		return ctl.Errorf(ctl.CodeInvalidConfig, "no network is called so")
	}
	return nil
}

// noting is a podman that notes what it was to disconnect.
type noting struct {
	podman
	from *[]string
}

func (n noting) Disconnect(_ context.Context, c runtimes.Container, network string) error {
	*n.from = append(*n.from, c.ID+" "+network)
	return nil
}

func TestAPlugDoesNotFollowItsNetworksNameToAnother(t *testing.T) {
	c := box(t, runtimes.NameDocker, "aa")
	s := newStage(t, c)
	s.list("lab3", firstID)
	out, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web", Endpoint: "lab3"})
	if err != nil || out.NetworkID != firstID {
		t.Fatalf("got %+v, %v", out, err)
	}
	i, err := s.Intents.Get(out.EndpointID)
	if err != nil || i.Net != (Net{ID: firstID, Name: "lab3"}) {
		t.Fatalf("got %+v, %v", i, err)
	}
	s.list("lab3", secondID)
	later := box(t, runtimes.NameDocker, "aa") // its next life
	i.Life.Boot = "an earlier one"
	if err := s.Intents.Put(i); err != nil {
		t.Fatal(err)
	}
	s.found, s.again = later, nil
	calls := len(s.calls())
	for name, err := range map[string]error{
		"keep": func() error { _, err := s.Keep(t.Context(), i); return err }(),
		"hook": s.Started(t.Context(), i.ID, later.PID),
	} {
		if err == nil || !strings.Contains(err.Error(), "its network lab3 (c6c6c6c6c6c6) is gone, and another one has the name") ||
			!strings.Contains(err.Error(), "weave net unplug docker:aa "+i.ID[:12]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Unplug(t.Context(), ctl.DetachRequest{ContainerID: "docker:aa", Network: "lab3"}); err != nil || len(s.intents()) != 0 {
		t.Errorf("unplug: %v, intents %v", err, s.intents())
	}
	if got := s.calls(); len(got) != calls {
		t.Errorf("plugins were called on the other network: %q", got[calls:])
	}
}

func TestAnIntentOfBeforeTakesTheNetworkThatItFindsFirst(t *testing.T) {
	c := box(t, runtimes.NameDocker, "aa")
	s := newStage(t, c)
	s.list("lab3", firstID)
	i := intent(runtimes.NameDocker, "aa", "web", "lab3", "eth0")
	if err := s.Intents.Put(i); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it takes the id, and comes back then
		if _, err := s.Keep(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		i = s.intents()[0]
	}
	if i.Net != (Net{ID: firstID, Name: "lab3"}) || !i.lives() {
		t.Errorf("got %+v", i)
	}
	weave := intent(runtimes.NameDocker, "bb", "db", "weave", "eth0")
	s.list("weave", firstID)
	if _, unbound := s.bound(weave); unbound {
		t.Error("the default network's plugs are bound to a cluster")
	}
}

func TestARuntimeIsToldWhenTheNetworkOfItsContainersPlugIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		list   string // the id in the list of the name, "" when there is none
		router knowing
		gone   bool
	}{
		"it is there":                {firstID, knowing{}, false},
		"its list is away":           {"", knowing{firstID: true}, false},
		"its list is gone, so is it": {"", knowing{}, true},
		"another has its name":       {secondID, knowing{firstID: true}, true},
	} {
		s := newStage(t, runtimes.Container{Runtime: runtimes.NamePodman, ID: "aa", CNI: "aa", State: runtimes.Stopped})
		from := []string{}
		s.Podman, s.Router = noting{podman{}, &from}, c.router
		if c.list != "" {
			s.list("lab3", c.list)
		}
		i := intent(runtimes.NamePodman, "aa", "web", "lab3", "eth1")
		i.Road, i.Net = ByRuntime, Net{ID: firstID, Name: "lab3"}
		if err := s.Intents.Put(i); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time nothing is left to be done
			_, err := s.Keep(t.Context(), i)
			if (err != nil) != c.gone {
				t.Errorf("%s: %v", name, err)
			}
			i = s.intents()[0]
		}
		if c.gone && !slices.Equal(from, []string{"aa lab3"}) || !c.gone && len(from) != 0 {
			t.Errorf("%s: podman was told %q", name, from)
		}
		if err := s.Unplug(t.Context(), ctl.DetachRequest{EndpointID: i.ID}); err != nil || len(s.intents()) != 0 {
			t.Errorf("%s: unplug: %v", name, err)
		}
		if got := s.calls(); got[0] != "" {
			t.Errorf("%s: plugins were called: %q", name, got)
		}
	}
	s := newStage(t, runtimes.Container{})
	i := Intent{Road: ByRuntime, Net: Net{ID: firstID, Name: "lab3"}}
	i.Key.Network = "lab3"
	s.Router = nobody{}
	if err := s.ended(t.Context(), i); err != nil {
		t.Errorf("without a router that says so: %v", err)
	}
}

// nowhere has no container.
type nowhere struct{ lookup }

func (nowhere) Find(_ context.Context, text string) (runtimes.Container, error) {
	return runtimes.Container{}, ctl.Errorf(ctl.CodeUnknownContainer, "no container %q on this host", text)
}

func TestUnplugTakesWhatPsShowsAndSaysWhichOfTheTwoIsNotThere(t *testing.T) {
	s := newStage(t, runtimes.Container{})
	s.Finder = nowhere{}
	i := intent(runtimes.NamePath, "/run/netns/box", "", "weave", "eth0")
	i.Key.ContainerID = "netns-5b8684bea72e08096f9f"
	i.ID = i.Key.EndpointID()
	if err := s.Intents.Put(i); err != nil {
		t.Fatal(err)
	}
	for container, want := range map[string]string{"nosuch": `no container "nosuch" on this host`, "/run/netns/box": `no endpoint "blue" is plugged into container "/run/netns/box"`} {
		_, err := s.wanted(t.Context(), ctl.DetachRequest{ContainerID: container, Network: "blue"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", container, err)
		}
	}
	if got, err := s.wanted(t.Context(), ctl.DetachRequest{ContainerID: "netns-5b8684", Network: "weave"}); err != nil || got.ID != i.ID {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestANetworkWithoutAListIsNamedAndNotTheOneThatItsListIsMadeOf(t *testing.T) {
	a := &Attacher{CNI: CNI{ConfDir: t.TempDir()}, Router: cluster{}}
	_, _, err := a.wish(t.Context(), ctl.AttachRequest{Endpoint: "backend"}, runtimes.Container{})
	if err == nil || !strings.Contains(err.Error(), "network backend has no list on this host") || !strings.Contains(err.Error(), "weave conflist --out") {
		t.Errorf("got %v", err)
	}
}

// manifold is a router that has many networks, and not the one that is asked for.
type manifold struct{}

func (manifold) Call(context.Context, string, any, any) error {
	e := ctl.Errorf(ctl.CodeInvalidConfig, "no network is called so")
	e.Details = "there are net1 (abababababab), net2"
	return e
}

func TestThatThereIsNoNetworkListsThoseThereAreOnceAndNotAll(t *testing.T) {
	s := newStage(t, box(t, runtimes.NameDocker, "aa"))
	for i := range 20 {
		s.list(fmt.Sprintf("net%d", i), fmt.Sprintf("%064x", i))
	}
	s.Router = manifold{}
	_, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web", Endpoint: "nosuch"})
	for _, want := range []string{`this host has no network "nosuch"`, "no network is called so", "more (`weave net list`)"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "ababab") || strings.Count(err.Error(), "net1,") != 1 || strings.Count(err.Error(), "net") > 20) {
		t.Errorf("all networks, or some twice: %v", err)
	}
}

func TestASecondPlugIntoANetworkSaysSo(t *testing.T) {
	c := box(t, runtimes.NameDocker, "aa")
	s := newStage(t, c)
	s.list("lab3", firstID)
	plug := func(network string) ctl.Attached {
		t.Helper()
		out, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web", Endpoint: network})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first, other := plug("lab3"), plug("weave")
	if first.Note != "" || other.Note != "" {
		t.Errorf("networks that it was not on: %q, %q", first.Note, other.Note)
	}
	second := plug("lab3")
	if want := "web is on network lab3 already, by " + first.IfName + " (endpoint " + first.EndpointID[:12] + "), and now by " + second.IfName +
		" too; if that was not meant: weave net unplug web " + second.EndpointID[:12]; second.Note != want {
		t.Errorf("got  %q\nwant %q", second.Note, want)
	}
	i, err := s.Intents.Get(first.EndpointID)
	if err != nil {
		t.Fatal(err)
	}
	c.Networks = []string{"lab3"}
	i.Container.Typed = "box"
	if i.Key.ContainerID = "another"; !strings.Contains(s.beside(c, i), "box is on network lab3 already, by its runtime") {
		t.Errorf("got %q", s.beside(c, i))
	}
}

// only finds one container, by its Ref.
type only struct {
	nowhere
	c runtimes.Container
}

func (o only) Find(ctx context.Context, text string) (runtimes.Container, error) {
	if text == o.c.Ref() {
		return o.c, nil
	}
	return o.nowhere.Find(ctx, text)
}

func TestPlugTakesWhatPsShowsOfAContainerThatHasAPlug(t *testing.T) {
	s := newStage(t, runtimes.Container{})
	s.Finder = only{c: runtimes.Container{Runtime: runtimes.NamePath, ID: "/run/netns/box", CNI: "netns-5b8684bea72e08096f9f"}}
	i := intent(runtimes.NamePath, "/run/netns/box", "", "weave", "eth0")
	i.Key.ContainerID = "netns-5b8684bea72e08096f9f"
	i.ID = i.Key.EndpointID()
	if err := s.Intents.Put(i); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"netns-5b8684bea72e08096f9f", "netns-5b8684", "/run/netns/box"} {
		if c, err := s.container(t.Context(), ctl.AttachRequest{ContainerID: text}); err != nil || c.ID != "/run/netns/box" {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	if _, err := s.container(t.Context(), ctl.AttachRequest{ContainerID: "netns-5b8"}); codeOf(err) != ctl.CodeUnknownContainer {
		t.Errorf("less than ps shows: %v", err)
	}
}
