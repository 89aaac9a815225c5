package doctor

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What others have chosen is theirs to change: the doctor says what there is to decide, and
// gives no command that a tired person pastes.
func TestNoCureTakesSomethingAwayFromOthers(t *testing.T) {
	foreign := File{Name: "05-foreign.conflist", Network: "cluster", Plugins: []string{"bridge"}}
	namesake := foreign
	namesake.Network = "weave"
	for name, plant := range map[string]func(*Snapshot){
		"podman's backend":        func(s *Snapshot) { s.Runtimes[0] = Runtime{Name: "podman", NoLists: true} },
		"the cluster's own list":  func(s *Snapshot) { s.Runtimes[0].Files = append([]File{foreign}, s.Runtimes[0].Files...) },
		"a list called like ours": func(s *Snapshot) { s.Runtimes[0].Files = append([]File{namesake}, s.Runtimes[0].Files...) },
		"a program at our port":   func(s *Snapshot) { s.Ports[0].Owner, s.Ports[0].PID = "nginx", 99 },
		"the uplink's MTU":        func(s *Snapshot) { s.Devices[1].MTU = 1400 },
		"a plugin of nobody knows": func(s *Snapshot) {
			s.Runtimes[0].Files[0].Plugins = []string{"weave-net", "cilium-cni"}
			s.Runtimes[0].Plugins["cilium-cni"] = Plugin{}
		},
		"who may forward": func(s *Snapshot) {
			s.Firewall.Chains = []Chain{drops("nft", "inet", "firewalld", "filter_FORWARD", "forward")}
		},
		"a rule of which not all is understood": func(s *Snapshot) {
			c := drops("iptables", "ip", "filter", "INPUT", "input")
			c.Rules = []Rule{{Proto: "tcp", Ports: []Ports{{6783, 6783}}, Vague: true, Verdict: "accept"}, {Proto: "udp", Verdict: "accept"}}
			s.Firewall.Chains = []Chain{c}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := well()
			plant(&s)
			said := 0
			for _, f := range Judge(s) {
				if f.Level == OK {
					continue
				}
				said++
				if f.Cure != "" || f.Advice == "" {
					t.Errorf("%+v", f)
				}
			}
			if said == 0 {
				t.Error("nothing is said of it")
			}
		})
	}
}

func TestQuestionsForNamesAreLetThroughInTheBridgesZoneAlone(t *testing.T) {
	s := well()
	c := drops("nft", "inet", "firewalld", "filter_INPUT", "input")
	c.Rules = []Rule{{In: Names{List: []string{"eth0"}}, Verdict: "accept"}}
	s.Firewall.Chains = []Chain{c}
	got := firewalls(s)
	if len(got) != 1 || !strings.Contains(got[0].Cure, "--get-zone-of-interface=weave ") || !strings.Contains(got[0].Cure, "--add-service=dns ") || strings.Contains(got[0].Cure, "trusted") {
		t.Errorf("got %+v", got)
	}
}

