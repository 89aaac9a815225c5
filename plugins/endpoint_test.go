package plugins_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/endpoint"
)

// The stand-in has a second network.
const (
	blue       = "blue"
	blueBridge = "wv-blue"
)

var blueSubnet = netip.MustParsePrefix("10.2.0.1/16")

// place is the network of a request, with the bridge's address. Of an attachment that
// stands it is the one on which that stands.
func (r *router) place(in ctl.NetworkRequest) (name string, subnet netip.Prefix, err error) {
	e, err := endpoint.ParseBare(in.Endpoint)
	if err != nil {
		return "", netip.Prefix{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	r.mu.Lock()
	stands, there := r.committed[in.Key.Hash()]
	r.mu.Unlock()
	name = in.Name
	switch {
	case there:
		name = stands.Network
	case e.Network != "":
		name = e.Network
	case e.Prefix.IsValid() && blueSubnet.Contains(e.Prefix.Addr()):
		name = blue
	case e.Prefix.IsValid() && !routerSubnet.Contains(e.Prefix.Addr()):
		return "", netip.Prefix{}, ctl.Errorf(ctl.CodeInvalidConfig, "no network holds %s", e.Prefix.Masked())
	}
	switch name {
	case "net1", "net2":
		return name, routerSubnet, nil
	case blue:
		return name, blueSubnet, nil
	}
	return "", netip.Prefix{}, ctl.Errorf(ctl.CodeInvalidConfig, "there is no network %q", name)
}

// asked is the address that an endpoint asks for, or one of its subnet.
func asked(text string) netip.Prefix {
	e, err := endpoint.ParseBare(text)
	if err != nil || !e.Prefix.IsValid() || e.Addr {
		return e.Prefix
	}
	return netip.PrefixFrom(e.Prefix.Addr().Next(), e.Prefix.Bits())
}

const netWithAnnotations = `{"type":"weave-net","socket":%q,"ipam":{"type":"weave-ipam"},"capabilities":{"ips":true,"io.kubernetes.cri.pod-annotations":true}}`
const dnsWithAnnotations = `{"type":"weavedns","socket":%q,"capabilities":{"aliases":true,"io.kubernetes.cri.pod-annotations":true}}`

// annotated is a pod's annotations as containerd and CRI-O hand them on.
func annotated(text string) map[string]any {
	return map[string]any{"io.kubernetes.cri.pod-annotations": map[string]string{"weave.network/endpoint": text, "other": "7", "Weave.Network/Endpoint": "weave://no"}}
}

// endpointCase is where an endpoint is to lead a container.
type endpointCase struct {
	args, annotation string
	bridge           string
	address          string // "" for some one of the network
	gateway          string // "" for none, and no way out
	resolver         bool
	names            []string
}

func TestAnEndpointSaysToWhichNetworkAndAtWhichAddress(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	list := m.list("1.0.0", fmt.Sprintf(netWithAnnotations, m.socket()), fmt.Sprintf(dnsWithAnnotations, m.socket()))
	for name, x := range map[string]endpointCase{
		"none":                     {"", "", routerBridge, "", "10.32.0.1", true, []string{"c"}},
		"the usual one":            {"weave://?alias=Web", "", routerBridge, "", "10.32.0.1", true, []string{"web"}},
		"a name":                   {"weave://blue", "", blueBridge, "", "10.2.0.1", true, []string{"c"}},
		"a name and no names":      {"blue?dns=no", "", blueBridge, "", "10.2.0.1", false, nil},
		"an alias and no names":    {"weave://blue?alias%3Dweb&dns%3Dno", "", blueBridge, "", "10.2.0.1", false, nil},
		"an address":               {"weave://10.2.0.9/24?alias=web&alias=db", "", blueBridge, "10.2.0.9/24", "10.2.0.1", true, []string{"web", "db"}},
		"with its network's":       {"10.2.45.3/16", "", blueBridge, "10.2.45.3/16", "10.2.0.1", true, []string{"c"}},
		"out of the gateway's way": {"weave://10.2.45.3/24", "", blueBridge, "10.2.45.3/24", "", false, []string{"c"}},
		"a subnet":                 {"weave://10.2.67.0/24?dns=yes", "", blueBridge, "10.2.67.1/24", "", false, []string{"c"}},
		"encoded":                  {"weave://10.2.0.9/24?alias%3Dweb", "", blueBridge, "10.2.0.9/24", "10.2.0.1", true, []string{"web"}},
		"a pod's":                  {"", "weave://blue?alias=web", blueBridge, "", "10.2.0.1", true, []string{"web"}},
		"a pod's before CNI_ARGS":  {"weave://10.32.7.7/12?alias=no", "weave://10.2.45.3/16", blueBridge, "10.2.45.3/16", "10.2.0.1", true, []string{"c"}},
		"a pod's that is empty":    {"weave://blue", "", blueBridge, "", "10.2.0.1", true, []string{"c"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &machine{netNS: m.netNS, t: t, dir: m.dir, cni: m.cni}
			c := newNetNS(t)
			before := c.world(t)
			rt := &libcni.RuntimeConf{ContainerID: "c", NetNS: c.path, IfName: "eth0", Args: [][2]string{{"WEAVE_ENDPOINT", x.args}}, CapabilityArgs: annotated(x.annotation)}
			x.isWhere(t, m, c, m.addOf(list, rt))
			if names := r.names[endpointKey.Hash()]; !slices.Equal(names, x.names) {
				t.Errorf("names %q", names)
			}
			m.forgets(list, rt)
			if a, n, names := r.held(); a+n+names != 0 || c.world(t) != before {
				t.Errorf("left: %d addresses, %d attachments, %d names; %s", a, n, names, c.world(t))
			}
		})
	}
}

// endpointKey is of the one attachment in the tests of endpoints.
var endpointKey = attachment.Key{Network: "net1", ContainerID: "c", IfName: "eth0"}

// addOf is the result of an ADD of a whole list.
func (m *machine) addOf(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *current.Result {
	m.t.Helper()
	var got *current.Result
	err := m.through(func(ctx context.Context) error {
		res, err := m.cni.AddNetworkList(ctx, list, rt)
		if err == nil {
			got, err = current.NewResultFromResult(res)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return got
}

// isWhere looks that a container is where its endpoint says, by the result and the kernel.
func (x endpointCase) isWhere(t *testing.T, m *machine, c *netNS, got *current.Result) {
	t.Helper()
	ip := got.IPs[0]
	if text := ip.Address.String(); len(got.IPs) != 1 || x.address != "" && text != x.address || got.Interfaces[0].Name != x.bridge {
		t.Errorf("got %v on %s", got.IPs, got.Interfaces[0].Name)
	}
	if shown := output(t, c, "ip", "addr", "show", "dev", "eth0"); !strings.Contains(shown, " "+ip.Address.String()+" ") {
		t.Errorf("the kernel has:\n%s", shown)
	}
	if out := output(t, m.netNS, "ip", "-o", "link", "show", "master", x.bridge); !strings.Contains(out, endpointKey.Veth()) {
		t.Errorf("it is not on %s: %s", x.bridge, out)
	}
	if gw := ip.Gateway; (gw == nil) != (x.gateway == "") || gw != nil && gw.String() != x.gateway || (len(got.Routes) == 1) != (x.gateway != "") {
		t.Errorf("gateway %v, routes %v", gw, got.Routes)
	}
	if x.gateway != "" {
		ping(t, c, x.gateway)
	}
	if (len(got.DNS.Nameservers) > 0) != x.resolver {
		t.Errorf("dns %+v", got.DNS)
	}
}

// forgets detaches a container as a runtime does that has forgotten what it said at ADD.
func (m *machine) forgets(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) {
	m.t.Helper()
	forgetful := &libcni.RuntimeConf{ContainerID: rt.ContainerID, NetNS: rt.NetNS, IfName: rt.IfName, Args: [][2]string{{"WEAVE_ENDPOINT", "weave://net2"}}}
	err := m.through(func(ctx context.Context) error {
		if err := m.cni.CheckNetworkList(ctx, list, rt); err != nil {
			m.t.Errorf("CHECK: %v", err)
		}
		mainOnly := *list
		mainOnly.Plugins = list.Plugins[:1]
		if err := m.cni.CheckNetworkList(ctx, &mainOnly, forgetful); err != nil {
			m.t.Errorf("CHECK without the endpoint: %v", err)
		}
		forgetful.Args[0][1] = "not at all://"
		return m.cni.DelNetworkList(ctx, list, forgetful)
	})
	if err != nil {
		m.t.Errorf("DEL: %v", err)
	}
}

func TestAnEndpointThatCannotBeIsRefusedBeforeAnythingIsDone(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	before := m.world(t) + c.world(t)
	weaveIPAMWith := func(key string, value any) map[string]any {
		section := weaveIPAM(m)
		section[key] = value
		return section
	}
	annotation := func(v any) map[string]any {
		return map[string]any{"runtimeConfig": map[string]any{"io.kubernetes.cri.pod-annotations": v}}
	}
	for _, x := range []struct {
		plugin, main string
		keys         map[string]any
		args, words  string
	}{
		{"weave-net", "weave-net", nil, "weave://10.2.45.3", "CNI_ARGS WEAVE_ENDPOINT: endpoint \"weave://10.2.45.3\": an address needs the length"},
		{"weave-net", "weave-net", map[string]any{"endpoint": "http://x"}, "", "endpoint: endpoint \"http://x\": it does not begin with weave://"},
		{"weave-net", "weave-net", map[string]any{"endpoint": "weave://?alias=x"}, "", "options are of one container"},
		{"weave-net", "weave-net", map[string]any{"endpoint": "weave://blue", "network": "net2"}, "", "give one of the two"},
		{"weave-net", "weave-net", map[string]any{"ipam": weaveIPAMWith("endpoint", "weave://10.2.0.0/24")}, "", "weave-net's key endpoint"},
		{"weave-net", "weave-net", map[string]any{"ipam": m.hostLocal()}, "10.2.45.3/24", `ipam.type is "host-local", and only weave-ipam`},
		{"weave-net", "weave-net", map[string]any{"ipam": map[string]any{}}, "10.2.45.0/24", `ipam.type is "", and only weave-ipam`},
		{"weave-net", "weave-net", annotation(map[string]any{"weave.network/endpoint": 7}), "", "annotation weave.network/endpoint: want a text"},
		{"weave-net", "weave-net", annotation([]any{"x"}), "", "annotation weave.network/endpoint: want a text"},
		{"weave-net", "weave-net", annotation(map[string]any{"weave.network/endpoint": "a/b"}), "", "annotation weave.network/endpoint: endpoint \"a/b\""},
		{"weave-net", "weave-net", nil, "10.99.45.3/24", "no network holds 10.99.45.0/24"},
		{"weave-ipam", "weave-net", map[string]any{"endpoint": 7}, "", "endpoint: want a text, have 7"},
		{"weave-ipam", "weave-net", map[string]any{"ipam": weaveIPAMWith("routes", everywhere)}, "10.2.45.3/24", "the gateway 10.2.0.1 is not in 10.2.45.0/24"},
		{"weave-ipam", "macvlan", map[string]any{"ipam": weaveIPAMWith("endpoint", "weave://blue")}, "", "a network is named by ipam.network"},
		{"weave-ipam", "macvlan", map[string]any{"ipam": map[string]any{"type": "weave-ipam", "network": "net1", "endpoint": "10.2.0.0/24"}}, "", "give one of the two"},
		{"weave-ipam", "macvlan", map[string]any{"ipam": weaveIPAMWith("endpoint", "10.2.67.0/24")}, "10.2.68.0/24", "endpoint weave://10.2.68.0/24 is not in ipam.endpoint weave://10.2.67.0/24"},
		{"weave-ipam", "macvlan", map[string]any{"ipam": weaveIPAMWith("endpoint", "10.2.67.0/24")}, "blue", "is not in ipam.endpoint"},
		{"weavedns", "weavedns", nil, "?alias=-x", "alias \"-x\" can be no name"},
	} {
		keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket(), "prevResult": map[string]any{"cniVersion": "1.0.0"}}
		for k, v := range x.keys {
			keys[k] = v
		}
		a := m.run(x.plugin, conf("1.0.0", x.main, keys), "CNI_NETNS="+c.path, "CNI_ARGS=WEAVE_ENDPOINT="+x.args)
		if a.rc != 1 || a.err().Code != ctl.CodeInvalidConfig || !strings.Contains(a.err().Error(), x.words) {
			t.Errorf("%s of %s, %v, %q: got %+v", x.plugin, x.main, x.keys, x.args, a)
		}
		if d := m.run(x.plugin, conf("1.0.0", x.main, keys), "CNI_COMMAND=DEL", "CNI_NETNS="+c.path, "CNI_ARGS=IgnoreUnknown=1;WEAVE_ENDPOINT="+x.args); d.rc != 0 {
			t.Errorf("DEL of %s, %v, %q: %+v", x.plugin, x.keys, x.args, d)
		}
	}
	if after := m.world(t) + c.world(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if a, c, n := r.held(); a+c+n != 0 {
		t.Errorf("the router holds %d addresses, %d attachments, %d names", a, c, n)
	}
}

func TestAListMayHaveAnEndpointOfItsOwn(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket(), "endpoint": "weave://10.2.7.0/24"}
	for args, want := range map[string]string{"": "10.2.7.1/24", "weave://?alias=x": "10.2.7.1/24", "weave://10.2.9.9/16": "10.2.9.9/16"} {
		got := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+newNetNS(t).path, "CNI_ARGS=WEAVE_ENDPOINT="+args).result(t)
		if got.IPs[0].Address.String() != want || got.Interfaces[0].Name != blueBridge {
			t.Errorf("%q: got %v on %s", args, got.IPs, got.Interfaces[0].Name)
		}
		var in ctl.CommitRequest
		r.last(t, ctl.PathCommit, &in)
		if in.Network != blue || in.Key.Network != "net1" {
			t.Errorf("%q: committed %+v", args, in)
		}
		if d := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_COMMAND=DEL"); d.rc != 0 {
			t.Errorf("DEL: %v", d.err())
		}
	}
}

// Behind another main plugin the interface is where the list puts it.
func TestWeaveIPAMAloneHandsTheEndpointOn(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	section := func(keys ...string) map[string]any {
		s := weaveIPAM(m)
		for i := 0; i < len(keys); i += 2 {
			s[keys[i]] = keys[i+1]
		}
		return map[string]any{"ipam": s, "socket": m.socket(), "endpoint": map[string]any{"it is": "macvlan's"}}
	}
	for _, x := range []struct {
		main, args string
		keys       map[string]any
		want       ctl.AllocateRequest
	}{
		{"macvlan", "", section(), ctl.AllocateRequest{Network: "net1"}},
		{"macvlan", "", section("endpoint", "10.2.67.0/24"), ctl.AllocateRequest{Network: "net1", Endpoint: "weave://10.2.67.0/24"}},
		{"macvlan", "10.2.67.9/24?alias=x", section("endpoint", "10.2.67.0/24"), ctl.AllocateRequest{Network: "net1", Endpoint: "weave://10.2.67.9/24"}},
		{"macvlan", "10.2.67.9/24", section("network", blue), ctl.AllocateRequest{Network: blue, Endpoint: "weave://10.2.67.9/24", Fixed: true}},
		{"simplebridge", "10.32.7.9/24", section(), ctl.AllocateRequest{Network: "net1", Endpoint: "weave://10.32.7.9/24", Fixed: true}},
		{"simplebridge", "weave://?dns=no", section(), ctl.AllocateRequest{Network: "net1"}},
		{"ptp", "net1", section(), ctl.AllocateRequest{Network: "net1", Endpoint: "weave://net1", Fixed: true}},
	} {
		got := m.run("weave-ipam", conf("1.0.0", x.main, x.keys), "CNI_NETNS="+c.path, "CNI_ARGS=WEAVE_ENDPOINT="+x.args).result(t)
		var in ctl.AllocateRequest
		r.last(t, ctl.PathAllocate, &in)
		if in.Network != x.want.Network || in.Endpoint != x.want.Endpoint || in.Fixed != x.want.Fixed {
			t.Errorf("%s %q: asked for %+v, want %+v", x.main, x.args, in, x.want)
		}
		if e, _ := endpoint.ParseBare(x.want.Endpoint); e.Prefix.IsValid() && got.IPs[0].Address.Mask.String() != "ffffff00" {
			t.Errorf("%s %q: got %v", x.main, x.args, got.IPs)
		}
		if d := m.run("weave-ipam", conf("1.0.0", x.main, x.keys), "CNI_COMMAND=DEL"); d.rc != 0 {
			t.Errorf("DEL: %v", d.err())
		}
	}
	// ptp makes a way to the gateway wherever that is.
	got := m.run("weave-ipam", conf("1.0.0", "ptp", section()), "CNI_NETNS="+c.path, "CNI_ARGS=WEAVE_ENDPOINT=10.32.7.9/24").result(t)
	if got.IPs[0].Gateway.String() != "10.32.0.1" {
		t.Errorf("ptp: got %v", got.IPs)
	}
}

// A plugin that is newer than its router does not attach a container somewhere else.
func TestARouterThatReadsNoEndpointsIsFoundOut(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	r.driver = ""
	c := newNetNS(t)
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
	if a := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+c.path, "CNI_ARGS=WEAVE_ENDPOINT=blue"); a.rc != 1 || a.err().Code != ctl.CodeNotSupported {
		t.Errorf("got %+v", a)
	}
	if a := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+c.path); a.rc != 0 {
		t.Errorf("without one: %v", a.err())
	}
	r.driver = ctl.DriverSimpleBridge
	if a := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+newNetNS(t).path, "CNI_CONTAINERID=c2", "CNI_ARGS=WEAVE_ENDPOINT=blue"); a.rc != 1 || !strings.Contains(a.err().Error(), "of driver simplebridge") {
		t.Errorf("a network of driver simplebridge: %+v", a)
	}
}

func TestDELTakesNoNoticeOfAnnotations(t *testing.T) {
	m := newMachine(t)
	m.startRouter()
	for _, p := range []string{"weave-net", "weave-ipam", "weavedns"} {
		for _, v := range []string{`7`, `[]`, `{"weave.network/endpoint":{}}`, `{"weave.network/endpoint":"%"}`} {
			keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket(), "runtimeConfig": map[string]any{"io.kubernetes.cri.pod-annotations": json.RawMessage(v)}}
			if a := m.run(p, conf("1.0.0", "weave-net", keys), "CNI_COMMAND=DEL"); a.rc != 0 {
				t.Errorf("%s, %s: %v", p, v, a.err())
			}
		}
	}
	if cniconf.EndpointAnnotation != "weave.network/endpoint" || cniconf.EndpointArg != "WEAVE_ENDPOINT" {
		t.Error("the keys have other names than in the documents")
	}
}
