// Package e2e runs the real binaries, through the real cnitool, on hosts in
// network namespaces.
package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// bin holds our binaries, cnitool and the reference plugins that the tests use.
var bin string

const binVariable = "WEAVE_E2E_BIN"

// TestMain builds what the tests run, once: the isolated child, which has no way
// to a registry, finds it by the environment and removes it in the end.
func TestMain(m *testing.M) {
	if bin = os.Getenv(binVariable); bin == "" {
		var err error
		if bin, err = build(); err != nil {
			fmt.Fprintln(os.Stderr, "build the binaries:", err)
			os.Exit(1)
		}
		if err := buildOld(); err != nil {
			fmt.Fprintln(os.Stderr, "build the old version:", err)
			os.RemoveAll(bin)
			os.Exit(1)
		}
	}
	code := netlab.Main(m)
	for _, dir := range []string{bin, os.Getenv(oldVariable)} {
		if strings.HasPrefix(filepath.Base(dir), tempName) {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

const tempName = "weave-e2e-"

func build() (string, error) {
	dir, err := os.MkdirTemp("", tempName)
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/",
		"./cmd/weaver", "./cmd/weave", "./plugins/main/weave-net", "./plugins/main/simplebridge", "./plugins/ipam/weave-ipam", "./plugins/meta/weavedns",
		"github.com/containernetworking/cni/cnitool",
		"github.com/containernetworking/plugins/plugins/main/bridge", "github.com/containernetworking/plugins/plugins/main/ptp",
		"github.com/containernetworking/plugins/plugins/main/macvlan",
		"github.com/containernetworking/plugins/plugins/ipam/host-local", "github.com/containernetworking/plugins/plugins/meta/portmap",
	)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return dir, os.Setenv(binVariable, dir)
}

// cluster is a lab in which the first hosts run a router each.
type cluster struct {
	t   *testing.T
	lab *netlab.Lab
	n   int // hosts with routers
}

const secretFile = "/run/secret"

// founder are the arguments of a router that founds a cluster: a lab's state directories
// are on a tmpfs.
var founder = []string{"--init", "new"}

// newCluster starts n hosts with routers, among o.Hosts if that is more, and waits until each can serve ADD.
func newCluster(t *testing.T, n int, o netlab.Options) *cluster {
	t.Helper()
	o.Hosts, o.Bin = max(n, o.Hosts), cmp.Or(o.Bin, bin)
	o.RouterArgs = append([]string{"--secret-file", secretFile, "--log-level", "info"}, o.RouterArgs...)
	c := &cluster{t, netlab.New(t, o), n}
	secret, err := exec.Command(filepath.Join(bin, "weave"), "secret", "new").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range c.lab.Hosts() {
		if err := h.WriteFile(secretFile, string(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		c.installConflists(h)
	}
	for i := range n {
		c.start(i)
		if i == 0 {
			c.waitReady(0) // so that it has founded the cluster when the others ask
		}
	}
	for i := range n {
		c.waitReady(i)
	}
	c.waitPeers()
	return c
}

func (c *cluster) installConflists(h *netlab.Host) {
	c.t.Helper()
	for _, name := range []string{"10-weave.conflist", "20-simplebridge.conflist"} {
		b, err := os.ReadFile(filepath.Join("../../conflist", name))
		if err != nil {
			c.t.Fatal(err)
		}
		if err := h.WriteFile("/etc/cni/net.d/"+name, string(b), 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
}

// start starts host i's router: the first founds, the others join through it.
func (c *cluster) start(i int) {
	c.t.Helper()
	args := founder
	if i != 0 {
		args = nil
	}
	for j := range c.n {
		if i != 0 && j != i {
			args = append(args, c.lab.Host(j).Addr().String())
		}
	}
	if _, err := c.lab.Host(i).StartRouter(args...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) status(i int) (ctl.Status, error) {
	var s ctl.Status
	out, err := c.lab.Host(i).Run("/opt/cni/bin/weave", "status", "--json")
	if out == "" {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s) // a router that is not ready makes the command fail, but has a status
}

func (c *cluster) waitReady(i int) {
	c.t.Helper()
	c.wait(fmt.Sprintf("router %d is ready", i), func() error {
		s, err := c.status(i)
		if err != nil {
			return err
		}
		if s.Error != nil {
			return s.Error
		}
		return nil
	})
}

// waitPeers waits until every host has written every other into its kernel's plan.
func (c *cluster) waitPeers() {
	c.t.Helper()
	want := c.n - 1
	for i := range c.n {
		c.wait(fmt.Sprintf("host %d knows the others", i), func() error {
			s, err := c.status(i)
			if err != nil {
				return err
			}
			if len(s.Overlay) != want {
				return fmt.Errorf("%d of %d remotes", len(s.Overlay), want)
			}
			return nil
		})
	}
}

// watch notes what all hosts look like; the function that it returns fails the test unless they look so again.
func (c *cluster) watch() func() {
	c.t.Helper()
	for i := range c.n {
		c.wait("the kernel has given the bridge its link-local address", func() error {
			out, err := c.lab.Host(i).Run("ip", "-6", "-o", "addr", "show", "dev", "weave", "scope", "link")
			if err == nil && !strings.Contains(out, "fe80") {
				err = fmt.Errorf("it has %q", out)
			}
			return err
		})
	}
	return c.lab.Watch(c.t, netlab.WorldOptions{Ignore: []string{
		"file /var/lib/weave/",           // a log that only grows, and a counter of starts
		"file /var/lib/cni",              // libcni's own
		"file /run/weave/claims/resting", // freed addresses, for 30 s
		"file /run/weave/witness",        // how often the state was changed
	}})
}

// patience bounds waits for what takes a few seconds where nothing else runs.
const patience = time.Minute

// slack is how many times a promise in seconds may be exceeded, because these
// tests may run on a machine that is busy with something else. What was measured
// is logged beside the promise.
const slack = 5

// wait waits for a condition and tells how long that took.
func (c *cluster) wait(what string, cond func() error) time.Duration {
	c.t.Helper()
	start := time.Now()
	if err := netlab.Wait(patience, what, cond); err != nil {
		c.t.Fatal(err)
	}
	return time.Since(start)
}

// promised logs what was measured, and fails the test when it is far from the promise.
func (c *cluster) promised(what string, promise, measured time.Duration) {
	c.t.Helper()
	c.t.Logf("%s: %v, promised %v", what, measured, promise)
	if measured > slack*promise {
		c.t.Errorf("%s took %v, promised %v", what, measured, promise)
	}
}

// container is a namespace with what its ADD said.
type container struct {
	*netlab.Container
	result result
}

// result is a CNI result as far as the tests look into it.
type result struct {
	CNIVersion string
	Interfaces []struct{ Name, Mac, Sandbox string }
	IPs        []struct {
		Interface *int
		Address   netip.Prefix
		Gateway   netip.Addr
	}
	Routes []struct{ Dst, GW string }
	DNS    struct {
		Nameservers []string
		Search      []string
	}
}

func (r result) addr() netip.Addr { return r.IPs[0].Address.Addr() }

// cniError is what a runtime hears of a failed call.
type cniError struct{ text string }

func (e cniError) Error() string { return e.text }

// cni runs cnitool.
func (c *cluster) cni(h *netlab.Host, verb, network, netns string, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := h.Command(ctx, filepath.Join(bin, "cnitool"), verb, network, netns)
	cmd.Env = append(os.Environ(), append([]string{"CNI_PATH=/opt/cni/bin", "NETCONFPATH=/etc/cni/net.d"}, env...)...)
	out, err := cmd.Output()
	if err != nil {
		return string(out), cniError{err.Error()}
	}
	return string(out), nil
}

// add attaches a new container of that name.
func (c *cluster) add(host int, name string, env ...string) *container {
	c.t.Helper()
	ns, err := c.lab.Host(host).NewContainer(name)
	if err != nil {
		c.t.Fatal(err)
	}
	got, err := c.tryAdd(ns, "weave", env...)
	if err != nil {
		c.t.Fatalf("ADD %s on host %d: %v", name, host, err)
	}
	return got
}

func (c *cluster) tryAdd(ns *netlab.Container, network string, env ...string) (*container, error) {
	out, err := c.cni(ns.Host(), "add", network, ns.Path(), env...)
	if err != nil {
		return nil, err
	}
	got := &container{Container: ns}
	if err := json.Unmarshal([]byte(out), &got.result); err != nil {
		return nil, fmt.Errorf("%w in %s", err, out)
	}
	if len(got.result.IPs) == 0 {
		return nil, errors.New("result without addresses: " + out)
	}
	return got, nil
}

// named passes the container's name as a runtime does.
func named(name string) string { return "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=" + name }

func (c *cluster) del(ct *container, env ...string) {
	c.t.Helper()
	if out, err := c.cni(ct.Host(), "del", "weave", ct.Path(), env...); err != nil {
		c.t.Errorf("DEL: %v %s", err, out)
	}
	if err := ct.Delete(); err != nil {
		c.t.Error(err)
	}
}

func (c *cluster) ping(from *container, to netip.Addr) error {
	_, err := from.Run("ping", "-c1", "-W2", to.String())
	return err
}

// resolve asks the resolver that the container was given.
func (c *cluster) resolve(from *container, name string) ([]string, error) {
	if len(from.result.DNS.Nameservers) == 0 {
		return nil, errors.New("the result names no resolver")
	}
	out, err := from.Run("dig", "+short", "+time=1", "+tries=1", "@"+from.result.DNS.Nameservers[0], name)
	return strings.Fields(out), err
}
