package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

func TestAPlugByAnInterfaceOfTheRuntimesIsRefusedAndTheInterfaceStays(t *testing.T) {
	c := box(t, runtimes.NamePodman, "aa", "eth0")
	s := newStage(t, c)
	s.Podman = podman{}
	_, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web", IfName: "eth0"})
	if codeOf(err) != ctl.CodeInvalidConfig || !strings.Contains(err.Error(), "has an interface eth0 already") {
		t.Errorf("got %v", err)
	}
	if have := links(t, c, "eth0"); len(have) != 1 || len(s.intents()) != 0 || s.calls()[0] != "" {
		t.Errorf("interfaces %q, intents %v, calls %q", have, s.intents(), s.calls())
	}
	idle := runtimes.Container{Runtime: runtimes.NameNerdctl, ID: "bb", CNI: "bb", State: runtimes.Created, Networks: []string{"weave"}}
	s = newStage(t, idle)
	if _, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "idle", IfName: "eth0"}); err == nil || !strings.Contains(err.Error(), "from its runtime") || s.added != 0 {
		t.Errorf("before it starts: %v", err)
	}
}

func TestAnADDThatFailsIsUndoneExceptWhereTheInterfaceIsAnothers(t *testing.T) {
	c := box(t, runtimes.NamePodman, "aa", "eth0")
	s := newStage(t, c)
	i := intent(runtimes.NamePodman, "aa", "", "weave", "eth0")
	s.write("weave.conflist", `{"cniVersion":"1.0.0","name":"weave","plugins":[{"type":"weave-net"}]}`)
	s.write("weave-net", strings.ReplaceAll(dummyNet, "DIR", s.dir))
	s.write("ADD.fails", `{"cniVersion":"1.0.0","code":110,"msg":"it has an interface eth0 already"}`)
	if _, err := s.CNI.add(t.Context(), i, c.NetNS); codeOf(err) != 110 {
		t.Errorf("got %v", err)
	}
	if got := s.calls(); len(got) != 1 || len(links(t, c, "eth0")) != 1 {
		t.Errorf("calls %q", got)
	}
	s.write("ADD.fails", `{"cniVersion":"1.0.0","code":100,"msg":"full"}`)
	if _, err := s.CNI.add(t.Context(), i, c.NetNS); codeOf(err) != 100 {
		t.Errorf("got %v", err)
	}
	if got := s.calls(); len(got) != 3 || !strings.HasPrefix(got[2], "DEL") {
		t.Errorf("calls %q", got)
	}
}

// halfway is a podman whose connect fails after it was written down.
type halfway struct {
	podman
	on   *[]string // what it has written down
	undo error
}

func (h halfway) Connect(_ context.Context, _ runtimes.Container, network string, _ runtimes.Wish) error {
	*h.on = append(*h.on, network)
	return errors.New("podman network connect: the ADD failed")
}

func (h halfway) Disconnect(ctx context.Context, _ runtimes.Container, network string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if h.undo == nil {
		*h.on = slices.DeleteFunc(*h.on, func(n string) bool { return n == network })
	}
	return h.undo
}

func TestAConnectThatFailedIsTakenBackOrItsIntentStays(t *testing.T) {
	for _, undo := range []error{nil, errors.New("network disconnect: it hangs")} {
		s := newStage(t, runtimes.Container{Runtime: runtimes.NamePodman, ID: "aa", CNI: "aa", State: runtimes.Created})
		on := []string{}
		s.Podman = halfway{podman{"weave": true}, &on, undo}
		_, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web"})
		if err == nil || !strings.Contains(err.Error(), "the ADD failed") {
			t.Errorf("got %v", err)
		}
		if undo == nil && (len(on) != 0 || len(s.intents()) != 0) {
			t.Errorf("podman has %q, intents %v", on, s.intents())
		}
		if undo != nil && (len(s.intents()) != 1 || !strings.Contains(err.Error(), undo.Error()) || !strings.Contains(err.Error(), "weave net unplug podman:aa "+s.intents()[0].ID[:12])) {
			t.Errorf("intents %v, error %v", s.intents(), err)
		}
	}
}

