package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// attachments are those of host i that the router knows, by container id.
func (c *cluster) attachments(i int) map[string]ctl.Attachment {
	c.t.Helper()
	s, err := c.status(i)
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]ctl.Attachment{}
	for _, a := range s.Attachments {
		if a.Key.IfName == "eth0" {
			out[a.Key.ContainerID] = a
		}
	}
	return out
}

func TestWeaveIPAMUnderOtherMainPlugins(t *testing.T) {
	for plugin, bridge := range map[string]string{"simplebridge": "sb0", "bridge": "br0"} {
		t.Run(plugin, func(t *testing.T) {
			c := newCluster(t, 1, netlab.Options{})
			h := c.lab.Host(0)
			ns := c.ns(0, "a")
			conf := map[string]any{"name": "other", "type": plugin, "bridge": bridge, "ipam": map[string]any{"type": "weave-ipam", "network": "weave"}}
			add, del := call{"ADD", "a", ns.Path(), "eth0", conf}, call{"DEL", "a", ns.Path(), "eth0", conf}
			r := c.must(h, add)
			if out := h.MustRun(t, "ip", "link", "show", "type", "veth"); strings.Contains(out, "alias wv1") != (plugin == "simplebridge") {
				t.Errorf("alias of the veth:\n%s", out)
			}
			// The claim outlives a restart, and no reconciliation takes it.
			if err := h.Router().Kill(); err != nil {
				t.Fatal(err)
			}
			if err := h.Router().Restart(); err != nil {
				t.Fatal(err)
			}
			c.waitReady(0)
			time.Sleep(6 * time.Second) // three reconciliations, of which none may find anything
			if a := c.attachments(0)["a"]; len(a.Addresses) != 1 || a.Addresses[0].Addr() != r.addr() {
				t.Fatalf("after the restart: %+v, had %v", a, r.addr())
			}
			c.must(h, del)
			c.wait("the address is free", func() error {
				if a, there := c.attachments(0)["a"]; there {
					return fmt.Errorf("%+v", a)
				}
				return nil
			})
			if err := ns.Delete(); err != nil {
				t.Error(err)
			}
		})
	}
}
