package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// box is a container of its own: a process in a network namespace that the test made.
func box(t *testing.T, runtime, id string, links ...string) runtimes.Container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: wants root, for a network namespace of its own")
	}
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	c := runtimes.Container{Runtime: runtime, ID: id, CNI: id, State: runtimes.Running, PID: cmd.Process.Pid, NetNS: fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)}
	for _, l := range links {
		if out, err := exec.Command("nsenter", "--net="+c.NetNS, "ip", "link", "add", l, "type", "bridge").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return c
}

func links(t *testing.T, c runtimes.Container, names ...string) (have []string) {
	t.Helper()
	for _, n := range names {
		if has, err := hasLink(c.NetNS, n); err != nil {
			t.Fatal(err)
		} else if has {
			have = append(have, n)
		}
	}
	return have
}

// scene answers what a test has the container be: first of Find, then of each Again, the
// last of them for ever.
type scene struct {
	found runtimes.Container
	again []runtimes.Container
	err   error // of Again
}

func (s *scene) Find(context.Context, string) (runtimes.Container, error) { return s.found, nil }
func (s *scene) Again(context.Context, runtimes.Container) (runtimes.Container, error) {
	if s.err != nil {
		return runtimes.Container{}, s.err
	}
	if len(s.again) == 0 {
		return s.found, nil
	}
	c := s.again[0]
	if len(s.again) > 1 {
		s.again = s.again[1:]
	}
	return c, nil
}

type hooks struct{ added, dropped int }

func (h *hooks) AddHook(context.Context, runtimes.Container, runtimes.Hook) error {
	h.added++
	return nil
}
func (h *hooks) DropHook(context.Context, runtimes.Container, string) error {
	h.dropped++
	return nil
}

// nobody is a router that is away.
type nobody struct{}

func (nobody) Call(context.Context, string, any, any) error {
	return ctl.Errorf(ctl.CodeTryAgain, "it is away")
}

// dummyNet is a plugin that makes a device; it fails with what is in ADD.fails, and CHECK.fails.
const dummyNet = `#!/bin/sh
cat >/dev/null
echo "$CNI_COMMAND $CNI_IFNAME $CNI_NETNS" >>DIR/calls
if [ -e DIR/$CNI_COMMAND.fails ]; then cat DIR/$CNI_COMMAND.fails; exit 1; fi
case $CNI_COMMAND in
ADD) nsenter --net=$CNI_NETNS ip link add $CNI_IFNAME type bridge && echo '{"cniVersion":"1.0.0"}' ;;
DEL) [ -z "$CNI_NETNS" ] || nsenter --net=$CNI_NETNS ip link del $CNI_IFNAME || true ;;
esac
`

// stage is an Attacher over a plugin that the test sees the calls of.
type stage struct {
	*Attacher
	t   *testing.T
	dir string
	*scene
	*hooks
}

func newStage(t *testing.T, found runtimes.Container, again ...runtimes.Container) stage {
	t.Helper()
	s := stage{t: t, dir: t.TempDir(), scene: &scene{found: found, again: again}, hooks: &hooks{}}
	s.write("weave.conflist", `{"cniVersion":"1.0.0","name":"weave","plugins":[{"type":"dummynet"}]}`)
	s.write("dummynet", strings.ReplaceAll(dummyNet, "DIR", s.dir))
	s.Attacher = &Attacher{
		CNI:     CNI{ConfDir: s.dir, PluginDirs: []string{s.dir}, CacheDir: filepath.Join(s.dir, "cni")},
		Intents: Intents{Dir: filepath.Join(s.dir, "plugs")}, Finder: s.scene, Hooks: s.hooks, Router: nobody{},
		Hook: []string{"/weave"}, Log: slog.New(slog.DiscardHandler),
	}
	return s
}

func (s stage) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s stage) calls() []string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "calls"))
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func (s stage) intents() []Intent {
	s.t.Helper()
	all, err := s.Intents.All()
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func codeOf(err error) uint {
	var coded *ctl.Error
	if errors.As(err, &coded) {
		return coded.Code
	}
	return 0
}