func TestAPodWhoseFirstProcessIsNotKnownIsLookedAtAndNotWrittenAnew(t *testing.T) {
	c := box(t, runtimes.NameCRI, "sb", "eth1")
	c.PID, c.Namespace = 0, "k8s.io"
	s := newStage(t, c)
	i := intent(runtimes.NameCRI, "sb", "web-0", "weave", "eth1")
	life, err := lifeOf(c)
	if err != nil {
		t.Fatal(err)
	}
	i.Life = life
	if err := s.Intents.Put(i); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(s.Intents.file(i.ID))
	s.err = errors.New("nobody is to be asked")
	if fate, err := s.Keep(t.Context(), i); fate != Lives || err != nil {
		t.Errorf("got %s, %v", fate, err)
	}
	s.err = nil
	i.Life.Path = "/run/netns/moved" // as the runtime called it before
	if fate, err := s.Keep(t.Context(), i); fate != Lives || err != nil {
		t.Errorf("got %s, %v", fate, err)
	}
	if after, _ := os.Stat(s.Intents.file(i.ID)); !os.SameFile(before, after) {
		t.Error("the intent was written anew")
	}
}

func TestWhatWasNeverMadeIsUnpluggedAndForgottenWithoutItsList(t *testing.T) {
	s := newStage(t, runtimes.Container{})
	s.err = runtimes.ErrGone
	i := intent(runtimes.NameNerdctl, "x", "web", "net1", "eth1")
	i.Road = ByHook
	for name, end := range map[string]func() error{
		"unplug": func() error { return s.Unplug(t.Context(), ctl.DetachRequest{EndpointID: i.ID}) },
		"keep":   func() error { _, err := s.Keep(t.Context(), i); return err },
	} {
		if err := s.Intents.Put(i); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil || len(s.intents()) != 0 {
			t.Errorf("%s: %v, intents %v", name, err, s.intents())
		}
	}
	i.Life = Life{PID: 1}
	s.write("broken.conflist", "{")
	if err := s.CNI.del(t.Context(), i, ""); codeOf(err) != ctl.CodeInvalidConfig {
		t.Errorf("one that was made, and whose list may be the one that cannot be read: %v", err)
	}
}

// hung never answers.
type hung struct{}

func (hung) Find(ctx context.Context, _ string) (runtimes.Container, error) {
	<-ctx.Done()
	return runtimes.Container{}, ctx.Err()
}
func (hung) Again(ctx context.Context, _ runtimes.Container) (runtimes.Container, error) {
	<-ctx.Done()
	return runtimes.Container{}, ctx.Err()
}

func TestAPlugEndsWithTimeLeftToUndoIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, has := range []time.Duration{0, 20 * time.Second, time.Minute} {
			ctx, most := t.Context(), plugIn
			if has > 0 {
				bounded, cancel := context.WithTimeout(ctx, has)
				defer cancel()
				ctx, most = bounded, min(has, plugIn)
			}
			start := time.Now()
			if _, err := (&Attacher{Finder: hung{}}).Plug(ctx, ctl.AttachRequest{ContainerID: "web"}); err == nil {
				t.Error("it was plugged")
			}
			if took := time.Since(start); took > most-delIn || took < most/2 {
				t.Errorf("with %v: it took %v", has, took)
			}
		}
	})
}

func TestAnInterfaceThatIsAnothersIsNotTakenForTheEndpoint(t *testing.T) {
	c := box(t, runtimes.NameDocker, "aa", "eth1")
	s := newStage(t, c)
	i := intent(runtimes.NameDocker, "aa", "web", "weave", "eth1")
	i.Life = Life{PID: 1, Started: 1, Boot: "an earlier one"}
	if err := s.Intents.Put(i); err != nil {
		t.Fatal(err)
	}
	if fate, err := s.Keep(t.Context(), i); codeOf(err) != ctl.CodeInvalidConfig || !strings.Contains(err.Error(), "has another eth1") {
		t.Errorf("got %s, %v", fate, err)
	}
	if err := s.Unplug(t.Context(), ctl.DetachRequest{EndpointID: i.ID}); err != nil {
		t.Error(err)
	}
	if have := links(t, c, "eth1"); len(have) != 1 {
		t.Errorf("docker's interface went with it: %q", s.calls())
	}
}

