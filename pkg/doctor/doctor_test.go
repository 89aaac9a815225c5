package doctor

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("192.0.2.2")
)

// well is a host with which nothing is wrong.
func well() Snapshot {
	speaks := []string{"0.4.0", "1.0.0", "1.1.0"}
	answers := map[string]Plugin{}
	for _, p := range []string{"weave-net", "weave-ipam", "weavedns", "portmap", "loopback"} {
		answers[p] = Plugin{Path: "/opt/cni/bin/" + p, Speaks: speaks}
	}
	weave := File{Name: "10-weave.conflist", Network: "weave", Versions: []string{"0.4.0", "1.0.0"}, Plugins: []string{"weave-net", "weave-ipam", "weavedns", "portmap"}}
	return Snapshot{
		Router: Router{
			Status: &ctl.Status{Version: "v1", Name: "a", Networks: []ctl.NetStatus{{
				Network: ctl.Network{Name: "weave", Bridge: "weave", MTU: 1430}, Subnets: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/12")}}}},
			Topology: &ctl.Topology{Self: "a", Hosts: []ctl.TopologyHost{{Name: "a", Address: here, State: ctl.HostHere}, {Name: "b", Address: there, State: ctl.HostUp}}},
		},
		Runtimes: []Runtime{{Name: "containerd", Picks: PicksFirst, ConfDir: "/etc/cni/net.d", PluginDirs: []string{"/opt/cni/bin"}, Loopback: true,
			Files: []File{weave}, Plugins: answers}},
		Devices: []Device{
			{1, "lo", 65536, []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
			{2, "eth0", 1500, []netip.Addr{here}}, {3, "weave", 1430, nil}, {4, "weave-vx", 1430, nil}},
		Default: "eth0",
		Sysctls: map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/rp_filter": "1"},
		Ports: []Port{
			{"tcp", netip.MustParseAddrPort("0.0.0.0:6783"), "weaver", 7}, {"tcp", netip.MustParseAddrPort("127.0.0.1:6786"), "weaver", 7},
			{"udp", netip.MustParseAddrPort("0.0.0.0:6784"), "", 0}},
		Kernel:  Kernel{"6.1.0-18-amd64", map[string]bool{"vxlan": true, "veth": true}},
		Paths:   []Path{{Host: "b", Addr: there, Size: 1480, Small: true, Full: true}},
		Sources: map[string]netip.Addr{"b": here},
	}
}

func TestAWellHostHasNothingButOK(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Judge(well()) {
		seen[f.Check] = true
		if f.Level != OK || f.Cure != "" || f.What == "" {
			t.Errorf("%+v", f)
		}
	}
	for _, check := range []string{"router", "lists of containerd", "versions", "plugins", "mtu", "path mtu", "ports", "forwarding", "rp_filter", "firewall", "managers", "kernel"} {
		if !seen[check] {
			t.Errorf("nothing is said of %s", check)
		}
	}
}

// drops is a chain of another firewall.
func drops(tool, family, table, name, hook string) Chain {
	return Chain{Tool: tool, Family: family, Table: table, Name: name, Hook: hook, Policy: "drop"}
}

// fault is one that is planted, and what must be said of it.
type fault struct {
	plant func(*Snapshot)
	level Level
	check string
	what  string // in the finding
	cure  string // in its cure or advice
}

// listFaults are those of the router, of network lists and their plugins.
func listFaults() map[string]fault {
	return map[string]fault{
		"no router": {func(s *Snapshot) { s.Router = Router{Why: "does not answer"} }, Problem, "router", "does not answer", "systemctl start weaver"},
		"a router that hangs": {func(s *Snapshot) { s.Router = Router{Why: "no answer", Hangs: true} }, Problem,
			"router", "runs and does not answer", "systemctl restart weaver"},
		"not ready": {func(s *Snapshot) { s.Router.Status.Error = ctl.Errorf(50, "waits") }, Problem, "router", "waits", "weave status"},
		"a problem": {func(s *Snapshot) { s.Router.Status.Problems = []string{"1 peer refuses us"} }, Warning, "router", "refuses us", "weave status"},

		"no list": {func(s *Snapshot) { s.Runtimes[0].Files = nil }, Problem,
			"lists of containerd", "no network list in /etc/cni/net.d", "weave conflist --out /etc/cni/net.d --plugin-dir /opt/cni/bin conflist/10-weave.conflist"},
		"no directory": {func(s *Snapshot) { s.Runtimes[0].Missing = true }, Problem, "lists of containerd", "no network list", "weave conflist"},
		"another list first": {func(s *Snapshot) {
			s.Runtimes[0].Files = append([]File{{Name: "05-x.conflist", Network: "x", Plugins: []string{"bridge"}}}, s.Runtimes[0].Files...)
		}, Warning, "lists of containerd", `loads /etc/cni/net.d/05-x.conflist, network "x"`, "give 10-weave.conflist a name that sorts before"},
		"a broken list first": {func(s *Snapshot) {
			s.Runtimes[0].Files = append([]File{{Name: "05-x.conf", Bad: "not JSON"}}, s.Runtimes[0].Files...)
		}, Problem, "lists of containerd", "no network at all", "mv /etc/cni/net.d/05-x.conf "},
		"a broken list last": {func(s *Snapshot) {
			s.Runtimes[0].Files = append(s.Runtimes[0].Files, File{Name: "99-x.conf", Bad: "not JSON"})
		},
			Warning, "lists of containerd", "not JSON", "mv "},
		"a broken list and nerdctl": {func(s *Snapshot) {
			s.Runtimes[0].Name, s.Runtimes[0].Picks = "nerdctl", PicksByName
			s.Runtimes[0].Files = append(s.Runtimes[0].Files, File{Name: "99-x.conf", Bad: "not JSON"})
		}, Problem, "lists of nerdctl", "every nerdctl command fails", "mv "},
		"CRI-O takes the first that is complete": {func(s *Snapshot) {
			r := &s.Runtimes[0]
			r.Name, r.Picks = "CRI-O", PicksValid
			r.Files = []File{{Name: "01", Network: "x", Plugins: []string{"absent"}}, {Name: "02", Network: "y", Plugins: []string{"portmap"}}, r.Files[0]}
			r.Plugins["absent"] = Plugin{}
		}, Warning, "lists of CRI-O", "loads /etc/cni/net.d/02", "sorts before"},
		"one name twice": {func(s *Snapshot) {
			twin := s.Runtimes[0].Files[0]
			twin.Name = "20-weave.conflist"
			s.Runtimes[0].Files = append(s.Runtimes[0].Files, twin)
		}, Warning, "lists of containerd", `10-weave.conflist and 20-weave.conflist in /etc/cni/net.d are both network "weave"`, "keep the one that is meant"},
		"podman with netavark": {func(s *Snapshot) { s.Runtimes[0] = Runtime{Name: "podman", NoLists: true} }, Warning, "lists of podman", "netavark", `network_backend = "cni" below [network] in /etc/containers/containers.conf`},

		"an old plugin": {func(s *Snapshot) {
			s.Runtimes[0].Plugins["portmap"] = Plugin{Path: "/opt/cni/bin/portmap", Speaks: []string{"0.4.0"}}
		}, Problem, "versions", "offers CNI 1.0.0, which /opt/cni/bin/portmap does not speak", "weave conflist --out /etc/cni/net.d --plugin-dir /opt/cni/bin /etc/cni/net.d/10-weave.conflist"},
		"an old plugin, and podman": {func(s *Snapshot) {
			r := &s.Runtimes[0]
			r.Name, r.Picks, r.Files[0].Version = "podman", PicksByName, "1.0.0"
			r.Plugins["portmap"] = Plugin{Path: "/usr/lib/cni/portmap", Speaks: []string{"0.4.0"}}
		}, Problem, "versions", "offers CNI 1.0.0, which /usr/lib/cni/portmap does not speak", "weave conflist --out"},
		"a plugin of ours is away": {func(s *Snapshot) { s.Runtimes[0].Plugins["weavedns"] = Plugin{} }, Problem, "plugins", "weavedns is not in /opt/cni/bin",
			"install -m 0755 -D -t /opt/cni/bin bin/weavedns"},
		"loopback is away":   {func(s *Snapshot) { s.Runtimes[0].Plugins["loopback"] = Plugin{} }, Problem, "plugins", "loopback is not in", "containernetworking-plugins"},
		"a plugin is broken": {func(s *Snapshot) { s.Runtimes[0].Plugins["portmap"] = Plugin{Path: "/p", Bad: "ask /p: no"} }, Problem, "plugins", "ask /p: no", "install"},
	}
}

// hostFaults are those of devices, paths, ports, sysctls and the kernel.
func hostFaults() map[string]fault {
	return map[string]fault{
		"a small underlay":         {func(s *Snapshot) { s.Devices[1].MTU = 1400 }, Problem, "mtu", "eth0 carries 1400 bytes", "found the cluster with --mtu 1350"},
		"a bridge of another size": {func(s *Snapshot) { s.Devices[2].MTU = 1500 }, Problem, "mtu", "bridge weave has an MTU of 1500", "ip link set dev weave mtu 1430"},
		"no way out":               {func(s *Snapshot) { s.Router.Topology, s.Default = nil, "" }, Warning, "mtu", "no default route", "ip route"},
		"a hole in the path":       {func(s *Snapshot) { s.Paths[0].Full = false }, Problem, "path mtu", "packets of 1480 bytes do not reach b", "ping -M do -s 1452 192.0.2.2"},
		"a path that says so":      {func(s *Snapshot) { s.Paths[0].Full, s.Paths[0].Limit = false, 1400 }, Problem, "path mtu", "cut at 1400 bytes, 1480 are needed", "ping -M do"},
		"pings are not answered":   {func(s *Snapshot) { s.Paths[0].Full, s.Paths[0].Small = false, false }, Warning, "path mtu", "not answered by b", "weave status peers"},

		"gossip's port": {func(s *Snapshot) { s.Ports[0].Owner, s.Ports[0].PID = "nginx", 99 }, Problem, "ports", "TCP 6783 is taken by nginx (process 99)", "another --port"},
		"port 53": {func(s *Snapshot) {
			s.Router.Status.Problems = []string{"names are not served at 1 address here; see `weave status dns`"}
			s.Router.Status.DNS.Errors = []string{"network weave at 10.32.0.1: listen udp4 10.32.0.1:53: bind: address already in use"}
			s.Ports = append(s.Ports, Port{"udp", netip.MustParseAddrPort("127.0.0.53:53"), "systemd-resolve", 96},
				Port{"udp", netip.MustParseAddrPort("0.0.0.0:53"), "dnsmasq", 97})
		}, Problem, "ports", "in use; port 53 is taken by dnsmasq (process 97) at 0.0.0.0", "listen at the addresses alone"},
		"port 53, of whom cannot be seen": {func(s *Snapshot) {
			s.Router.Status.DNS.Errors = []string{"network weave at 10.32.0.1: listen udp4 10.32.0.1:53: bind: address already in use"}
		}, Problem, "ports", "names are not served to containers here: network weave", "ss -lntup 'sport = :53'"},
		"names, for another reason": {func(s *Snapshot) {
			s.Router.Status.DNS.Errors = []string{"network weave at 10.32.0.1: too many open files"}
		}, Problem, "ports", "too many open files", "cannot serve an address"},
		"the tunnels' port": {func(s *Snapshot) { s.Ports[2].Owner, s.Ports[2].PID = "socat", 98 }, Problem, "ports", "UDP 6784 is taken by socat", "another --vxlan-port"},
		"another's tunnel":  {func(s *Snapshot) { s.Devices = s.Devices[:3] }, Problem, "ports", "a tunnel of the kernel that is not weave's", "ip -d link"},

		"no forwarding":                   {func(s *Snapshot) { s.Sysctls["net/ipv4/ip_forward"] = "0" }, Problem, "forwarding", "does not forward IPv4", "sysctl -w net.ipv4.ip_forward=1"},
		"no forwarding, before the start": {func(s *Snapshot) { s.Sysctls["net/ipv4/ip_forward"], s.Router = "0", Router{Why: "away"} }, Warning, "forwarding", "when it starts", "sysctl"},
		"no forwarding of IPv6": {func(s *Snapshot) {
			s.Sysctls["net/ipv6/conf/all/forwarding"] = "0"
			s.Router.Status.Networks[0].Subnets = append(s.Router.Status.Networks[0].Subnets, netip.MustParsePrefix("fd00::/64"))
		}, Problem, "forwarding", "IPv6", "net.ipv6.conf.all.forwarding=1"},
		"two ways, strict": {func(s *Snapshot) { s.Sources["b"] = netip.MustParseAddr("198.51.100.1") }, Problem, "rp_filter", "packets from b", "net.ipv4.conf.eth0.rp_filter=2"},
		"two ways, loose": {func(s *Snapshot) {
			s.Sources["b"] = netip.MustParseAddr("198.51.100.1")
			s.Sysctls["net/ipv4/conf/eth0/rp_filter"] = "2"
		}, Warning, "rp_filter", "does not lead over eth0", "--advertise"},

		"NetworkManager":   {func(s *Snapshot) { s.Managed = []Managed{{"weave", "NetworkManager"}} }, Problem, "managers", "NetworkManager manages weave", "nmcli general reload"},
		"systemd-networkd": {func(s *Snapshot) { s.Managed = []Managed{{"weave-vx", "systemd-networkd"}} }, Problem, "managers", "manages weave-vx", "networkctl reload"},
		"an old kernel":    {func(s *Snapshot) { s.Kernel.Release = "5.10.0-1" }, Problem, "kernel", "before 5.18", "5.18 or later"},
		"a small kernel":   {func(s *Snapshot) { s.Kernel.Features["vxlan"] = false }, Problem, "kernel", "without vxlan", "boot a kernel"},
	}
}

// firewallFaults are those of other firewalls.
func firewallFaults() map[string]fault {
	return map[string]fault{
		"Docker's policy": {func(s *Snapshot) {
			s.Firewall.Chains = []Chain{drops("iptables", "ip", "filter", "FORWARD", "forward")}
		}, Problem,
			"firewall", "iptables, chain FORWARD, drops what containers on bridge weave send beyond", "iptables -I FORWARD -i weave -j ACCEPT && iptables -I FORWARD -o weave"},
		"nftables, forward": {func(s *Snapshot) { s.Firewall.Chains = []Chain{drops("nft", "inet", "fw", "fwd", "forward")} }, Problem,
			"firewall", "table inet fw, chain fwd, drops", `nft insert rule inet fw fwd iifname "weave" accept`},
		"nftables, input": {func(s *Snapshot) { s.Firewall.Chains = []Chain{drops("nft", "inet", "fw", "in", "input")} }, Problem,
			"firewall", "drops the packets of containers on other hosts (VXLAN)", "nft insert rule inet fw in udp dport 6784 accept"},
		"names": {func(s *Snapshot) { s.Firewall.Chains = []Chain{drops("iptables", "ip", "filter", "INPUT", "input")} }, Problem,
			"firewall", "questions for names from bridge weave", "iptables -I INPUT -i weave -p udp --dport 53 -j ACCEPT"},
		"firewalld": {func(s *Snapshot) {
			s.Firewall.Chains = []Chain{drops("nft", "inet", "firewalld", "filter_INPUT", "input")}
		}, Problem, "firewall", "drops gossip", "--get-zone-of-interface=eth0 2>/dev/null || firewall-cmd --get-default-zone) --add-port=6783/tcp"},
		"ufw": {func(s *Snapshot) {
			s.Firewall = Firewall{Known: []string{"ufw"}, Chains: []Chain{drops("iptables", "ip", "filter", "FORWARD", "forward")}}
		}, Problem, "firewall", "drops", "ufw route allow in on weave"},
		"a rule that is not understood": {func(s *Snapshot) {
			c := drops("iptables", "ip", "filter", "FORWARD", "forward")
			c.Rules = []Rule{{Vague: true, Verdict: "accept"}}
			s.Firewall.Chains = []Chain{c}
		}, Warning, "firewall", "not understood here", "iptables -I"},
		"bridges are filtered": {func(s *Snapshot) {
			c := drops("iptables", "ip", "filter", "FORWARD", "forward")
			c.Rules = []Rule{{In: Names{List: []string{"weave"}}, Out: Names{List: []string{"eth0"}}, Verdict: "accept"}}
			s.Firewall.Chains, s.Sysctls["net/bridge/bridge-nf-call-iptables"] = []Chain{c}, "1"
		}, Problem, "firewall", "send each other", "iptables -I FORWARD -i weave"},
		"rules that cannot be read": {func(s *Snapshot) { s.Firewall.Unread = []string{"nft is not installed"} }, Warning, "firewall", "not installed", ""},
	}
}

func TestEachFaultIsFoundWithItsCure(t *testing.T) {
	for _, faults := range []map[string]fault{listFaults(), hostFaults(), firewallFaults()} {
		for name, c := range faults {
			t.Run(name, c.isFound)
		}
	}
}

func (c fault) isFound(t *testing.T) {
	s := well()
	c.plant(&s)
	found := false
	for _, f := range Judge(s) {
		found = found || f.Level == c.level && f.Check == c.check && strings.Contains(f.What, c.what) && strings.Contains(f.Cure+f.Advice, c.cure)
		if f.Level != OK && f.Cure+f.Advice == "" && len(s.Firewall.Unread) == 0 {
			t.Errorf("neither a cure nor advice: %+v", f)
		}
	}
	if !found {
		t.Errorf("want %s of %s with %q and %q, got %+v", c.level, c.check, c.what, c.cure, Judge(s))
	}
}

// With a newer portmap in containerd's directory than in podman's the list offers what podman's
// does not speak, and podman does not ask for.
func TestOfAListPodmanTakesOneVersionAlone(t *testing.T) {
	s := well()
	r := &s.Runtimes[0]
	r.Name, r.Picks, r.Files[0].Version = "podman", PicksByName, "0.4.0"
	r.Plugins["portmap"] = Plugin{Path: "/usr/lib/cni/portmap", Speaks: []string{"0.4.0"}}
	for _, f := range Judge(s) {
		if f.Check == "versions" && f.Level != OK {
			t.Errorf("got %+v", f)
		}
	}
}

// Of a host with ten networks one cause is one line, and no cure touches what the router writes.
func TestOneCauseIsOneLineHoweverManyListsHaveIt(t *testing.T) {
	s := well()
	r := &s.Runtimes[0]
	for _, name := range []string{"blue", "red"} {
		f := r.Files[0]
		f.Name, f.Network, f.Managed = "weave-"+name+".conflist", name, true
		r.Files = append(r.Files, f)
	}
	r.Plugins["portmap"] = Plugin{Path: "/opt/cni/bin/portmap", Speaks: []string{"0.4.0"}}
	one := func(check, what, cure string) {
		t.Helper()
		var all []Finding
		for _, f := range Judge(s) {
			if f.Level != OK {
				all = append(all, f)
			}
		}
		if len(all) != 1 || all[0].Check != check || !strings.Contains(all[0].What, what) || !strings.Contains(all[0].Cure+all[0].Advice, cure) {
			t.Errorf("got %+v, want one of %s with %q and %q", all, check, what, cure)
		}
		if len(all) > 0 && strings.Contains(all[0].Cure, "weave-") && check == "versions" {
			t.Errorf("it would rewrite what the router writes: %s", all[0].Cure)
		}
	}
	one("versions", "10-weave.conflist and 2 more offer CNI 1.0.0", "/etc/cni/net.d/10-weave.conflist")
	base := r.Files[0]
	r.Files[0].Versions = []string{"0.4.0"}
	one("versions", "weave-blue.conflist and 1 more offer", "makes that list from the one of the network weave")
	r.Files[0] = base
	r.Plugins["portmap"] = r.Plugins["loopback"]
	for _, name := range []string{"weave-net", "weave-ipam", "weavedns"} {
		r.Plugins[name] = Plugin{}
	}
	one("plugins", "weave-ipam, weave-net, weavedns are not in /opt/cni/bin", "bin/weave-ipam bin/weave-net bin/weavedns")
	r.Stopped, r.Files = true, nil
	one("lists of containerd", "does not run", "start it and look again")
}

func TestARuntimeIsStoppedWhereNobodyListens(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/a.sock")
	if err != nil {
		t.Fatal(err)
	}
	if nobodyAt(dir+"/none.sock", dir+"/a.sock") {
		t.Error("somebody listens")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if !nobodyAt(dir+"/none.sock", dir+"/a.sock") {
		t.Error("nobody listens")
	}
	if got := containerdSockets("[grpc]\n  address = \"/x/c.sock\"\n[debug]\n  address = ''\n"); len(got) != 2 || got[1] != "/x/c.sock" {
		t.Errorf("got %v", got)
	}
}

func TestWithoutARouterTheKernelSaysWhichNetworksThereAre(t *testing.T) {
	s := well()
	s.Router = Router{Why: "away"}
	s.Devices[1].MTU = 1400
	s.Firewall.Chains = []Chain{drops("iptables", "ip", "filter", "FORWARD", "forward")}
	var said []string
	for _, f := range Judge(s) {
		if f.Level == Problem {
			said = append(said, f.Check)
		}
	}
	if strings.Join(said, " ") != "router mtu firewall" {
		t.Errorf("problems of %v", said)
	}
	for name, want := range map[string]bool{"weave": true, "wv-0123456789ab": true, "sb-0123456789ab": true, "wv-x": false, "wv-0123456789ag": false, "eth0": false} {
		if isBridge(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// What the user gives is obeyed in every rule: an accept before the drop saves the packet.
func TestARuleBeforeTheDropCounts(t *testing.T) {
	const save = `# Generated
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -j DROP
COMMIT
*filter
:INPUT DROP [1:2]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
:own - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,6000:7000 -j ACCEPT
-A INPUT -p udp -m udp --dport 6784 -m comment --comment "a \"road\" -j DROP" -j ACCEPT
-A INPUT ! -i eth+ -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -i weave -m comment --comment weave -j ACCEPT
-A DOCKER-USER -g own
-A own -j RETURN
COMMIT
`
	s := well()
	s.Firewall.Chains = parseSave("iptables", "ip", save)
	if f := firewalls(s); len(f) != 1 || f[0].Level != OK {
		t.Errorf("got %+v", f)
	}
	for gone, want := range map[string]string{
		"-A DOCKER-USER -i weave -m comment --comment weave -j ACCEPT": "what containers on bridge weave send beyond",
		"22,6000:7000": "gossip", "--dport 6784": "VXLAN", "-A INPUT ! -i eth+ -j ACCEPT": "names",
	} {
		with := map[string]string{"22,6000:7000": "22", "--dport 6784": "--dport 6785"}[gone]
		s.Firewall.Chains = parseSave("iptables", "ip", strings.Replace(save, gone, with, 1))
		if f := firewalls(s); len(f) != 1 || f[0].Level != Problem || !strings.Contains(f[0].What, want) {
			t.Errorf("without %s: got %+v", gone, f)
		}
	}
	s.Firewall.Chains = parseSave("iptables", "ip", strings.Replace(save, "-A FORWARD -j DOCKER-USER", "-A FORWARD -i weave -j DROP\n-A FORWARD -j DOCKER-USER", 1))
	if f := firewalls(s); len(f) != 1 || f[0].Level != Problem {
		t.Errorf("a drop before the accept: got %+v", f)
	}
}

func TestANftablesRulesetIsFollowed(t *testing.T) {
	const ruleset = `{"nftables":[{"metainfo":{}},
{"chain":{"family":"inet","table":"weave","name":"forward","type":"filter","hook":"forward","prio":0,"policy":"drop"}},
{"chain":{"family":"inet","table":"fw","name":"in","type":"filter","hook":"input","prio":0,"policy":"drop"}},
{"chain":{"family":"inet","table":"fw","name":"zones"}},
{"rule":{"family":"inet","table":"fw","chain":"in","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"icmp","field":"type"}},"right":"echo-request"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"fw","chain":"in","expr":[{"vmap":{"key":{"ct":{"key":"state"}},"data":{"set":[["established",{"accept":null}]]}}}]}},
{"rule":{"family":"inet","table":"fw","chain":"in","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"set":[22,{"range":[6000,7000]}]}}},{"counter":{"packets":1}},{"accept":null}]}},
{"rule":{"family":"inet","table":"fw","chain":"in","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":"eth0"}},{"jump":{"target":"zones"}}]}},
{"rule":{"family":"inet","table":"fw","chain":"in","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":{"set":["lo","weave*"]}}},{"accept":null}]}},
{"rule":{"family":"inet","table":"fw","chain":"zones","expr":[{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","new"]}},{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":6784}},{"accept":null}]}}
]}`
	chains, err := parseNFT([]byte(ruleset))
	if err != nil {
		t.Fatal(err)
	}
	s := well()
	s.Firewall.Chains = chains
	if f := firewalls(s); len(f) != 1 || f[0].Level != OK {
		t.Errorf("got %+v", f)
	}
	for gone, want := range map[string][2]string{
		`"range":[6000,7000]`: {`"range":[6000,6100]`, "gossip"}, `"right":6784`: {`"right":"@tunnels"`, "VXLAN"}, `"weave*"`: {`"docker0"`, "names"},
	} {
		chains, err := parseNFT([]byte(strings.Replace(ruleset, gone, want[0], 1)))
		if err != nil {
			t.Fatal(err)
		}
		s.Firewall.Chains = chains
		if f := firewalls(s); len(f) != 1 || f[0].Level == OK || !strings.Contains(f[0].What, want[1]) {
			t.Errorf("without %s: got %+v", gone, f)
		}
	}
	if _, err := parseNFT([]byte("no JSON")); err == nil {
		t.Error("want an error")
	}
}

func TestChainsThatLeadToEachOtherEnd(t *testing.T) {
	a := Chain{Tool: "nft", Family: "ip", Table: "t", Name: "a", Hook: "forward", Policy: "drop", Rules: []Rule{{Verdict: "jump", Target: "b"}}}
	b := Chain{Tool: "nft", Family: "ip", Table: "t", Name: "b", Rules: []Rule{{Verdict: "jump", Target: "a"}, {Verdict: "goto", Target: "none"}}}
	if f := follow(a, []Chain{a, b}, road{hook: "forward"}); !f.dropped || f.accepted {
		t.Errorf("got %+v", f)
	}
}

func TestFilesAreReadAsRuntimesReadThem(t *testing.T) {
	conf, dirs := containerdDirs("[plugins.cni]\n  bin_dir = \"/x/bin\"\n  conf_dir = '/x/net.d'\n")
	if conf != "/x/net.d" || len(dirs) != 1 || dirs[0] != "/x/bin" {
		t.Errorf("containerd: %s %v", conf, dirs)
	}
	if _, dirs = containerdDirs("bin_dirs = ['/a', \"/b\"]"); len(dirs) != 2 {
		t.Errorf("containerd 2: %v", dirs)
	}
	if conf, dirs = containerdDirs(""); conf != "/etc/cni/net.d" || dirs[0] != "/opt/cni/bin" {
		t.Errorf("containerd without configuration: %s %v", conf, dirs)
	}
	if r := podman("", "netavark\n"); !r.NoLists {
		t.Error("podman has chosen netavark")
	}
	r := podman("network_backend = \"cni\"\ndefault_network=\"x\"\ncni_plugin_dirs = [\n \"/a\",\n]\nnetwork_config_dir=\"/n\"", "netavark")
	if r.NoLists || r.Default != "x" || r.ConfDir != "/n" || len(r.PluginDirs) != 1 {
		t.Errorf("podman: %+v", r)
	}
	var offers File
	if err := offers.parse([]byte(shipped), true); err != nil || offers.Version != "0.4.0" || len(offers.Versions) != 3 {
		t.Errorf("a list: %+v, %v", offers, err)
	}
	var f File
	if err := f.parse([]byte(`{"cniVersion":"0.3.1","name":"n","type":"bridge","ipam":{"type":"host-local"}}`), false); err != nil || f.Network != "n" || len(f.Plugins) != 2 {
		t.Errorf("a single plugin: %+v, %v", f, err)
	}
	for _, text := range []string{"", "{}", "[]", "x"} {
		if (&File{}).parse([]byte(text), false) == nil || (&File{}).parse([]byte(text), true) == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestAddressesOfTheKernelsTables(t *testing.T) {
	for s, want := range map[string]string{
		"0100007F:1A7F": "127.0.0.1:6783", "00000000000000000000000000000000:1A80": "[::]:6784", "0000000000000000FFFF00000100007F:0035": "127.0.0.1:53",
	} {
		if got, err := hexAddr(s); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
}

func FuzzWhatOthersWrite(f *testing.F) {
	f.Add("*filter\n:FORWARD DROP [0:0]\n-A FORWARD ! -i \"x -p udp --dport 1:2,x -j\n-A\n-A FORWARD -i")
	f.Add(`{"nftables":[{"rule":{"family":"ip","table":"t","chain":"c","expr":[{"match":{"op":"==","left":{"meta":{"key":"iifname"}},"right":""}},{"jump":null}]}},{"chain":{"family":"ip","table":"t","name":"c","hook":"forward"}}]}`)
	f.Add(`{"name":"n","plugins":[{"type":"x"}]}`)
	f.Add("0100007F:1A7F")
	f.Fuzz(func(t *testing.T, text string) {
		s := well()
		s.Firewall.Chains = parseSave("iptables", "ip", text)
		if chains, err := parseNFT([]byte(text)); err == nil {
			s.Firewall.Chains = append(s.Firewall.Chains, chains...)
		}
		for _, list := range []bool{false, true} {
			file := File{Name: "f"}
			if err := file.parse([]byte(text), list); err != nil {
				file.Bad = err.Error()
			}
			s.Runtimes[0].Files = append(s.Runtimes[0].Files, file)
		}
		hexAddr(text)
		containerdDirs(text)
		podman(text, text)
		echo{addr: here}.answer([]byte(text))
		echo{addr: netip.MustParseAddr("::1")}.answer([]byte(text))
		Judge(s)
	})
}
