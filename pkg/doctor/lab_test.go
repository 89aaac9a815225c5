package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// Gather looks at the namespaces of its process, from several threads: in a host of a
// lab it is this test binary run again.
const (
	asDoctor = "run-doctor"
	asHolder = "hold-port"
)

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == asDoctor:
		os.Exit(doctorMain())
	case len(os.Args) == 3 && os.Args[1] == asHolder:
		os.Exit(holderMain(os.Args[2]))
	}
	os.Exit(netlab.Main(m))
}

func doctorMain() int {
	var o Options
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	json.NewEncoder(os.Stdout).Encode(Judge(Gather(ctx, o)))
	return 0
}

// holderMain has a port until it is killed.
func holderMain(at string) int {
	l, err := net.Listen("tcp", at)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("listens")
	for {
		if _, err := l.Accept(); err != nil {
			return 1
		}
	}
}

// doctorOn looks over a host of a lab.
func doctorOn(t *testing.T, h *netlab.Host, o Options) []Finding {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.RunInput(string(in), self, asDoctor)
	if err != nil {
		t.Fatal(err)
	}
	var all []Finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return all
}

const speaker = `#!/bin/sh
cat >/dev/null; echo '{"cniVersion":"1.1.0","supportedVersions":[%s]}'
`

// shipped is the default network as an installer without weave conflist may leave it.
const shipped = `{"cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0","1.1.0"],"name":"weave",
"plugins":[{"type":"weave-net","ipam":{"type":"weave-ipam"}},{"type":"weavedns"},{"type":"portmap"}]}`