func TestAnInterfaceThatTheListsPluginsKnowIsTheEndpoint(t *testing.T) {
	c := box(t, runtimes.NameDocker, "aa")
	s := newStage(t, c)
	out, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web"})
	if err != nil {
		t.Fatal(err)
	}
	i, err := s.Intents.Get(out.EndpointID)
	if err != nil || i.Life.PID != c.PID || i.Life.Boot == "" {
		t.Fatalf("got %+v, %v", i, err)
	}
	i.Life.Started++ // as if it were another life
	if err := s.Intents.Put(i); err != nil {
		t.Fatal(err)
	}
	if fate, err := s.Keep(t.Context(), i); fate != Back || err != nil {
		t.Errorf("got %s, %v", fate, err)
	}
	s.write("CHECK.fails", `{"cniVersion":"1.0.0","code":100,"msg":"it is not as I made it"}`)
	if err := s.Intents.Put(i); err != nil { // the other life again
		t.Fatal(err)
	}
	if _, err := s.Keep(t.Context(), i); err == nil {
		t.Error("it was taken all the same")
	}
	if i, err = s.Intents.Get(i.ID); err != nil || i.lives() {
		t.Errorf("the last life: %+v, %v", i.Life, err)
	}
}

func TestAnEarlierBootsProcessIsNoneOfThisOne(t *testing.T) {
	c := box(t, runtimes.NamePodman, "aa")
	life, err := lifeOf(c)
	if err != nil {
		t.Fatal(err)
	}
	i := Intent{Life: life}
	other := box(t, runtimes.NamePodman, "bb")
	if !i.lives() {
		t.Error("it lives")
	}
	for name, change := range map[string]func(*Life){
		"another boot":      func(l *Life) { l.Boot = "b" },
		"another process":   func(l *Life) { l.Started++ },
		"another namespace": func(l *Life) { l.Path = other.NetNS },
	} {
		i.Life = life
		if change(&i.Life); i.lives() {
			t.Errorf("%s: it is taken for the same", name)
		}
	}
}

func TestAContainerThatWasStartedWhileItWasPluggedHasItsEndpoint(t *testing.T) {
	c := box(t, runtimes.NameContainerd, "aa")
	idle := c
	idle.State, idle.PID, idle.NetNS = runtimes.Created, 0, ""
	s := newStage(t, idle, idle, c)
	out, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web"})
	if err != nil || len(links(t, c, "eth0")) != 1 || s.added != 1 {
		t.Errorf("got %+v, %v, calls %q, hooks %+v", out, err, s.calls(), s.hooks)
	}
	if all := s.intents(); len(all) != 1 || all[0].Life.PID != c.PID {
		t.Errorf("got %+v", all)
	}
	s = newStage(t, idle)
	if _, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web"}); err != nil || s.calls()[0] != "" {
		t.Errorf("one that was not: %v, calls %q", err, s.calls())
	}
}

func TestAContainerIsPluggedAsItIsUnderItsLock(t *testing.T) {
	old, now := box(t, runtimes.NameDocker, "aa"), box(t, runtimes.NameDocker, "aa")
	s := newStage(t, old, now)
	if _, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web"}); err != nil {
		t.Fatal(err)
	}
	if len(links(t, old, "eth0")) != 0 || len(links(t, now, "eth0")) != 1 {
		t.Errorf("calls %q", s.calls())
	}
}

