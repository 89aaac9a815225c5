// Package conflist_test runs every network list that is shipped, as a runtime would.
package conflist_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

const distribution = "/usr/lib/cni" // where Debian's containernetworking-plugins puts portmap and host-local

func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }

// build makes our programs and returns their directory.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("../build.sh")
	cmd.Env = append(os.Environ(), "BIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

func TestEachShippedListWorksAtEachOfItsVersions(t *testing.T) {
	if _, err := os.Stat(distribution + "/portmap"); err != nil {
		t.Skipf("needs Debian's containernetworking-plugins: %v", err)
	}
	bin := build(t)
	files, err := filepath.Glob("*.conflist")
	if err != nil || len(files) == 0 {
		t.Fatalf("no lists: %v", err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			lab := netlab.New(t, netlab.Options{Hosts: 1, Bin: bin, PluginDirs: []string{distribution}, Timeout: 30 * time.Second})
			h := lab.Host(0)
			list := install(t, h, bin, file)
			if needsRouter(list) {
				startRouter(t, h, bin)
			}
			use(t, h, list, "first", list.CNIVersion) // makes bridges and chains, which stay
			unchanged := lab.Watch(t, netlab.WorldOptions{Ignore: []string{"file /var/lib/", "file /run/weave/claims/resting-"}})
			for _, version := range []string{"0.3.1", "0.4.0", "1.0.0"} {
				use(t, h, list, "at-"+version, version)
			}
			unchanged()
		})
	}
}

// install does what the installer does, and loads the list as a runtime does.
func install(t *testing.T, h *netlab.Host, bin, file string) *libcni.NetworkConfigList {
	t.Helper()
	h.MustRun(t, filepath.Join(bin, "weave"), "conflist", "--plugin-dir", "/opt/cni/bin", "--out", "/etc/cni/net.d", file)
	var list *libcni.NetworkConfigList
	err := h.Do(func() (err error) {
		list, err = libcni.NetworkConfFromFile("/etc/cni/net.d/" + file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// reads are the capabilities that each of our plugins does something with. One
// that is declared and not read promises a user what does not happen.
var reads = map[string][]string{"weave-net": {podAnnotations, "ips", "mac"}, "simplebridge": {"ips", "mac"}, "weavedns": {"aliases", "dns", podAnnotations}}

const podAnnotations = "io.kubernetes.cri.pod-annotations"

func TestTheListsDeclareTheCapabilitiesThatOurPluginsRead(t *testing.T) {
	var known []string
	for f := range reflect.TypeFor[cniconf.RuntimeConfig]().Fields() {
		known = append(known, f.Tag.Get("json"))
	}
	files, err := filepath.Glob("*.conflist")
	if err != nil || len(files) == 0 {
		t.Fatalf("no lists: %v", err)
	}
	for _, file := range files {
		list, err := libcni.NetworkConfFromFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Plugins {
			want, ours := reads[p.Network.Type]
			have := slices.Sorted(maps.Keys(p.Network.Capabilities))
			if ours && !slices.Equal(have, want) {
				t.Errorf("%s: %s declares %v, it reads %v", file, p.Network.Type, have, want)
			}
			for _, c := range want {
				if !slices.Contains(known, c) {
					t.Errorf("pkg/cniconf reads no %q", c)
				}
			}
		}
	}
}

func needsRouter(list *libcni.NetworkConfigList) bool {
	return slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool {
		return p.Network.Type == "weave-net" || p.Network.IPAM.Type == "weave-ipam"
	})
}

func startRouter(t *testing.T, h *netlab.Host, bin string) {
	t.Helper()
	r, err := h.StartRouter("--init", "new")
	if err != nil {
		t.Fatal(err)
	}
	err = r.WaitFor(time.Minute, "ADD can be served", func() error {
		_, err := h.Run(filepath.Join(bin, "weave"), "status")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// use gives a container the network, checks that it works, and takes it away again, twice.
func use(t *testing.T, h *netlab.Host, list *libcni.NetworkConfigList, container, version string) {
	t.Helper()
	c, err := h.NewContainer(container)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete()
	at := *list
	at.CNIVersion = version
	lib := libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, "/var/lib/cni", nil)
	rt := &libcni.RuntimeConf{ContainerID: container, NetNS: c.Path(), IfName: "eth0"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var gateway string
	err = h.Do(func() error {
		r, err := lib.AddNetworkList(ctx, &at, rt)
		if err != nil {
			return fmt.Errorf("ADD: %w", err)
		}
		result, err := types.NewResultFromResult(r)
		if err != nil {
			return err
		}
		if len(result.IPs) == 0 || result.IPs[0].Gateway == nil {
			return fmt.Errorf("result without address or gateway: %+v", result)
		}
		gateway = result.IPs[0].Gateway.String()
		if version == "0.3.1" { // CHECK came later
			return nil
		}
		return lib.CheckNetworkList(ctx, &at, rt)
	})
	if err == nil {
		_, err = c.Run("ping", "-n", "-c1", "-W20", gateway)
	}
	for range 2 {
		err = errors.Join(err, h.Do(func() error { return lib.DelNetworkList(ctx, &at, rt) }))
	}
	if err != nil {
		t.Errorf("at %s: %v", version, err)
	}
}
