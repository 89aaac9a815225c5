package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
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

const range6 = "fd77:1::/64"

func dualStack(t *testing.T) *cluster {
	t.Helper()
	return newCluster(t, 1, netlab.Options{RouterArgs: []string{"--range6", range6}})
}

// ipam is a weave-ipam section with keys added.
func ipam(keys map[string]any) map[string]any {
	all := map[string]any{"type": "weave-ipam", "network": "weave"}
	maps.Copy(all, keys)
	return all
}

// inArgs and inRuntimeConfig are two of the places where a runtime puts addresses.
func inArgs(ips ...string) map[string]any {
	return map[string]any{"args": map[string]any{"cni": map[string]any{"ips": ips}}}
}

func inRuntimeConfig(ips ...string) map[string]any {
	return map[string]any{"capabilities": map[string]any{"ips": true}, "runtimeConfig": map[string]any{"IPs": ips}}
}

func section(keys map[string]any) map[string]any { return map[string]any{"ipam": ipam(keys)} }

func TestWeaveIPAMGivesWhatIsAskedFor(t *testing.T) {
	c := dualStack(t)
	h := c.lab.Host(0)
	for name, x := range map[string]struct {
		conf map[string]any
		args string // IP of CNI_ARGS
		want string // each address's text begins with one of these
	}{
		"nothing":                       {nil, "", "10. fd77:1::"},
		"a subnet":                      {section(map[string]any{"subnet": "10.33.64.0/24"}), "", "10.33.64. fd77:1::"},
		"a subnet of IPv6":              {section(map[string]any{"subnet": "fd77:1::ab00/120"}), "", "10. fd77:1::ab"},
		"CNI_ARGS":                      {nil, "10.32.200.1", "10.32.200.1/12"},
		"CNI_ARGS, lengths, both":       {nil, "10.32.200.2/12,fd77:1::2:2/64", "10.32.200.2/12 fd77:1::2:2/64"},
		"args":                          {inArgs("10.32.200.3"), "", "10.32.200.3/12"},
		"args, length of one host":      {inArgs("10.32.200.4/32"), "", "10.32.200.4/12"},
		"args before CNI_ARGS":          {inArgs("10.32.200.5"), "10.32.200.55", "10.32.200.5/12"},
		"runtimeConfig":                 {inRuntimeConfig("10.32.200.6"), "", "10.32.200.6/12"},
		"runtimeConfig, repeated":       {inRuntimeConfig("10.32.200.7", "10.32.200.7/12", "fd77:1::2:7", "FD77:1::2:7/64"), "", "10.32.200.7/12 fd77:1::2:7/64"},
		"runtimeConfig before the rest": {inRuntimeConfig("10.32.200.8/12"), "10.32.200.88", "10.32.200.8/12"},
		"two of one family":             {inRuntimeConfig("10.32.200.9", "10.32.200.10"), "", "10.32.200.9/12 10.32.200.10/12"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cluster{t, c.lab, c.n}
			ns := c.ns(0, "a")
			r := c.must(h, call{"ADD", "a", ns.Path(), "eth0", x.conf}, "CNI_ARGS=IgnoreUnknown=1;IP="+x.args)
			want := strings.Fields(x.want)
			if len(r.IPs) != len(want) {
				t.Fatalf("got %v", r.addrs())
			}
			shown := ns.MustRun(t, "ip", "addr", "show", "dev", "eth0")
			for i, ip := range r.IPs {
				if text := ip.Address.String(); !strings.HasPrefix(text, want[i]) || !strings.Contains(shown, text) {
					t.Errorf("got %s, want %s..., and the kernel has it:\n%s", text, want[i], shown)
				}
				if out, err := ns.Run("ping", "-c1", "-W2", ip.Gateway.String()); err != nil {
					t.Errorf("gateway %v: %s", ip.Gateway, out)
				}
			}
			if len(r.DNS.Nameservers)+len(r.DNS.Search) > 0 {
				t.Errorf("result.dns is weavedns', and is %+v", r.DNS)
			}
			c.must(h, call{"DEL", "a", ns.Path(), "eth0", x.conf})
			if err := ns.Delete(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWeaveIPAMRefusesWhatCannotBe(t *testing.T) {
	c := dualStack(t)
	h := c.lab.Host(0)
	ns := c.ns(0, "a")
	c.must(h, call{"ADD", "holder", c.ns(0, "holder").Path(), "eth0", inArgs("10.32.200.1")})
	excluding := inArgs("10.32.5.6")
	maps.Copy(excluding, section(map[string]any{"exclude": []string{"10.32.5.0/24"}}))
	outside := inArgs("10.32.5.6")
	maps.Copy(outside, section(map[string]any{"subnet": "10.32.6.0/24"}))
	for words, conf := range map[string]map[string]any{
		"belongs to container holder": inArgs("10.32.200.1"),
		"is not in network":           inArgs("192.0.2.1"),
		"which nobody may have":       inArgs("10.47.255.255"),
		"excluded":                    excluding,
		"ipam.exclude[0]":             section(map[string]any{"exclude": []string{"10.32.5.1/24"}}),
		"ipam.reserve[0]":             section(map[string]any{"reserve": []string{"10.32.5.0-10.32.5.9"}}),
		"not in the subnet":           outside,
		"192.0.2.0/24":                section(map[string]any{"subnet": "192.0.2.0/24"}),
		"no address of a container":   inRuntimeConfig("224.0.0.1"),
	} {
		c.mustFail(h, call{"ADD", "a", ns.Path(), "eth0", conf}, words)
	}
	if out := ns.MustRun(t, "ip", "-o", "link"); strings.Contains(out, "eth0") {
		t.Errorf("left behind:\n%s", out)
	}
	if all := c.attachments(0); len(all) != 1 {
		t.Errorf("left at the router: %+v", all)
	}
}

func TestWeaveIPAMPassesOverWhatIsExcluded(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{RouterArgs: []string{"--range", "10.32.0.0/28"}})
	h := c.lab.Host(0)
	conf := section(map[string]any{"exclude": []string{"10.32.0.0/29", "10.32.0.9"}})
	var got []string
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		got = append(got, c.must(h, call{"ADD", id, c.ns(0, id).Path(), "eth0", conf}).addr().String())
	}
	for _, a := range got {
		if a == "10.32.0.9" || netip.MustParsePrefix("10.32.0.0/29").Contains(netip.MustParseAddr(a)) {
			t.Errorf("%s is excluded", a)
		}
	}
}

func TestWeaveIPAMGivesWhatIsReservedOnlyToWhoAsksForIt(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{RouterArgs: []string{"--range", "10.32.0.0/28"}})
	h := c.lab.Host(0)
	reserved := netip.MustParsePrefix("10.32.0.8/29")
	conf := section(map[string]any{"reserve": []string{reserved.String()}})
	asking := inArgs("10.32.0.12")
	maps.Copy(asking, conf)
	it := call{"ADD", "it", c.ns(0, "it").Path(), "eth0", asking}
	if got := c.must(h, it).addr().String(); got != "10.32.0.12" {
		t.Errorf("asked for 10.32.0.12, got %s", got)
	}
	for i := range 6 { // with the bridge's, all that is not reserved
		id := fmt.Sprint("c", i)
		if got := c.must(h, call{"ADD", id, c.ns(0, id).Path(), "eth0", conf}).addr(); reserved.Contains(got) {
			t.Errorf("%s is reserved", got)
		}
	}
	c.mustFail(h, call{"ADD", "late", c.ns(0, "late").Path(), "eth0", conf}, "what the configuration reserves is not counted")
	c.must(h, call{"DEL", "it", it.netns, "eth0", asking})
	if got := c.must(h, call{"ADD", "it", it.netns, "eth0", conf}).addr().String(); got != "10.32.0.12" {
		t.Errorf("it had 10.32.0.12 and gets %s", got)
	}
	excluding := inArgs("10.32.0.13")
	maps.Copy(excluding, section(map[string]any{"exclude": []string{"10.32.0.13"}, "reserve": []string{reserved.String()}}))
	c.mustFail(h, call{"ADD", "late", c.ns(0, "late2").Path(), "eth0", excluding}, "excluded by the same configuration")
}

func TestRoutesAreTheConfigurationsAndTheGatewayIsTheBridge(t *testing.T) {
	c := dualStack(t)
	h := c.lab.Host(0)
	ns := c.ns(0, "a")
	conf := section(map[string]any{"routes": []map[string]any{{"dst": "198.51.100.0/24"}, {"dst": "203.0.113.0/24", "gw": "10.32.200.200"}, {"dst": "fd99::/64"}}})
	conf["isDefaultGateway"] = false
	r := c.must(h, call{"ADD", "a", ns.Path(), "eth0", conf})
	bridge := h.MustRun(t, "ip", "addr", "show", "dev", "weave")
	for _, ip := range r.IPs {
		if !strings.Contains(bridge, " "+ip.Gateway.String()+"/") {
			t.Errorf("gateway %v is not on the bridge:\n%s", ip.Gateway, bridge)
		}
	}
	shown := ns.MustRun(t, "ip", "-4", "route") + ns.MustRun(t, "ip", "-6", "route")
	for _, route := range []string{
		"198.51.100.0/24 via " + r.IPs[0].Gateway.String(), "203.0.113.0/24 via 10.32.200.200", "fd99::/64 via " + r.IPs[1].Gateway.String(),
	} {
		if !strings.Contains(shown, route) {
			t.Errorf("no route %s in\n%s", route, shown)
		}
	}
	if strings.Contains(shown, "default") || len(r.Routes) != 3 {
		t.Errorf("a default route, or %+v:\n%s", r.Routes, shown)
	}
}

func TestTheSameContainerGetsTheSameAddressAgain(t *testing.T) {
	c := dualStack(t)
	h := c.lab.Host(0)
	ns := c.ns(0, "a")
	add, del := call{"ADD", "a", ns.Path(), "eth0", nil}, call{"DEL", "a", ns.Path(), "eth0", nil}
	had := c.must(h, add)
	for i, between := range []func(){
		func() {},
		func() { c.must(h, call{"ADD", "b", c.ns(0, "b").Path(), "eth0", nil}) },
		func() { c.restart(0) },
	} {
		c.must(h, del)
		between()
		if r := c.must(h, add); !slices.Equal(r.addrs(), had.addrs()) {
			t.Errorf("%d: got %v, had %v", i, r.addrs(), had.addrs())
		}
	}
}

func (r result) addrs() (out []netip.Prefix) {
	for _, ip := range r.IPs {
		out = append(out, ip.Address)
	}
	return out
}

// restart kills host i's router, starts it again and waits until it is ready.
func (c *cluster) restart(i int) {
	c.t.Helper()
	if err := c.lab.Host(i).Router().Kill(); err != nil {
		c.t.Fatal(err)
	}
	if err := c.lab.Host(i).Router().Restart(); err != nil {
		c.t.Fatal(err)
	}
	c.waitReady(i)
}

func TestWithoutAddressesANetworkIsALinkOnly(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	conf := map[string]any{"ipam": map[string]any{}}
	for i, id := range []string{"a", "b"} {
		h, ns := c.lab.Host(i), c.ns(i, id)
		r := c.must(h, call{"ADD", id, ns.Path(), "eth0", conf})
		if out := ns.MustRun(t, "ip", "-4", "addr", "show", "dev", "eth0"); len(r.IPs) != 0 || strings.Contains(out, "inet ") {
			t.Errorf("got %+v, and in the kernel\n%s", r.IPs, out)
		}
		if a, there := c.attachments(i)[id]; !there || len(a.Addresses) != 0 {
			t.Errorf("the router knows %+v, %v", a, there)
		}
		ns.MustRun(t, "ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth0")
		if i == 1 {
			c.wait("the other host's container answers", func() error {
				_, err := ns.Run("ping", "-c1", "-W1", "192.0.2.1")
				return err
			})
		}
	}
	for i, id := range []string{"a", "b"} {
		c.must(c.lab.Host(i), call{"DEL", id, "", "eth0", conf})
		if a, there := c.attachments(i)[id]; there {
			t.Errorf("after DEL: %+v", a)
		}
	}
}

// otherPlugins are main plugins that know nothing of the router.
var otherPlugins = map[string]map[string]any{
	"simplebridge": {"bridge": "sb0"},
	"bridge":       {"bridge": "br0"},
	"ptp":          {},
	"macvlan":      {"master": "eth0", "mode": "bridge"},
}

func TestWeaveIPAMUnderOtherMainPlugins(t *testing.T) {
	c := dualStack(t)
	h := c.lab.Host(0)
	calls, had := map[string]call{}, map[string]result{}
	for plugin, own := range otherPlugins {
		if plugin == "macvlan" {
			if out, err := h.Run("ip", "link", "add", "link", "eth0", "name", "probe", "type", "macvlan"); err != nil {
				t.Run(plugin, func(t *testing.T) { t.Skipf("this kernel has no macvlan: %v %s", err, out) })
				continue
			}
			h.MustRun(t, "ip", "link", "delete", "probe")
		}
		conf := map[string]any{"name": "other", "type": plugin, "ipam": ipam(nil)}
		maps.Copy(conf, own)
		ns := c.ns(0, plugin)
		calls[plugin] = call{"ADD", plugin, ns.Path(), "eth0", conf}
		r := c.must(h, calls[plugin])
		if had[plugin] = r; len(r.IPs) != 2 {
			t.Fatalf("%s: %v", plugin, r.addrs())
		}
		if out := ns.MustRun(t, "ip", "addr"); !strings.Contains(out, r.IPs[0].Address.String()) || !strings.Contains(out, r.IPs[1].Address.String()) {
			t.Errorf("%s: %v is not in the kernel:\n%s", plugin, r.addrs(), out)
		}
	}
	if out := h.MustRun(t, "ip", "link", "show", "type", "veth"); strings.Count(out, "alias wv1") != 1 {
		t.Errorf("one veth has an alias, simplebridge's:\n%s", out)
	}
	// The claims outlive restarts, and no reconciliation takes them.
	c.restart(0)
	time.Sleep(6 * time.Second) // three reconciliations, of which none may find anything
	c.restart(0)
	for plugin, r := range had {
		if a := c.attachments(0)[plugin]; len(a.Addresses) != 2 || a.Addresses[0].Addr() != r.addr() {
			t.Errorf("%s after the restarts: %+v, had %v", plugin, a, r.addrs())
		}
		c.mustFail(h, call{"ADD", "thief", c.ns(0, "thief-"+plugin).Path(), "eth0", inArgs(r.addr().String())}, "belongs to")
	}
	for plugin, r := range had {
		del := calls[plugin]
		del.verb = "DEL"
		c.must(h, del)
		c.wait(plugin+"'s address is free", func() error {
			if a, there := c.attachments(0)[plugin]; there {
				return fmt.Errorf("%+v", a)
			}
			return nil
		})
		ns := c.ns(0, "next-"+plugin)
		if next := c.must(h, call{"ADD", "next-" + plugin, ns.Path(), "eth0", inArgs(r.addr().String())}); next.addr() != r.addr() {
			t.Errorf("%s: %v after DEL, had %v", plugin, next.addrs(), r.addrs())
		}
	}
}

func TestADELOfAnotherMainPluginCountsWithoutARouter(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	h := c.lab.Host(0)
	ns := c.ns(0, "a")
	conf := map[string]any{"name": "other", "type": "bridge", "bridge": "br0", "ipam": ipam(nil)}
	r := c.must(h, call{"ADD", "a", ns.Path(), "eth0", conf})
	if err := h.Router().Kill(); err != nil {
		t.Fatal(err)
	}
	c.must(h, call{"DEL", "a", ns.Path(), "eth0", conf})
	c.restart(0)
	if a, there := c.attachments(0)["a"]; there {
		t.Errorf("it is back: %+v", a)
	}
	if next := c.must(h, call{"ADD", "b", c.ns(0, "b").Path(), "eth0", inArgs(r.addr().String())}); next.addr() != r.addr() {
		t.Errorf("got %v, want %v", next.addrs(), r.addr())
	}
}