func TestTheHostsOwnNamespaceIsRefusedByAnyRoadAndAnyList(t *testing.T) {
	self := runtimes.Container{Runtime: runtimes.NamePID, ID: "1", CNI: "pid-1", State: runtimes.Running, PID: os.Getpid(), NetNS: "/proc/self/ns/net"}
	s := newStage(t, self)
	i := intent(runtimes.NamePID, "pid-1", "", "weave", "dummy99")
	if err := s.Intents.Put(i); err != nil {
		t.Fatal(err)
	}
	_, plugged := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "pid:1"})
	_, kept := s.Keep(t.Context(), i)
	for name, err := range map[string]error{"plug": plugged, "keep": kept, "hook": s.Started(t.Context(), i.ID, os.Getpid())} {
		if err == nil || !strings.Contains(err.Error(), "host's own network namespace") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.calls()[0] != "" {
		t.Errorf("calls %q", s.calls())
	}
}

// gonePodman is a host from which podman was removed.
type gonePodman struct{ podman }

func (gonePodman) Disconnect(context.Context, runtimes.Container, string) error {
	return fmt.Errorf("podman: %w", runtimes.ErrAbsent)
}

func TestARuntimeThatIsGoneOrHangsIsNotInTheWayOfUnplug(t *testing.T) {
	s := newStage(t, runtimes.Container{})
	s.Podman = gonePodman{}
	connected, hooked := intent(runtimes.NamePodman, "aa", "", "weave", "eth1"), intent(runtimes.NameContainerd, "bb", "", "weave", "eth0")
	connected.Road, hooked.Road = ByRuntime, ByHook
	s.err = errors.New("containerd did not answer in time")
	for _, i := range []Intent{connected, hooked} {
		if err := s.Intents.Put(i); err != nil {
			t.Fatal(err)
		}
		if err := s.Unplug(t.Context(), ctl.DetachRequest{EndpointID: i.ID}); err != nil {
			t.Errorf("%s: %v", i.Road, err)
		}
	}
	if got := s.calls(); len(got) != 1 || got[0] != "DEL eth0" && got[0] != "DEL eth0 " {
		t.Errorf("calls %q", got)
	}
}

func TestTheAnswerAndTheIntentNameTheNetworkThatItIsOn(t *testing.T) {
	c := box(t, runtimes.NameDocker, "aa")
	s := newStage(t, c)
	s.Router = cluster{}
	out, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web", Endpoint: "backend", Labels: map[string]string{"of": "us"}})
	if err != nil || out.Network != "backend" || !strings.HasPrefix(out.NetworkID, "abab") || out.Labels["of"] != "us" {
		t.Errorf("got %+v, %v", out, err)
	}
	if err := s.Unplug(t.Context(), ctl.DetachRequest{ContainerID: "web", Network: "backend"}); err != nil || len(s.intents()) != 0 {
		t.Errorf("got %v, intents %v", err, s.intents())
	}
}

func TestAConnectThatFailedIsNotBackBeforeItsInterfaceIsThere(t *testing.T) {
	c := box(t, runtimes.NamePodman, "aa")
	s := newStage(t, c)
	s.Podman = halfway{podman{"weave": true}, &[]string{}, errors.New("it hangs")}
	_, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web"})
	all := s.intents()
	if err == nil || len(all) != 1 {
		t.Fatal(err, all)
	}
	fate, err := s.Keep(t.Context(), all[0])
	var said *ctl.Error
	if fate == Back || s.intents()[0].Life != (Life{}) || !errors.As(err, &said) || !strings.Contains(said.Details, "weave net unplug podman:aa "+all[0].ID[:12]) {
		t.Errorf("%s, %v, and there is no such interface", fate, err)
	}
	if out, err := exec.Command("nsenter", "--net="+c.NetNS, "ip", "link", "add", all[0].Key.IfName, "type", "bridge").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if fate, err = s.Keep(t.Context(), all[0]); fate != Back || err != nil || s.intents()[0].Life == (Life{}) {
		t.Errorf("with the interface: %s, %v", fate, err)
	}
}

