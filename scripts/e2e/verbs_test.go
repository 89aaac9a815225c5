package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// call is one call of a main plugin as a runtime makes it, without libcni between;
// conf adds to that of weave-net, or replaces it.
type call struct {
	verb, id, netns, ifname string
	conf                    map[string]any
}

// exec runs the plugin and returns what it printed; the error holds the CNI error.
func (c *cluster) exec(h *netlab.Host, k call, env ...string) (result, error) {
	conf := map[string]any{"cniVersion": "1.1.0", "name": "weave", "type": "weave-net", "ipam": map[string]any{"type": "weave-ipam"}}
	for key, v := range k.conf {
		conf[key] = v
	}
	stdin, err := json.Marshal(conf)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := h.Command(ctx, bin+"/"+conf["type"].(string))
	cmd.Stdin = strings.NewReader(string(stdin))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+k.verb, "CNI_CONTAINERID="+k.id, "CNI_NETNS="+k.netns, "CNI_IFNAME="+k.ifname, "CNI_PATH=/opt/cni/bin")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.Output()
	if err != nil {
		return result{}, fmt.Errorf("%s%w", out, err)
	}
	var r result
	if len(out) == 0 {
		return r, nil
	}
	return r, json.Unmarshal(out, &r)
}

func (c *cluster) ns(host int, name string) *netlab.Container {
	c.t.Helper()
	ns, err := c.lab.Host(host).NewContainer(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return ns
}

func (c *cluster) must(h *netlab.Host, k call, env ...string) result {
	c.t.Helper()
	r, err := c.exec(h, k, env...)
	if err != nil {
		c.t.Errorf("%s %s %s: %v", k.verb, k.id, k.ifname, err)
	}
	return r
}

func (c *cluster) mustFail(h *netlab.Host, k call, words string) {
	c.t.Helper()
	_, err := c.exec(h, k)
	if err == nil || !strings.Contains(err.Error(), words) {
		c.t.Errorf("%s %s %s: got %v, want an error with %q", k.verb, k.id, k.ifname, err, words)
	}
}

func TestVerbsAsTheSpecificationHasThem(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	unchanged := c.watch()
	ns := c.ns(0, "a")
	add := call{"ADD", "a", ns.Path(), "eth0", nil}
	del := call{"DEL", "a", ns.Path(), "eth0", nil}

	t.Run("DEL before ADD", func(t *testing.T) { c.must(h, del) })
	t.Run("ADD twice is an error and the first stays", func(t *testing.T) {
		r := c.must(h, add)
		c.mustFail(h, add, "eth0")
		if _, err := ns.Run("ping", "-c1", "-W20", r.IPs[0].Gateway.String()); err != nil {
			t.Error(err)
		}
	})
	t.Run("DEL twice", func(t *testing.T) { c.must(h, del); c.must(h, del) })
	t.Run("DEL with an empty namespace takes the interface away", func(t *testing.T) {
		c.must(h, add)
		c.must(h, call{"DEL", "a", "", "eth0", nil})
		if _, err := ns.Run("ip", "link", "show", "eth0"); err == nil {
			t.Error("eth0 is still there")
		}
	})
	t.Run("DEL with a vanished namespace", func(t *testing.T) {
		gone := c.ns(0, "gone")
		c.must(h, call{"ADD", "gone", gone.Path(), "eth0", nil})
		if err := gone.Delete(); err != nil {
			t.Fatal(err)
		}
		c.must(h, call{"DEL", "gone", gone.Path(), "eth0", nil})
	})
	t.Run("ADD after a failed ADD", func(t *testing.T) {
		bad := add
		bad.conf = map[string]any{"ipam": map[string]any{"type": "weave-ipam", "subnet": "192.0.2.0/24"}}
		c.mustFail(h, bad, "192.0.2.0/24")
		c.must(h, add)
		c.must(h, del)
	})
	t.Run("the host's own namespace is refused", func(t *testing.T) {
		c.mustFail(h, call{"ADD", "own", "/proc/self/ns/net", "eth0", nil}, "own")
	})
	t.Run("ids that share twelve characters", func(t *testing.T) {
		x, y := c.ns(0, "x"), c.ns(0, "y")
		ids := []string{"0123456789ab-x", "0123456789ab-y"}
		rx := c.must(h, call{"ADD", ids[0], x.Path(), "eth0", nil})
		ry := c.must(h, call{"ADD", ids[1], y.Path(), "eth0", nil})
		if rx.addr() == ry.addr() {
			t.Errorf("both have %v", rx.addr())
		}
		c.must(h, call{"DEL", ids[0], x.Path(), "eth0", nil})
		if _, err := y.Run("ping", "-c1", "-W20", ry.IPs[0].Gateway.String()); err != nil {
			t.Errorf("the other one is cut off: %v", err)
		}
		c.must(h, call{"DEL", ids[1], y.Path(), "eth0", nil})
		x.Delete()
		y.Delete()
	})
	t.Run("two interfaces of one container on one network", func(t *testing.T) {
		r0 := c.must(h, add)
		add1 := add
		add1.ifname, add1.conf = "eth1", map[string]any{"isDefaultGateway": false}
		r1 := c.must(h, add1)
		if r0.addr() == r1.addr() {
			t.Errorf("both have %v", r0.addr())
		}
		del1 := del
		del1.ifname = "eth1"
		c.must(h, del1)
		if _, err := ns.Run("ping", "-c1", "-W20", r0.IPs[0].Gateway.String()); err != nil {
			t.Errorf("eth0 is cut off: %v", err)
		}
		c.must(h, del)
	})
	t.Run("CHECK passes after ADD and fails without the address", func(t *testing.T) {
		for _, step := range []struct{ verb, wants string }{{"add", ""}, {"check", ""}} {
			if out, err := c.cni(h, step.verb, "weave", ns.Path()); err != nil {
				t.Fatalf("%s: %v %s", step.verb, err, out)
			}
		}
		ns.MustRun(t, "ip", "addr", "flush", "dev", "eth0")
		if _, err := c.cni(h, "check", "weave", ns.Path()); err == nil {
			t.Error("CHECK passed without an address")
		}
		if out, err := c.cni(h, "del", "weave", ns.Path()); err != nil {
			t.Error(err, out)
		}
	})
	t.Run("what cannot be is refused with the variable or the key that is wrong", func(t *testing.T) {
		bad := add
		bad.ifname = "eth%d"
		c.mustFail(h, bad, `"code": 4`)
		bad = add
		bad.id = strings.Repeat("a", 300)
		c.mustFail(h, bad, "300 characters, at most 255")
		if _, err := c.exec(h, bad); err == nil || strings.Contains(err.Error(), "CNI_IFNAME") {
			t.Errorf("it blames CNI_IFNAME too: %v", err)
		}
		for _, bridge := range []string{"eth0", "weave"} {
			bad = add
			bad.conf = map[string]any{"type": "simplebridge", "bridge": bridge, "ipam": map[string]any{}}
			c.mustFail(h, bad, `"code": 7`)
		}
	})
	t.Run("STATUS", func(t *testing.T) {
		c.must(h, call{"STATUS", "", "", "", nil})
	})
	t.Run("GC leaves what is on the list", func(t *testing.T) {
		c.must(h, add)
		c.must(h, call{"GC", "", "", "", map[string]any{"cni.dev/valid-attachments": []map[string]string{{"containerID": "a", "ifname": "eth0"}}}})
		if _, err := ns.Run("ip", "link", "show", "eth0"); err != nil {
			t.Error(err)
		}
		c.must(h, del)
	})
	if err := ns.Delete(); err != nil {
		t.Error(err)
	}
	h.MustRun(t, "sh", "-c", "rm -rf /var/lib/cni/*") // libcni's own, left by cnitool
	unchanged()
}

func TestHundredParallelAdds(t *testing.T) {
	const many = 100
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	unchanged := c.watch()
	var spaces []*netlab.Container
	for i := range many {
		spaces = append(spaces, c.ns(0, fmt.Sprintf("p%d", i)))
	}
	results := make([]result, many)
	each := func(f func(i int)) {
		var wg sync.WaitGroup
		for i := range many {
			wg.Go(func() { f(i) })
		}
		wg.Wait()
	}
	each(func(i int) {
		results[i] = c.must(h, call{"ADD", fmt.Sprintf("p%d", i), spaces[i].Path(), "eth0", nil})
	})
	seen := map[netip.Addr]bool{}
	for i, r := range results {
		if len(r.IPs) != 1 || seen[r.addr()] {
			t.Fatalf("container %d: %+v", i, r.IPs)
		}
		seen[r.addr()] = true
	}
	each(func(i int) { c.must(h, call{"DEL", fmt.Sprintf("p%d", i), spaces[i].Path(), "eth0", nil}) })
	for _, ns := range spaces {
		if err := ns.Delete(); err != nil {
			t.Error(err)
		}
	}
	unchanged()
}