// prepare makes a host as a router leaves it, with lists and plugins.
func prepare(t *testing.T, h *netlab.Host) Options {
	t.Helper()
	for name, speaks := range map[string]string{
		"weave-net": `"0.4.0","1.0.0","1.1.0"`, "weave-ipam": `"0.4.0","1.0.0","1.1.0"`, "weavedns": `"0.4.0","1.0.0","1.1.0"`, "portmap": `"0.4.0","1.0.0","1.1.0"`,
	} {
		write(t, h, "/opt/cni/bin/"+name, fmt.Sprintf(speaker, speaks), 0o755)
	}
	write(t, h, "/etc/cni/net.d/10-weave.conflist", shipped, 0o644)
	h.MustRun(t, "ip", "link", "add", "weave", "mtu", "1430", "type", "bridge")
	h.MustRun(t, "ip", "link", "set", "weave", "up")
	h.MustRun(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	return Options{ConfDirs: []string{"/etc/cni/net.d"}, PluginDirs: []string{"/opt/cni/bin"}}
}

func write(t *testing.T, h *netlab.Host, path, text string, mode os.FileMode) {
	t.Helper()
	h.MustRun(t, "mkdir", "-p", path[:strings.LastIndex(path, "/")])
	if err := h.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
}

// of gives the findings of a check that are more than ok.
func of(all []Finding, check string) (out []Finding) {
	for _, f := range all {
		if f.Check == check && f.Level != OK {
			out = append(out, f)
		}
	}
	return out
}

func TestOnARealHostPlantedFaultsAreFoundAndTheirCuresCureThem(t *testing.T) {
	lab := netlab.New(t, netlab.Options{Hosts: 2, Private: []string{"/etc/weave"}})
	h, other := lab.Host(0), lab.Host(1)
	o := prepare(t, h)
	o.Router = Router{
		Status: &ctl.Status{Version: "v1", Name: "a", Networks: []ctl.NetStatus{{Network: ctl.Network{Name: "weave", Bridge: "weave", MTU: 1430}}}},
		Topology: &ctl.Topology{Self: "a", Hosts: []ctl.TopologyHost{
			{Name: "a", Address: h.Addr(), State: ctl.HostHere}, {Name: "b", Address: other.Addr(), State: ctl.HostUp}}},
	}
	if all := doctorOn(t, h, o); Worst(all) != OK {
		t.Fatalf("a host with which nothing is wrong: %+v", all)
	}
	holder := plant(t, h, other)
	all := doctorOn(t, h, o)
	lists := "lists of a runtime with " + o.ConfDirs[0]
	for check, want := range map[string][]string{
		"ports":      {"TCP 6783 is taken by"},
		lists:        {"05-other.conflist"},
		"versions":   {"offers CNI 1.1.0, which /opt/cni/bin/portmap does not speak"},
		"plugins":    {"weavedns is not in /opt/cni/bin"},
		"mtu":        {"bridge weave has an MTU of 1500"},
		"forwarding": {"does not forward IPv4"},
		"firewall":   {"chain door, drops the packets of containers on other hosts (VXLAN)", "chain road, drops what containers on bridge weave send"},
		"path mtu":   {"packets of 1480 bytes do not reach b"},
	} {
		found := of(all, check)
		if len(found) != len(want) {
			t.Errorf("%s: want %q, got %+v", check, want, found)
			continue
		}
		for i, f := range found {
			if !strings.Contains(f.What, want[i]) || f.Cure+f.Advice == "" {
				t.Errorf("%s: want %q, got %+v", check, want[i], f)
			}
			switch check {
			case "mtu", "forwarding", "firewall": // the other cures need the tree, its build, or another host
				h.MustRun(t, "sh", "-c", f.Cure)
			}
		}
	}
	// There is a decision to take about these two.
	if err := holder.Kill(); err != nil {
		t.Fatal(err)
	}
	h.MustRun(t, "mv", "/etc/cni/net.d/10-weave.conflist", "/etc/cni/net.d/00-weave.conflist")
	if err := netlab.Wait(time.Minute, "the cures cure", func() error {
		all = doctorOn(t, h, o)
		for _, check := range []string{"ports", "mtu", "forwarding", "firewall", lists} {
			if left := of(all, check); len(left) > 0 {
				return fmt.Errorf("left: %+v", left)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// plant spoils a host, and the path to another one. The process has the port of gossip.
func plant(t *testing.T, h, other *netlab.Host) *netlab.Daemon {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	holder, err := h.Start(self, asHolder, "0.0.0.0:6783")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlab.Wait(time.Minute, "the port is taken", func() error {
		if !strings.Contains(holder.Log(), "listens") {
			return fmt.Errorf("log %q", holder.Log())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	write(t, h, "/etc/cni/net.d/05-other.conflist", `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"bridge"}]}`, 0o644)
	write(t, h, "/opt/cni/bin/portmap", fmt.Sprintf(speaker, `"0.4.0","1.0.0"`), 0o755)
	h.MustRun(t, "rm", "/opt/cni/bin/weavedns")
	h.MustRun(t, "ip", "link", "set", "weave", "mtu", "1500")
	h.MustRun(t, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	h.MustRun(t, "nft", "add table inet fw; add chain inet fw road { type filter hook forward priority 0; policy drop; }; "+
		"add chain inet fw door { type filter hook input priority 0; policy drop; }; add rule inet fw door tcp dport 6783 accept; "+
		"add rule inet fw door icmp type echo-reply accept; add rule inet fw door iifname lo accept; add rule inet fw door udp dport 53 accept")
	other.MustRun(t, "nft", "add table inet hole; add chain inet hole door { type filter hook input priority 0; }; add rule inet hole door icmp type echo-request meta length > 1400 drop")
	return holder
}

func TestIptablesOnARealHostIsRead(t *testing.T) {
	for _, tool := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(tool, func(t *testing.T) {
			lab := netlab.New(t, netlab.Options{Hosts: 1})
			h := lab.Host(0)
			if _, err := h.Run(tool, "-P", "FORWARD", "DROP"); err != nil {
				t.Skipf("needs %s: %v", tool, err)
			}
			o := prepare(t, h)
			found := of(doctorOn(t, h, o), "firewall")
			if len(found) == 0 || found[0].Level != Problem || !strings.Contains(found[0].What, "chain FORWARD, drops what containers") {
				t.Fatalf("got %+v", found)
			}
			for _, f := range found {
				h.MustRun(t, "sh", "-c", strings.TrimSpace(f.Cure))
			}
			if left := of(doctorOn(t, h, o), "firewall"); len(left) > 0 {
				t.Errorf("after %q: %+v", found[0].Cure, left)
			}
			rules := h.MustRun(t, tool+"-save")
			if doctorOn(t, h, o); h.MustRun(t, tool+"-save", "-t", "filter") == "" || strings.Count(rules, "*") != strings.Count(h.MustRun(t, tool+"-save"), "*") {
				t.Error("looking has changed the rules")
			}
		})
	}
}
