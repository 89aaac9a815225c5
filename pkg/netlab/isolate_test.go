package netlab_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// traces is what a program could leave behind, as this one sees it.
func traces(t *testing.T) netlab.World {
	t.Helper()
	var b strings.Builder
	pids, err := filepath.Glob("/proc/[0-9]*")
	ok(t, err)
	for _, p := range pids {
		cmd, err := os.ReadFile(p + "/cmdline")
		if err == nil {
			fmt.Fprintf(&b, "process %s %q\n", p, cmd)
		}
	}
	spaces := map[string]bool{}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/*")
	ok(t, err)
	for _, p := range tasks {
		if l, err := os.Readlink(p); err == nil {
			spaces[l] = true
		}
	}
	for _, s := range slices.Sorted(maps.Keys(spaces)) {
		fmt.Fprintln(&b, "namespace", s)
	}
	for _, glob := range []string{"/proc/self/fd/*", "/run/*", "/sys/class/net/*"} {
		names, err := filepath.Glob(glob)
		ok(t, err)
		fmt.Fprintln(&b, glob, len(names))
	}
	links, err := exec.Command("ip", "-o", "link").Output()
	ok(t, err)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	ok(t, err)
	return netlab.World{"trace": strings.Split(b.String()+string(links)+string(mounts), "\n")}
}

// wantTraces waits until the traces are what they were.
func wantTraces(t *testing.T, before netlab.World) {
	t.Helper()
	err := netlab.Wait(patience, "nothing is left behind", func() error {
		if diff := before.Diff(traces(t)); diff != "" {
			return fmt.Errorf("it differs:\n%s", diff)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// tether makes a link whose other end lies in the network namespace of a
// process: it goes when that namespace really ends.
func tether(t *testing.T, pid int) {
	t.Helper()
	out, err := exec.Command("ip", "link", "add", "tether", "type", "veth", "peer", "name", "tether", "netns", fmt.Sprint(pid)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// occupy fills a lab with what is hard to be rid of.
func occupy(lab *netlab.Lab) (*netlab.Daemon, error) {
	h := lab.Host(0)
	c, err := h.NewContainer("web")
	if err != nil {
		return nil, err
	}
	// A daemon that nobody is the parent of and that ignores signals, and one that stands still.
	if _, err := h.Run("sh", "-c", "setsid -f sh -c 'trap : TERM HUP INT; while :; do sleep 77; done' >/dev/null 2>&1 </dev/null"); err != nil {
		return nil, err
	}
	frozen, err := c.Start("sleep", "77")
	if err != nil {
		return nil, err
	}
	if err := frozen.Pause(); err != nil {
		return nil, err
	}
	return h.Start("sleep", "7777")
}

func TestCloseLeavesNothing(t *testing.T) {
	if _, err := netlab.Open(netlab.Options{Hosts: -1}); err == nil {
		t.Error("a lab of -1 hosts opened")
	}
	first, err := netlab.Open(netlab.Options{}) // what the runtime opens but once (epoll) is open then
	if err != nil {
		t.Skip(err)
	}
	ok(t, first.Close())
	before := traces(t)
	for range 3 {
		lab, err := netlab.Open(netlab.Options{Hosts: 3, Outside: true})
		ok(t, err)
		d, err := occupy(lab)
		ok(t, err)
		tether(t, d.PID())
		ok(t, lab.Close())
		ok(t, lab.Close())
		wantTraces(t, before)
	}
	if _, err := netlab.Open(netlab.Options{Private: []string{"/usr/lib/not-there/x"}}); err == nil || !strings.Contains(err.Error(), "/usr/lib") {
		t.Errorf("a mount point on the machine itself: %v", err)
	}
	wantTraces(t, before)
}

const helperEnv = "NETLAB_TEST_HELPER"

// TestHelper is no test: the tests below run it in a program of its own.
func TestHelper(t *testing.T) {
	how := os.Getenv(helperEnv)
	if how == "" {
		return
	}
	lab := netlab.New(t, netlab.Options{Hosts: 2})
	_, err := occupy(lab)
	ok(t, err)
	fmt.Println("ready")
	io.ReadFull(os.Stdin, make([]byte, 1))
	switch how {
	case "panic":
		panic("as asked")
	case "fatal":
		t.Fatal("as asked")
	case "exit":
		os.Exit(5)
	case "suicide":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	select {} // until it is killed
}

// outside runs this test binary as a program that is not isolated yet, with a
// command before it if there is one. The binary is a copy that anybody may run.
func outside(t *testing.T, how, run string, before ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("", "netlab")
	ok(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ok(t, os.Chmod(dir, 0o755))
	self, err := os.ReadFile("/proc/self/exe")
	ok(t, err)
	bin := filepath.Join(dir, "netlab.test")
	ok(t, os.WriteFile(bin, self, 0o755))
	args := append(before, bin, "-test.run="+run, "-test.v", "-test.short")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "NETLAB_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, helperEnv+"="+how)
	return cmd
}

var nobody = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}

func TestHoweverAProgramEndsNothingOfItsLabStays(t *testing.T) {
	probe, err := netlab.Open(netlab.Options{})
	if err != nil {
		t.Skip(err)
	}
	ok(t, probe.Close())
	users := map[string][]string{"as root": nil}
	if os.Getenv(helperEnv) == "" {
		users["as nobody"] = nobody
	}
	for user, as := range users {
		for _, how := range []string{"killed", "terminated", "panic", "fatal", "exit", "suicide"} {
			t.Run(how+" "+user, func(t *testing.T) {
				before := traces(t)
				cmd := outside(t, how, "^TestHelper$", as...)
				in, err := cmd.StdinPipe()
				ok(t, err)
				out, err := cmd.StdoutPipe()
				ok(t, err)
				ok(t, cmd.Start())
				var said strings.Builder
				lines := bufio.NewScanner(out)
				for lines.Scan() && lines.Text() != "ready" {
					fmt.Fprintln(&said, lines.Text())
				}
				tether(t, daemonPID(t, &said))
				switch how {
				case "killed":
					ok(t, cmd.Process.Kill())
				case "terminated":
					ok(t, cmd.Process.Signal(syscall.SIGTERM))
				default:
					in.Write([]byte("."))
				}
				rest, _ := io.ReadAll(out)
				err = cmd.Wait()
				want := map[string]string{"killed": "signal: killed", "terminated": "exit status 143", "panic": "exit status 2", "fatal": "exit status 1", "exit": "exit status 5", "suicide": "exit status 137"}
				if err == nil || err.Error() != want[how] {
					t.Errorf("it ended with %v, want %s:\n%s%s", err, want[how], &said, rest)
				}
				wantTraces(t, before)
			})
		}
	}
}

// daemonPID finds the daemon that occupy started, from outside of its process namespace.
func daemonPID(t *testing.T, said fmt.Stringer) (pid int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	ok(t, err)
	for _, f := range files {
		if b, _ := os.ReadFile(f); string(b) == "sleep\x007777\x00" {
			fmt.Sscanf(f, "/proc/%d/", &pid)
			return pid
		}
	}
	t.Fatalf("the helper's daemon is not there:\n%s", said)
	return 0
}

func TestAPlainUserHasTheSameLab(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv(helperEnv) != "" {
		t.Skip("needs root: it becomes nobody itself")
	}
	const run = "^(TestHosts|TestAHost|TestACut|TestAContainer|TestACommand|TestADaemon|TestTheRouter|TestDo|TestEachChange|TestTheWorldHolds|TestCloseLeaves)"
	out, err := outside(t, "user", run, nobody...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "SKIP") || strings.Count(string(out), "\n--- PASS") < 11 {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestWhereNoNamespacesAreAllowedTestsSkipAndSayWhy(t *testing.T) {
	if os.Getuid() != 0 || os.Getenv(helperEnv) != "" {
		t.Skip("needs root: it takes its own rights away")
	}
	// In a user namespace that allows no further ones, without capabilities.
	deny := append(nobody, "unshare", "-Ur", "sh", "-c", `echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all "$0" "$@"`)
	out, err := outside(t, "exit", "^TestHelper$", deny...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- SKIP: TestHelper") || !strings.Contains(string(out), "needs root or user namespaces") {
		t.Errorf("%v:\n%s", err, out)
	}
}
