package plugins_test

import (
	"os"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// A network's gateway is an address of its bridge: containers on another bridge do not reach it.
func TestAGatewayIsGivenOnlyToWhoReachesIt(t *testing.T) {
	m := newMachine(t)
	m.startRouter()
	c := newNetNS(t)
	for plugin, reaches := range map[string]bool{"weave-net": true, "ptp": true, "simplebridge": false, "macvlan": false, "bridge": false} {
		keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
		r := m.run("weave-ipam", conf("1.0.0", plugin, keys), "CNI_NETNS="+c.path).result(t)
		if len(r.IPs) != 1 || (r.IPs[0].Gateway != nil) != reaches {
			t.Errorf("%s: got %v, a gateway is wanted: %v", plugin, r.IPs, reaches)
		}
	}
}

var everywhere = []any{map[string]any{"dst": "0.0.0.0/0"}}

func TestADefaultRouteToNoGatewayIsRefusedAtOnce(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	before := m.world(t) + c.world(t)
	routes := func(list []any) map[string]any {
		return map[string]any{"ipam": map[string]any{"type": "weave-ipam", "routes": list}, "socket": m.socket()}
	}
	for plugin, keys := range map[string]map[string]any{
		"simplebridge": routes(everywhere),
		"weave-ipam":   routes([]any{map[string]any{"dst": "10.0.0.0/8"}, map[string]any{"dst": "::/0"}}),
	} {
		keys["type"] = "simplebridge"
		a := m.run(plugin, conf("1.0.0", plugin, keys), "CNI_NETNS="+c.path)
		if e := a.err(); a.rc != 1 || e.Code != ctl.CodeInvalidConfig || !strings.Contains(e.Details, "no gw") || !strings.Contains(e.Details, "simplebridge") {
			t.Errorf("%s: got %+v", plugin, a)
		}
	}
	isGateway := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket(), "isGateway": true}
	if a := m.run("simplebridge", conf("1.0.0", "simplebridge", isGateway), "CNI_NETNS="+c.path); a.rc != 1 || a.err().Code != ctl.CodeInvalidConfig || !strings.Contains(a.err().Details, "isGateway") {
		t.Errorf("isGateway: got %+v", a)
	}
	if n, _, _ := r.held(); n != 0 || m.world(t)+c.world(t) != before {
		t.Errorf("%d addresses are held; left: %s%s", n, m.world(t), c.world(t))
	}
	// What is refused at ADD is given back all the same.
	if a := m.run("simplebridge", conf("1.0.0", "simplebridge", routes(everywhere)), "CNI_COMMAND=DEL", "CNI_NETNS="+c.path); a.rc != 0 {
		t.Errorf("DEL: %v", a.err())
	}
	if a := m.run("weave-net", conf("1.0.0", "weave-net", routes(everywhere)), "CNI_NETNS="+c.path); a.rc != 0 {
		t.Errorf("weave-net: %v", a.err())
	}
}

func TestSimplebridgeWithWeaveIPAMJoinsItsContainersAndHasNoAddress(t *testing.T) {
	m := newMachine(t)
	m.startRouter()
	a, b := newNetNS(t), newNetNS(t)
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
	r := m.run("simplebridge", conf("1.0.0", "simplebridge", keys), "CNI_NETNS="+a.path).result(t)
	s := m.run("simplebridge", conf("1.0.0", "simplebridge", keys), "CNI_NETNS="+b.path, "CNI_CONTAINERID=c2").result(t)
	if r.IPs[0].Gateway != nil || len(r.Routes) != 0 {
		t.Errorf("got %v, routes %v", r.IPs, r.Routes)
	}
	ping(t, a, s.IPs[0].Address.IP.String())
	// An address of the network's would give the host a second way to all of the network.
	if out := output(t, m.netNS, "ip", "-4", "addr", "show", "simplebr0"); strings.Contains(out, "inet ") {
		t.Errorf("the bridge has an address: %s", out)
	}
}

// ptp puts the gateway's address on its own end in the host, so every gateway is reached.
func TestPtpWithWeaveIPAMReachesTheGateway(t *testing.T) {
	if _, err := os.Stat("/usr/lib/cni/ptp"); err != nil {
		t.Skipf("needs ptp (apt-get install containernetworking-plugins): %v", err)
	}
	m := newMachine(t)
	r := m.startRouter()
	if _, err := r.network([]byte(`{"name":"net1"}`)); err != nil {
		t.Fatal(err)
	}
	c := newNetNS(t)
	keys := map[string]any{"ipam": map[string]any{"type": "weave-ipam", "socket": m.socket(), "routes": everywhere}}
	m.run("ptp", conf("1.0.0", "ptp", keys), "CNI_NETNS="+c.path).result(t)
	ping(t, c, routerSubnet.Addr().String())
	if a := m.run("ptp", conf("1.0.0", "ptp", keys), "CNI_COMMAND=DEL", "CNI_NETNS="+c.path); a.rc != 0 {
		t.Errorf("DEL: %v", a.err())
	}
	if n, _, _ := r.held(); n != 0 {
		t.Errorf("%d addresses are held", n)
	}
}