func TestThePortOfMetricsIsNotTakenForThatOfGossip(t *testing.T) {
	at := func(ports ...string) (out []Port) {
		for _, p := range ports {
			out = append(out, Port{"tcp", netip.MustParseAddrPort(p), "weaver", 1})
		}
		return out
	}
	for name, c := range map[string]struct {
		told uint16
		has  []Port
		want uint16
	}{
		"metrics first":                {0, at("[::]:9480", "[::]:6783"), 6783},
		"metrics last":                 {0, at("0.0.0.0:6783", "[::]:6783", "[::]:9480"), 6783},
		"another port":                 {0, at("0.0.0.0:7000", "[::]:7000", "127.0.0.1:6786"), 7000},
		"another port, and it says":    {7000, at("0.0.0.0:7000", "[::]:9480"), 7000},
		"it says so before it listens": {7000, nil, 7000},
		"nothing is known":             {0, nil, 6783},
	} {
		s := well()
		s.Router.Status.Port, s.Ports = c.told, c.has
		if got := s.gossip(); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// By the process behind the control socket, whatever the kernel calls it.
func TestTheRouterIsNoStrangerAtItsOwnPorts(t *testing.T) {
	s := well()
	s.Router = Router{Why: "no answer", Hangs: true, PID: 7}
	for i := range s.Ports[:2] {
		s.Ports[i].Owner = "exe"
		s.Ports[i].Addr = netip.AddrPortFrom(s.Ports[i].Addr.Addr(), []uint16{7000, meshPort}[i])
	}
	if got := ports(s); Worst(got) != OK {
		t.Errorf("got %+v", got)
	}
	if got := s.gossip(); got != 7000 {
		t.Errorf("gossip is at %d", got)
	}
	s.Router.PID = 0
	if got := ports(s); Worst(got) != Problem {
		t.Errorf("it may be anybody: %+v", got)
	}
}

// A rule that may drop is not passed over because it also may not.
func TestADropThatIsNotUnderstoodIsAWarning(t *testing.T) {
	const save = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:block - [0:0]\n%s\nCOMMIT\n"
	for rule, want := range map[string]Level{
		"-A INPUT -m mark --mark 0x1 -p tcp --dport 6783 -j DROP":                                            Warning,
		"-A INPUT -s 192.0.2.0/24 -j block\n-A block -j REJECT":                                              Warning,
		"-A INPUT -j block\n-A block -m mark --mark 0x1 -j DROP":                                             Warning,
		"-A INPUT -m mark --mark 0x1 -g block\n-A block -j DROP":                                             Warning,
		"-A INPUT -j block\n-A block -m mark --mark 0x1 -j RETURN\n-A block -j DROP":                         Warning,
		"-A INPUT -d 192.0.2.1/32 -p tcp -j DROP":                                                            Problem,
		"-A INPUT -j block\n-A block -m addrtype --dst-type LOCAL -j RETURN\n-A block -j DROP":               OK, // ufw's
		"-A INPUT ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP": OK, // kube-proxy's
		"-A INPUT -d 10.96.0.10/32 -p udp -m udp --dport 6784 -j REJECT":                                     OK,
		"-A INPUT -p tcp -m multiport --dports 22 -j block\n-A block -s 192.0.2.7/32 -j REJECT":              OK, // fail2ban's
		"-A FORWARD -m addrtype --dst-type MULTICAST -j DROP":                                                OK,
	} {
		s := well()
		s.Firewall.Chains = parseSave("iptables", "ip", strings.Replace(save, "%s", rule, 1))
		got := firewalls(s)
		if Worst(got) != want {
			t.Errorf("%s: want %s, got %+v", rule, want, got)
		}
		if clean := strings.Contains(got[len(got)-1].What, "no other firewall drops"); clean != (want == OK) {
			t.Errorf("%s: %q", rule, got[len(got)-1].What)
		}
	}
}

func TestAPluginForWhichThereWasNoTimeIsNotAProblem(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "weave-net"), []byte("#!/bin/sh\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := well().Runtimes[0]
	r.PluginDirs = []string{dir}
	r.Files[0].Plugins = []string{"weave-net"}
	r.Loopback = false
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r.Plugins = new(asker).askAll(ctx, r)
	s := well()
	s.Runtimes = []Runtime{r}
	for _, f := range Judge(s) {
		switch {
		case f.Check == "time" && (f.Level != Warning || f.Cure != "" || !strings.Contains(f.What, "what these plugins speak: weave-net")), f.Check != "time" && f.Level != OK,
			f.Check == "plugins", f.Check == "versions":
			t.Errorf("%+v", f)
		}
	}
	if r.Plugins = new(asker).askAll(t.Context(), r); r.Plugins["weave-net"].Bad == "" {
		t.Errorf("with time enough: %+v", r.Plugins)
	}
}

func TestAListThatThisUserMayNotReadIsNotMovedAway(t *testing.T) {
	s := well()
	s.Runtimes[0].Files = append([]File{{Name: "05-x.conflist", Bad: "permission denied", Unread: true}}, s.Runtimes[0].Files...)
	for _, f := range Judge(s) {
		if f.Level == Problem || strings.Contains(f.Cure, "mv ") {
			t.Errorf("%+v", f)
		}
	}
}

func TestAPluginOfDebianIsNotInstalledOverItself(t *testing.T) {
	s := well()
	s.Runtimes[0].PluginDirs = []string{"/usr/lib/cni"}
	s.Runtimes[0].Plugins["portmap"] = Plugin{}
	if f := plugins(s); len(f) != 1 || f[0].Cure != "apt-get install containernetworking-plugins" {
		t.Errorf("got %+v", f)
	}
}

// Two runtimes of a host start the same plugins: a process for each is enough.
func TestAPluginThatTwoRuntimesStartIsAskedOnce(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\ncat >/dev/null; echo x >>" + dir + "/asked; echo '{\"supportedVersions\":[\"1.0.0\"]}'\n"
	if err := os.WriteFile(filepath.Join(dir, "weave-net"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	var k asker
	for _, dirs := range [][]string{{dir}, {"/nowhere", dir}} {
		r := Runtime{PluginDirs: dirs, Files: []File{{Plugins: []string{"weave-net", "weave-ipam"}}}}
		all := k.askAll(t.Context(), r)
		if p := all["weave-net"]; p.Path != filepath.Join(dir, "weave-net") || len(p.Speaks) != 1 || p.Bad != "" || p.Late {
			t.Errorf("got %+v", p)
		}
		if p := all["weave-ipam"]; p.Path != "" || p.Late {
			t.Errorf("one that is not there: %+v", p)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "asked")); string(text) != "x\n" {
		t.Errorf("asked %q", text)
	}
}
