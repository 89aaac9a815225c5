package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// endpointIs passes an endpoint, beside the name, as cnitool takes it.
func endpointIs(name, text string) string {
	return named(name) + ";WEAVE_ENDPOINT=" + strings.ReplaceAll(text, "=", "%3D")
}

func (c *cluster) reachEachOther(all []*container) {
	c.t.Helper()
	for _, from := range all {
		for _, to := range all {
			c.wait(from.Name()+" reaches "+to.Name(), func() error { return c.ping(from, to.result.addr()) })
		}
	}
}

// allAreOf24But looks that host 0's router shows the IPv4 addresses there with the length
// that their endpoints ask for, but for that of one container.
func (c *cluster) allAreOf24But(one *container, when string) {
	c.t.Helper()
	for id, a := range c.attachments(0) {
		for _, p := range a.Addresses {
			if p.Addr().Is4() && p.Bits() != 24 && p.Addr() != one.result.addr() {
				c.t.Errorf("%s the router shows %s with %v", when, id, a.Addresses)
			}
		}
	}
}

func TestContainersGoWhereTheirEndpointsSayOnAllHosts(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{RouterArgs: []string{"--range", "10.2.0.0/16", "--range6", range6}})
	unchanged := c.watch()
	var all []*container
	env := map[string]string{}
	for i, x := range []struct{ endpoint, want string }{
		{"weave://10.2.45.3/24", "10.2.45.3/24"},
		{"10.2.45.4/24?alias=web&alias=db", "10.2.45.4/24"},
		{"weave://10.2.45.0/24", ""},
		{"weave://10.2.45.0/24?dns=no", ""},
	} {
		name := fmt.Sprint("c", i)
		env[name] = endpointIs(name, x.endpoint)
		ct := c.add(i%2, name, env[name])
		all = append(all, ct)
		got := ct.result.IPs[0].Address
		if x.want != "" && got.String() != x.want || got.Bits() != 24 || !netip.MustParsePrefix("10.2.45.0/24").Contains(got.Addr()) {
			t.Errorf("%s: got %v", x.endpoint, ct.result.IPs)
		}
		if len(ct.result.DNS.Nameservers) != 0 && x.want != "" {
			t.Errorf("%s: a resolver that it does not reach: %v", x.endpoint, ct.result.DNS)
		}
		if out, err := c.cni(ct.Host(), "check", "weave", ct.Path(), env[name]); err != nil {
			t.Errorf("%s: CHECK: %v %s", x.endpoint, err, out)
		}
	}
	c.reachEachOther(all)
	asks := c.add(0, "asks", endpointIs("asks", "weave://weave")) // it reaches its resolver
	env["asks"] = endpointIs("asks", "weave://weave")
	for name, want := range map[string]netip.Addr{"web": all[1].result.addr(), "db": all[1].result.addr(), "c0": all[0].result.addr(), "c3": {}} {
		c.wait(name+" is known", func() error {
			got, err := c.resolve(asks, name+".weave.local")
			if text := strings.Join(got, " "); err == nil && want.IsValid() != (text != "") || want.IsValid() && !strings.Contains(text, want.String()) {
				return fmt.Errorf("%s is %q, want %v", name, text, want)
			}
			return err
		})
	}
	for _, when := range []string{"before", "after"} {
		c.allAreOf24But(asks, when+" its restart")
		c.restart(0)
	}
	if out, err := c.cni(all[0].Host(), "check", "weave", all[0].Path(), named("c0")); err != nil {
		t.Errorf("CHECK by who has forgotten the endpoint: %v %s", err, out)
	}
	for _, ct := range append(all, asks) {
		c.del(ct)
	}
	unchanged()
}

func TestAnEndpointThatNoNetworkHasIsRefusedWithWhatToDo(t *testing.T) {
	c := dualStack(t)
	h := c.lab.Host(0)
	ns := c.ns(0, "a")
	at := func(text string) map[string]any { return map[string]any{"endpoint": text} }
	for text, words := range map[string]string{
		"weave://192.0.2.7/24":    "weave net create --subnet 192.0.2.0/24",
		"weave://10.0.0.0/8":      "network weave has a part of it, 10.32.0.0/12: give a prefix inside that",
		"weave://net1":            "there are weave",
		"weave://10.32.45.3":      "needs the length of its subnet",
		"weave://10.32.45.255/24": "which nobody may have",
	} {
		c.mustFail(h, call{"ADD", "a", ns.Path(), "eth0", at(text)}, words)
	}
	if all := c.attachments(0); len(all) != 0 {
		t.Errorf("left at the router: %+v", all)
	}
	for text, want := range map[string]string{
		"fd77:1::7:7/112": "[fd77:1::7:7/112]", "[fd77:1::8:0]/112": "fd77:1::8:1/112", "10.32.45.3/12": "[10.32.45.3/12]", "10.32.45.3/32": "[10.32.45.3/32]",
	} {
		add := call{"ADD", "a", ns.Path(), "eth0", at(text)}
		if got := fmt.Sprint(c.must(h, add).addrs()); !strings.Contains(got, want) {
			t.Errorf("%s: got %s", text, got)
		}
		add.verb = "DEL"
		c.must(h, add)
	}
}