func TestWhatWasMadeIsUndoneWhateverCodeAPluginOfOthersMakesUp(t *testing.T) {
	c := box(t, runtimes.NameDocker, "aa")
	s := newStage(t, c)
	s.write("weave.conflist", `{"cniVersion":"1.0.0","name":"weave","plugins":[{"type":"dummynet"},{"type":"other"}]}`)
	s.write("other", "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = ADD ] && { echo '{\"cniVersion\":\"1.0.0\",\"code\":110,\"msg\":\"mine\"}'; exit 1; }\nexit 0\n")
	if _, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web"}); err == nil {
		t.Fatal("it was plugged")
	}
	if have := links(t, c, "eth0"); len(have) > 0 {
		t.Errorf("left behind, and no intent knows it: %v (intents %v)", have, s.intents())
	}
}

// wrapped is a podman that hands an error of our plugin on.
type wrapped struct {
	podman
	err error
}

func (w wrapped) Connect(context.Context, runtimes.Container, string, runtimes.Wish) error {
	return w.err
}
func (wrapped) Disconnect(context.Context, runtimes.Container, string) error { return nil }

func TestARouterThatDoesNotAnswerIsToBeAskedAgainWhoeverHandsThatOn(t *testing.T) {
	none := filepath.Join(t.TempDir(), "s")
	away := ctl.New(none, 0).Call(t.Context(), ctl.PathReady, nil, nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	l, err := net.Listen("unix", none)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	late := ctl.New(none, 0).Call(ended, ctl.PathReady, nil, nil)
	for _, no := range []error{away, late} {
		if codeOf(no) != ctl.CodeTryAgain || !ctl.TellsNoAnswer(no.Error()) {
			t.Errorf("the router's client: %v", no)
		}
		s := newStage(t, runtimes.Container{Runtime: runtimes.NamePodman, ID: "aa", CNI: "aa", State: runtimes.Created})
		s.Podman = wrapped{podman{"weave": true}, fmt.Errorf(`podman network connect weave aa: exit status 125: Error: plugin type="weave-net" failed (add): %v`, no)}
		if _, err := s.Plug(t.Context(), ctl.AttachRequest{ContainerID: "web"}); codeOf(err) != ctl.CodeTryAgain || !strings.Contains(err.Error(), no.Error()) {
			t.Errorf("by podman: code %d, %v", codeOf(err), err)
		}
		c := box(t, runtimes.NamePodman, "bb")
		s.write("weave.conflist", `{"cniVersion":"1.0.0","name":"weave","plugins":[{"type":"dummynet"}]}`)
		text, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "code": 999, "msg": "its IPAM plugin failed", "details": no.Error()})
		if err != nil {
			t.Fatal(err)
		}
		s.write("ADD.fails", string(text))
		if _, err := s.CNI.add(t.Context(), intent(runtimes.NamePodman, "bb", "", "weave", "eth0"), c.NetNS); codeOf(err) != ctl.CodeTryAgain {
			t.Errorf("by another's plugin: code %d, %v", codeOf(err), err)
		}
	}
	if err := errors.New("podman network connect: no space left"); codeOf(coded(err, err)) != ctl.CodeInvalidConfig {
		t.Errorf("any other error: %v", coded(err, err))
	}
}

func TestOfSeveralEndpointsEachIsNamedAsAPersonKnowsItAndShort(t *testing.T) {
	id := strings.Repeat("ae3bd4a0", 8)
	web, at := intent(runtimes.NamePodman, id, "web", "weave", "eth1"), intent(runtimes.NamePath, "/run/netns/a-name-that-is-long-enough", "", "weave", "eth0")
	err := notOne(ctl.DetachRequest{ContainerID: "web", Network: "weave"}, []Intent{web, at})
	for _, words := range []string{
		web.ID[:12] + " (eth1 of web (podman:ae3bd4a0ae3b) on network weave)", at.ID[:12] + " (eth0 of /run/netns/a-name-that-is-long-enough on network weave)",
	} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("without %q: %v", words, err)
		}
	}
	if strings.Contains(err.Error(), id) || codeOf(err) != ctl.CodeAmbiguous {
		t.Error(err)
	}
}
