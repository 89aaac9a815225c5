// Package docs_test does what the documents tell people to do.
package docs_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }

// block is a fenced piece of shell, and what its fence says: "```sh first".
type block struct{ on, script string }

// blocks are those of README.md that say where they are to be run.
func blocks(t *testing.T) (list []block) {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)```sh (\\w+)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		list = append(list, block{m[1], m[2]})
	}
	if len(list) == 0 {
		t.Fatal("README.md has nothing to run")
	}
	return list
}

// sh runs a script on a host as root's shell at the top of the tree would.
func sh(t *testing.T, h *netlab.Host, script string) {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log") // a file: a router that is left running holds it
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.Command(t.Context(), "sh", "-ec", script)
	cmd.Dir = top
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("on %s: %v\n%s\n%s", h.Name(), err, script, said)
	}
}

// ready waits until containers can be added on a host.
func ready(t *testing.T, h *netlab.Host) {
	t.Helper()
	err := netlab.Wait(20*time.Second, "weave status is content", func() error {
		_, err := h.Run("/usr/local/bin/weave", "status")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheSetUpInTheReadmeJoinsTwoMachines(t *testing.T) {
	if _, err := os.Stat("/usr/lib/cni/portmap"); err != nil {
		t.Skipf("needs Debian's containernetworking-plugins: %v", err)
	}
	lab := netlab.New(t, netlab.Options{Hosts: 2, PluginDirs: []string{"/usr/lib/cni"}, Private: []string{"/usr/local/bin", "/etc/weave"}, Timeout: time.Minute})
	first, second := lab.Host(0), lab.Host(1)
	t.Setenv("BIN", t.TempDir()) // not into the tree
	t.Setenv("A", first.Addr().String())
	where := map[string][]*netlab.Host{"both": lab.Hosts(), "first": {first}, "second": {second}, "conflist": lab.Hosts()}
	for _, b := range blocks(t) {
		if where[b.on] == nil {
			t.Fatalf("on which machine is %q?", b.on)
		}
		if b.on == "second" {
			copyFile(t, first, second, "/etc/weave/secret")
		}
		for _, h := range where[b.on] {
			if b.on == "conflist" { // a person comes to this some seconds later
				ready(t, h)
			}
			sh(t, h, strings.ReplaceAll(b.script, " bin/", " $BIN/"))
		}
	}
	a, _ := attach(t, first, "a")
	_, there := attach(t, second, "b")
	if _, err := a.Run("ping", "-n", "-c1", "-W3", there); err != nil {
		t.Error(err)
	}
}

func copyFile(t *testing.T, from, to *netlab.Host, path string) {
	t.Helper()
	text, err := from.ReadFile(path)
	if err == nil {
		err = to.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// attach adds a container to the network that the set-up installed.
func attach(t *testing.T, h *netlab.Host, name string) (c *netlab.Container, addr string) {
	t.Helper()
	c, err := h.NewContainer(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = h.Do(func() error {
		list, err := libcni.LoadNetworkConf("/etc/cni/net.d", "weave")
		if err != nil {
			return err
		}
		lib := libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, "/var/lib/cni", nil)
		got, err := lib.AddNetworkList(ctx, list, &libcni.RuntimeConf{ContainerID: name, NetNS: c.Path(), IfName: "eth0"})
		if err != nil {
			return err
		}
		r, err := types.NewResultFromResult(got)
		if err == nil {
			addr = r.IPs[0].Address.IP.String()
		}
		return err
	})
	if err != nil {
		t.Fatalf("attach %s on %s: %v", name, h.Name(), err)
	}
	return c, addr
}

func TestEveryScriptThatTheReadmeNamesIsThere(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range regexp.MustCompile(`scripts/[a-z0-9/]+\.sh`).FindAllString(string(text), -1) {
		if st, err := os.Stat("../" + script); err != nil || st.Mode()&0o111 == 0 {
			t.Errorf("%s cannot be run: %v", script, err)
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat("../" + m[1]); err != nil {
			t.Errorf("link: %v", err)
		}
	}
}
