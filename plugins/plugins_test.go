package plugins_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

var all = []string{"weave-net", "simplebridge", "weave-ipam", "weavedns"}

// What a plugin says without touching anything needs no namespace.

func plain(t *testing.T, plugin, stdin string, env ...string) answer {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, plugin))
	cmd.Env = env
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	_ = cmd.Run() // its state says it all
	return answer{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(begin)}
}

func TestEveryPluginSaysWhatItIs(t *testing.T) {
	for _, p := range all {
		a := plain(t, p, "")
		if want := "CNI " + p + " plugin v0.1.0\nCNI protocol versions supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"; a.rc != 0 || a.stdout != "" || a.stderr != want {
			t.Errorf("%s without a command: got %+v", p, a)
		}
		a = plain(t, p, `{"cniVersion":"1.0.0"}`, "CNI_COMMAND=VERSION", "CNI_PATH=dummy", "CNI_NETNS=dummy", "CNI_IFNAME=dummy")
		var v struct{ SupportedVersions []string }
		if err := json.Unmarshal([]byte(a.stdout), &v); err != nil || a.rc != 0 || !slices.Equal(v.SupportedVersions, versions) {
			t.Errorf("%s VERSION: got %+v, %v", p, a, err)
		}
	}
}

func TestABadCallIsCode4AndNamesTheVariables(t *testing.T) {
	const stdin = `{"cniVersion":"1.0.0","name":"n"}`
	for _, p := range all {
		if a := plain(t, p, stdin, "CNI_COMMAND=DANCE"); a.rc != 1 || a.err().Code != 4 {
			t.Errorf("%s: unknown command: got %+v", p, a)
		}
		for verb, vars := range map[string][]string{
			"ADD":    {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
			"CHECK":  {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"},
			"DEL":    {"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"},
			"GC":     {"CNI_PATH"},
			"STATUS": {"CNI_PATH"},
		} {
			a := plain(t, p, stdin, "CNI_COMMAND="+verb)
			if a.rc != 1 || a.err().Code != 4 {
				t.Errorf("%s %s: got %+v", p, verb, a)
			}
			for _, v := range vars {
				if !strings.Contains(a.err().Msg, v) {
					t.Errorf("%s %s: %q does not name %s", p, verb, a.err().Msg, v)
				}
			}
		}
	}
}

func TestGCAndSTATUSNeedVersion110(t *testing.T) {
	for _, p := range all {
		for _, verb := range []string{"GC", "STATUS"} {
			if a := plain(t, p, conf("1.0.0", p, nil), "CNI_COMMAND="+verb, "CNI_PATH=/x"); a.rc != 1 || a.err().Code != 1 {
				t.Errorf("%s %s: got %+v", p, verb, a)
			}
		}
		if a := plain(t, p, conf("0.3.1", p, nil), "CNI_COMMAND=CHECK", "CNI_PATH=/x", "CNI_CONTAINERID=c", "CNI_NETNS=/x", "CNI_IFNAME=e"); a.rc != 1 || a.err().Code != 1 {
			t.Errorf("%s CHECK at 0.3.1: got %+v", p, a)
		}
		if a := plain(t, p, `{"name":"n"}`, "CNI_COMMAND=ADD", "CNI_PATH=/x", "CNI_CONTAINERID=c", "CNI_NETNS=/x", "CNI_IFNAME=e"); a.rc != 1 || a.err().Code != 1 {
			t.Errorf("%s ADD without a version: got %+v", p, a)
		}
	}
}

// hostile is stdin that no plugin may act on.
func hostileStdin() map[string]string {
	ok := conf("1.0.0", "weave-net", nil)
	return map[string]string{
		"nothing": "", "null": "null", "a list": "[]", "rubbish": "\x00\x01\x02", "byte order mark": "\xef\xbb\xbf" + ok,
		"two documents": ok + ok, "cut short": ok[:len(ok)-1], "NUL in a key": `{"cniVersion":"1.0.0","name":"n` + "\x00" + `"}`,
		"key twice":              `{"cniVersion":"1.0.0","name":"a","name":"b"}`,
		"name missing":           `{"cniVersion":"1.0.0"}`,
		"name is a path":         `{"cniVersion":"1.0.0","name":"../../x"}`,
		"name with NUL":          `{"cniVersion":"1.0.0","name":"a\u0000b"}`,
		"name very long":         `{"cniVersion":"1.0.0","name":"` + strings.Repeat("a", 300) + `"}`,
		"wrong types":            `{"cniVersion":"1.0.0","name":"n","ipam":7,"runtimeConfig":"x","args":[],"mtu":"big","socket":{}}`,
		"version number":         `{"cniVersion":1,"name":"n"}`,
		"version unknown":        `{"cniVersion":"7.0.0","name":"n"}`,
		"version words":          `{"cniVersion":"one","name":"n"}`,
		"deep":                   `{"cniVersion":"1.0.0","name":"n","x":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + `}`,
		"deep objects":           `{"cniVersion":"1.0.0","name":"n","x":` + strings.Repeat(`{"a":`, 5e3) + "1" + strings.Repeat("}", 5e3) + `}`,
		"1 MiB and a bit":        `{"cniVersion":"1.0.0","name":"n","x":"` + strings.Repeat("a", 1<<20) + `"}`,
		"1 MiB of spaces behind": ok + strings.Repeat(" ", 1<<20),
		"8 MiB":                  `{"cniVersion":"1.0.0","name":"n","x":"` + strings.Repeat("a", 8<<20) + `"}`,
		"hostile ipam":           conf("1.0.0", "weave-net", map[string]any{"ipam": map[string]any{"type": "../../bin/reboot"}}),
		"its own ipam":           conf("1.0.0", "weave-net", map[string]any{"ipam": map[string]any{"type": "weave-net"}}),
		"hostile socket":         conf("1.0.0", "weave-net", map[string]any{"socket": "relative"}),
		"ipam socket":            conf("1.0.0", "weave-net", map[string]any{"ipam": map[string]any{"type": "weave-ipam", "socket": "relative"}}),
		"bad prevResult":         conf("1.0.0", "weavedns", map[string]any{"socket": "x", "prevResult": map[string]any{"cniVersion": "1.0.0", "ips": []any{nil}}}),
		"hostile address":        conf("1.0.0", "weave-net", map[string]any{"socket": "x", "runtimeConfig": map[string]any{"ips": []string{"127.0.0.1"}}}),
	}
}

func TestHostileStdinIsACodedErrorQuicklyAndChangesNothing(t *testing.T) {
	m := newMachine(t)
	c := newNetNS(t)
	before := m.world(t) + c.world(t)
	for name, stdin := range hostileStdin() {
		for _, p := range all {
			for _, verb := range []string{"ADD", "CHECK"} {
				a := m.runAtOnce(p, stdin, "CNI_COMMAND="+verb, "CNI_NETNS="+c.path)
				if e := a.err(); a.rc != 1 || e.Code == 0 || e.Code == 999 || len(e.Msg)+len(e.Details) > 600 {
					t.Errorf("%s %s of %s: rc %d, %+v, stderr %.200q", p, verb, name, a.rc, e, a.stderr)
				}
			}
		}
	}
	if after := m.world(t) + c.world(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestHostileNamespacesAreRefusedBeforeAnythingIsDone(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	file, fifo, link, loop := filepath.Join(m.dir, "file"), filepath.Join(m.dir, "fifo"), filepath.Join(m.dir, "link"), filepath.Join(m.dir, "loop")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range [][2]string{{m.path, link}, {loop, loop}} {
		if err := os.Symlink(l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	firstProcess := uint(8)
	if f, err := os.Open("/proc/1/ns/net"); err != nil {
		firstProcess = 4 // not even root may look at it here
	} else {
		f.Close()
	}
	before := m.world(t)
	for name, ns := range map[string]struct {
		path string
		code uint
	}{
		"its own": {m.path, 8}, "link to its own": {link, 8}, "link to itself": {loop, 4}, "of the first process": {"/proc/1/ns/net", firstProcess},
		"regular file": {file, 4}, "FIFO": {fifo, 4}, "directory": {m.dir, 4}, "device": {"/dev/null", 4}, "terminal": {"/dev/tty", 4},
		"mount namespace": {"/proc/self/ns/mnt", 4}, "user namespace": {"/proc/self/ns/user", 4},
		"nothing there": {"/run/netns/no-such", 3}, "of a dead process": {"/proc/4194303/ns/net", 3}, "below a file": {file + "/x", 3},
		"very long": {"/" + strings.Repeat("a", 100_000), 4},
	} {
		for _, p := range all {
			keys := map[string]any{"socket": m.socket(), "ipam": map[string]any{"type": "weave-ipam"}, "prevResult": map[string]any{"cniVersion": "1.0.0"}}
			for _, verb := range []string{"ADD", "CHECK"} {
				a := m.runAtOnce(p, conf("1.0.0", p, keys), "CNI_COMMAND="+verb, "CNI_NETNS="+ns.path)
				if a.rc != 1 || a.err().Code != ns.code {
					t.Errorf("%s %s into %s: rc %d, %v; want code %d", p, verb, name, a.rc, a.err(), ns.code)
				}
			}
			if a := m.runAtOnce(p, conf("1.0.0", p, keys), "CNI_COMMAND=DEL", "CNI_NETNS="+ns.path); a.rc != 0 || a.stdout != "" {
				t.Errorf("%s DEL from %s: rc %d, %v", p, name, a.rc, a.err())
			}
		}
	}
	if after := m.world(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if a, c, n := r.held(); a+c+n != 0 {
		t.Errorf("the router holds %d addresses, %d attachments, %d names", a, c, n)
	}
}

func TestHostileVariablesAreRefusedBeforeAnythingIsDone(t *testing.T) {
	m := newMachine(t)
	c := newNetNS(t)
	r := m.startRouter()
	before := m.world(t) + c.world(t)
	for _, env := range []string{
		"CNI_CONTAINERID=../x", "CNI_CONTAINERID=a b", "CNI_CONTAINERID=-a", "CNI_CONTAINERID=" + strings.Repeat("a", 300), "CNI_CONTAINERID=" + strings.Repeat("a", 100_000),
		"CNI_IFNAME=a/b", "CNI_IFNAME=..", "CNI_IFNAME=a:b", "CNI_IFNAME=a b", "CNI_IFNAME=0123456789abcdef", "CNI_IFNAME=ä", "CNI_IFNAME=a\x7f", "CNI_IFNAME=\u202e",
		"CNI_ARGS=IP", "CNI_ARGS==x", "CNI_ARGS=" + strings.Repeat("A=1;", 20_000),
	} {
		for _, p := range all {
			keys := map[string]any{"socket": m.socket(), "ipam": map[string]any{"type": "weave-ipam"}, "prevResult": map[string]any{"cniVersion": "1.0.0"}}
			if a := m.run(p, conf("1.0.0", p, keys), "CNI_NETNS="+c.path, env); a.rc != 1 || a.err().Code != 4 {
				t.Errorf("%s with %.40s: rc %d, %v", p, env, a.rc, a.err())
			}
		}
	}
	for _, env := range []string{"CNI_ARGS=IP=127.0.0.1", "CNI_ARGS=IP=10.0.0.1/99", "CNI_ARGS=MAC=01:00:00:00:00:01", "CNI_ARGS=IP=x;MAC=y"} {
		for _, p := range []string{"weave-net", "simplebridge"} {
			keys := map[string]any{"socket": m.socket(), "ipam": map[string]any{"type": "weave-ipam"}}
			if a := m.run(p, conf("1.0.0", p, keys), "CNI_NETNS="+c.path, env); a.rc != 1 || a.err().Code != 7 {
				t.Errorf("%s with %s: rc %d, %v", p, env, a.rc, a.err())
			}
		}
	}
	if after := m.world(t) + c.world(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if a, c, n := r.held(); a+c+n != 0 {
		t.Errorf("the router holds %d addresses, %d attachments, %d names", a, c, n)
	}
}

func TestAHostileEnvironmentChangesNothing(t *testing.T) {
	m := newMachine(t)
	c := newNetNS(t)
	r := m.startRouter()
	a := m.run("weave-net", conf("1.0.0", "weave-net", map[string]any{"socket": m.socket(), "ipam": map[string]any{"type": "weave-ipam"}}), "CNI_NETNS="+c.path,
		"http_proxy=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9", "ALL_PROXY=http://127.0.0.1:9", "LD_PRELOAD=/nowhere.so", "LD_LIBRARY_PATH=/nowhere",
		"PATH=/nowhere", "HOME=/nowhere", "TMPDIR=/nowhere", "TRACEPARENT=x\r\ny", "CNI_NETNS_OVERRIDE=1", "IPTABLES_X=1", "BAGGAGE==;=")
	a.result(t)
	if n, _, _ := r.held(); n != 1 {
		t.Errorf("the router holds %d addresses", n)
	}
	if a := m.run("simplebridge", conf("1.0.0", "simplebridge", nil), "CNI_NETNS="+m.path, "CNI_NETNS_OVERRIDE=1"); a.rc != 1 || a.err().Code != 8 {
		t.Errorf("ADD into the host's own namespace by CNI_NETNS_OVERRIDE: got %+v", a)
	}
}

// checkResult compares a result with what the runtimes need of it.
func checkResult(t *testing.T, r *current.Result, bridge, sandbox string, mtu int) {
	t.Helper()
	if len(r.Interfaces) != 3 {
		t.Fatalf("got %d interfaces, want bridge, veth, container's", len(r.Interfaces))
	}
	br, veth, eth := r.Interfaces[0], r.Interfaces[1], r.Interfaces[2]
	if br.Name != bridge || br.Sandbox != "" || eth.Name != "eth0" || eth.Sandbox != sandbox || eth.Mtu != mtu || veth.Sandbox != "" {
		t.Errorf("got interfaces %v", r.Interfaces)
	}
	veths := 0
	for _, i := range r.Interfaces {
		if _, err := net.ParseMAC(i.Mac); err != nil { // podman's condition
			t.Errorf("%s: %v", i.Name, err)
		}
		if strings.HasPrefix(i.Name, "veth") { // buildkit's: just one
			veths++
		}
	}
	if veths != 1 {
		t.Errorf("got %d interfaces named veth…, want 1", veths)
	}
	for _, ip := range r.IPs { // containerd's: the address is eth0's
		if ip.Interface == nil || *ip.Interface != 2 || ip.Gateway == nil {
			t.Errorf("got address %v", ip)
		}
	}
}

func TestSimplebridgeWorksWithoutARouterInEveryVersion(t *testing.T) {
	for _, v := range versions {
		if v == "1.1.0" { // Debian's host-local does not speak it
			continue
		}
		t.Run(v, func(t *testing.T) {
			m := newMachine(t)
			keys := map[string]any{"ipam": m.hostLocal()}
			a, b := newNetNS(t), newNetNS(t)
			empty := a.world(t)
			first := m.run("simplebridge", conf(v, "simplebridge", keys), "CNI_NETNS="+a.path)
			second := m.run("simplebridge", conf(v, "simplebridge", keys), "CNI_NETNS="+b.path, "CNI_CONTAINERID=c2")
			if first.rc != 0 || second.rc != 0 {
				t.Fatalf("ADD: %v, %v", first.err(), second.err())
			}
			if v >= "1" {
				r := first.result(t)
				checkResult(t, r, "simplebr0", a.path, 1500)
				if len(r.IPs) != 1 || len(r.Routes) != 1 {
					t.Errorf("got %d addresses, %d routes", len(r.IPs), len(r.Routes))
				}
			} else {
				var r types040.Result
				if err := json.Unmarshal([]byte(first.stdout), &r); err != nil || r.CNIVersion != v || len(r.IPs) != 1 || r.IPs[0].Version != "4" || len(r.Interfaces) != 3 {
					t.Errorf("got %s, %v", first.stdout, err)
				}
			}
			ping(t, a, "10.77.0.1", "10.77.0.3")
			ping(t, b, "10.77.0.2")
			if v >= "0.4" {
				keys["prevResult"] = json.RawMessage(first.stdout)
				if c := m.run("simplebridge", conf(v, "simplebridge", keys), "CNI_COMMAND=CHECK", "CNI_NETNS="+a.path); c.rc != 0 || c.stdout != "" {
					t.Errorf("CHECK: %v", c.err())
				}
			}
			for id, ns := range map[string]*netNS{"c1": a, "c2": b} {
				if d := m.run("simplebridge", conf(v, "simplebridge", keys), "CNI_COMMAND=DEL", "CNI_NETNS="+ns.path, "CNI_CONTAINERID="+id); d.rc != 0 || d.stdout != "" {
					t.Errorf("DEL: %v", d.err())
				}
			}
			if got := a.world(t); got != empty {
				t.Errorf("left in the container: %s", got)
			}
			if left := m.reserved(); len(left) != 0 {
				t.Errorf("left reserved: %v", left)
			}
			if w := m.world(t); strings.Contains(w, "veth") {
				t.Errorf("left on the host: %s", w)
			}
		})
	}
}

func ping(t *testing.T, from *netNS, to ...string) {
	t.Helper()
	for _, ip := range to {
		var out []byte
		var err error
		from.do(func() { out, err = exec.Command("ping", "-c1", "-W20", ip).CombinedOutput() })
		if err != nil {
			t.Errorf("ping %s: %v\n%s", ip, err, out)
		}
	}
}

// ipCommand runs ip(8) inside the namespace.
func ipCommand(t *testing.T, ns *netNS, args ...string) {
	t.Helper()
	output(t, ns, append([]string{"ip"}, args...)...)
}

// output runs a command inside the namespace and gives what it printed.
func output(t *testing.T, ns *netNS, command ...string) string {
	t.Helper()
	var out []byte
	var err error
	ns.do(func() { out, err = exec.Command(command[0], command[1:]...).CombinedOutput() })
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return string(out)
}

func TestSimplebridgeNeedsNoIPAM(t *testing.T) {
	m := newMachine(t)
	c := newNetNS(t)
	r := m.run("simplebridge", conf("1.1.0", "simplebridge", map[string]any{"mtu": 1400, "runtimeConfig": map[string]any{"Mac": "02:00:00:00:00:07"}}), "CNI_NETNS="+c.path).result(t)
	checkResult(t, r, "simplebr0", c.path, 1400)
	if len(r.IPs) != 0 || r.Interfaces[2].Mac != "02:00:00:00:00:07" {
		t.Errorf("got %+v", r)
	}
}

func TestSimplebridgeTakesABridgeAsItIs(t *testing.T) {
	m := newMachine(t)
	c := newNetNS(t)
	ipCommand(t, m.netNS, "link", "add", "br7", "address", "02:00:00:00:00:99", "mtu", "1300", "type", "bridge")
	r := m.run("simplebridge", conf("1.0.0", "simplebridge", map[string]any{"bridge": "br7", "ipam": m.hostLocal()}), "CNI_NETNS="+c.path).result(t)
	checkResult(t, r, "br7", c.path, 1300)
	if r.Interfaces[0].Mac != "02:00:00:00:00:99" {
		t.Errorf("the bridge's MAC became %s", r.Interfaces[0].Mac)
	}
	ping(t, c, "10.77.0.1")
}

func TestSimplebridgeRefusesANameThatIsNoBridge(t *testing.T) {
	m := newMachine(t)
	c := newNetNS(t)
	ipCommand(t, m.netNS, "link", "add", "x0", "type", "veth", "peer", "name", "x1")
	before := m.world(t) + c.world(t)
	if a := m.run("simplebridge", conf("1.0.0", "simplebridge", map[string]any{"bridge": "x0", "ipam": m.hostLocal()}), "CNI_NETNS="+c.path); a.rc != 1 || a.err().Msg == "" {
		t.Errorf("got %+v", a)
	}
	if after := m.world(t) + c.world(t); after != before || len(m.reserved()) != 0 {
		t.Errorf("before:\n%s\nafter:\n%s\nreserved: %v", before, after, m.reserved())
	}
}

func TestSimplebridgeNeverCallsARouterForHostLocal(t *testing.T) {
	m := newMachine(t)
	c := newNetNS(t)
	r := m.startRouter()
	keys := map[string]any{"socket": m.socket(), "ipam": m.hostLocal()}
	a := m.run("simplebridge", conf("1.0.0", "simplebridge", keys), "CNI_NETNS="+c.path)
	keys["prevResult"] = json.RawMessage(a.stdout)
	for _, verb := range []string{"CHECK", "DEL"} {
		if a := m.run("simplebridge", conf("1.0.0", "simplebridge", keys), "CNI_COMMAND="+verb, "CNI_NETNS="+c.path); a.rc != 0 {
			t.Errorf("%s: %v", verb, a.err())
		}
	}
	if len(r.requests) != 0 {
		t.Errorf("calls of the router: %v", r.requests)
	}
}

// Each of the two main plugins, with weave-ipam and a router, and with host-local.
type variant struct {
	plugin string
	ipam   func(*machine) map[string]any
	router bool
}

func weaveIPAM(*machine) map[string]any { return map[string]any{"type": "weave-ipam"} }

var variants = map[string]variant{
	"weave-net with weave-ipam":    {"weave-net", weaveIPAM, true},
	"weave-net with host-local":    {"weave-net", (*machine).hostLocal, true},
	"simplebridge with weave-ipam": {"simplebridge", weaveIPAM, true},
	"simplebridge with host-local": {"simplebridge", (*machine).hostLocal, false},
}

// bench is a machine set up for a variant.
type bench struct {
	*machine
	variant
	r    *router
	keys map[string]any
}

func each(t *testing.T, f func(*testing.T, *bench)) {
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			b := &bench{machine: m, variant: v, keys: map[string]any{"ipam": v.ipam(m), "socket": m.socket()}}
			if v.router {
				b.r = m.startRouter()
			}
			f(t, b)
		})
	}
}

func (b *bench) call(verb, netns string, env ...string) answer {
	return b.run(b.plugin, conf("1.0.0", b.plugin, b.keys), append([]string{"CNI_COMMAND=" + verb, "CNI_NETNS=" + netns}, env...)...)
}

// held counts the addresses that are reserved.
func (b *bench) held() int {
	n := len(b.reserved())
	if b.r != nil {
		a, _, _ := b.r.held()
		n += a
	}
	return n
}

func TestADDTwiceFailsAndLeavesTheFirstAlone(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		c, other := newNetNS(t), newNetNS(t)
		first := b.call("ADD", c.path).result(t)
		before := b.world(t) + c.world(t) + other.world(t)
		for _, ns := range []*netNS{c, other} {
			if a := b.call("ADD", ns.path); a.rc != 1 || a.err().Code != cniconf.CodeExists {
				t.Errorf("got %+v", a)
			}
		}
		if after := b.world(t) + c.world(t) + other.world(t); after != before || b.held() != 1 {
			t.Errorf("before:\n%s\nafter:\n%s\nreserved: %d", before, after, b.held())
		}
		if len(first.IPs) != 1 {
			t.Errorf("got %v", first.IPs)
		}
	})
}

func TestAFailedADDLeavesNothingAndTheNextOneWorks(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		c := newNetNS(t)
		if b.plugin == "simplebridge" { // a first one makes the bridge, which stays
			other := newNetNS(t)
			b.call("ADD", other.path, "CNI_CONTAINERID=first").result(t)
			b.call("DEL", other.path, "CNI_CONTAINERID=first")
		} else {
			if _, err := b.r.network([]byte(`{"name":"net1"}`)); err != nil {
				t.Fatal(err)
			}
		}
		before := b.world(t) + c.world(t)
		// A route that the kernel refuses: the last thing that ADD does inside the container.
		ipam := b.ipam(b.machine)
		ipam["routes"] = []any{map[string]any{"dst": "10.99.0.0/16", "gw": "192.0.2.1"}}
		good := b.keys["ipam"]
		b.keys["ipam"] = ipam
		if a := b.call("ADD", c.path); a.rc != 1 || !strings.Contains(a.err().Msg, "192.0.2.1") {
			t.Errorf("got %+v", a)
		}
		b.keys["ipam"] = good
		if after := b.world(t) + c.world(t); after != before || b.held() != 0 {
			t.Errorf("before:\n%s\nafter:\n%s\nreserved: %d", before, after, b.held())
		}
		b.call("ADD", c.path).result(t)
	})
}

func TestARefusedCommitTakesTheADDBack(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		if b.ipam(b.machine)["type"] != "weave-ipam" && b.plugin == "simplebridge" {
			return // commits nothing
		}
		c := newNetNS(t)
		b.r.setFail(ctl.PathCommit, &ctl.Error{Code: ctl.CodeAddressTaken, Msg: "MAC is taken"})
		if a := b.call("ADD", c.path); a.rc != 1 || a.err().Code != ctl.CodeAddressTaken || a.err().Msg != "MAC is taken" {
			t.Errorf("got %+v", a)
		}
		if w := b.world(t) + c.world(t); strings.Contains(w, "veth") || strings.Contains(w, "eth0") || b.held() != 0 {
			t.Errorf("left: %s, reserved: %d", w, b.held())
		}
	})
}

func TestAClosedStdoutTakesTheADDBack(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		c := newNetNS(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		defer w.Close()
		cmd := exec.Command(filepath.Join(bin, b.plugin))
		cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_PATH=" + bin, "CNI_NETNS=" + c.path}
		cmd.Stdin, cmd.Stdout = strings.NewReader(conf("1.0.0", b.plugin, b.keys)), w
		b.do(func() { err = cmd.Start() })
		if err != nil {
			t.Fatal(err)
		}
		if cmd.Wait() == nil {
			t.Error("ADD succeeded with nobody to read its result")
		}
		if w := b.world(t) + c.world(t); strings.Contains(w, "veth") || strings.Contains(w, "eth0") || b.held() != 0 {
			t.Errorf("left: %s, reserved: %d", w, b.held())
		}
	})
}

func TestDELSucceedsWhateverIsMissingAndTakesOnlyItsOwn(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		c, other := newNetNS(t), newNetNS(t)
		if a := b.call("DEL", c.path); a.rc != 0 || a.stdout != "" {
			t.Errorf("DEL before ADD: %v", a.err())
		}
		b.call("ADD", other.path, "CNI_CONTAINERID=c1x").result(t) // an id that begins alike
		for name, netns := range map[string]string{"its namespace": c.path, "no namespace": "", "a namespace that is gone": "/run/netns/gone", "another's namespace": other.path} {
			prev := b.call("ADD", c.path)
			prev.result(t)
			if name == "no namespace" {
				b.keys["prevResult"] = json.RawMessage(prev.stdout)
			}
			for range 2 {
				if a := b.call("DEL", netns); a.rc != 0 || a.stdout != "" {
					t.Errorf("DEL with %s: %v", name, a.err())
				}
			}
			delete(b.keys, "prevResult")
			if w := c.world(t); strings.Contains(w, "eth0") || b.held() != 1 {
				t.Errorf("DEL with %s left %s, reserved: %d", name, w, b.held())
			}
		}
		if w := other.world(t); !strings.Contains(w, "eth0") {
			t.Error("DEL took another container's interface")
		}
	})
}

func TestDELBelievesNoStalePrevResult(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		c := newNetNS(t)
		a := b.call("ADD", c.path)
		a.result(t)
		b.keys["prevResult"] = json.RawMessage(a.stdout) // says that the address, eth0 and the veth are c2's
		if a := b.call("DEL", c.path, "CNI_CONTAINERID=c2"); a.rc != 0 {
			t.Error(a.err())
		}
		if w := c.world(t); !strings.Contains(w, "eth0") || b.held() != 1 {
			t.Errorf("DEL of c2 took from c1: %s, reserved: %d", w, b.held())
		}
	})
}

func TestANewContainerAfterADeadNamespaceGetsItsPlace(t *testing.T) {
	m := newMachine(t)
	m.startRouter()
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
	c := newNetNS(t)
	first := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+c.path).result(t)
	c.end()
	waitFor(t, "the veth to go with its namespace", func() bool { return !strings.Contains(m.world(t), "veth") })
	again := newNetNS(t)
	second := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+again.path).result(t)
	if a, b := first.IPs[0].Address.String(), second.IPs[0].Address.String(); a != b {
		t.Errorf("first %s, then %s", a, b)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond) // the pause between looks at the condition
	}
}

func TestTwoInterfacesAndTwoNetworksOfOneContainer(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		c := newNetNS(t)
		b.call("ADD", c.path).result(t)
		b.call("ADD", c.path, "CNI_IFNAME=eth1").result(t)
		b.keys["name"] = "net2"
		b.keys["ipam"] = b.secondIPAM()
		b.call("ADD", c.path, "CNI_IFNAME=eth2").result(t)
		if b.held() != 3 {
			t.Errorf("got %d addresses, want 3", b.held())
		}
		if a := b.call("DEL", c.path, "CNI_IFNAME=eth1"); a.rc != 0 { // another network's eth1
			t.Error(a.err())
		}
		delete(b.keys, "name")
		if a := b.call("DEL", c.path); a.rc != 0 {
			t.Error(a.err())
		}
		if w := c.world(t); strings.Contains(w, "eth0") || !strings.Contains(w, "eth1") || !strings.Contains(w, "eth2") || b.held() != 2 {
			t.Errorf("got %s, reserved: %d", w, b.held())
		}
	})
}

// secondIPAM gives out other addresses than the first, where that is up to the configuration.
func (b *bench) secondIPAM() map[string]any {
	ipam := b.ipam(b.machine)
	if ipam["subnet"] != nil {
		ipam["subnet"] = "10.78.0.0/24"
	}
	return ipam
}

func TestASecondContainerWithAMACIsRefusedAndLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		a, c := newNetNS(t), newNetNS(t)
		b.keys["args"] = map[string]any{"cni": map[string]any{"mac": "02:00:00:00:00:77"}}
		b.call("ADD", a.path).result(t)
		before := b.world(t) + a.world(t) + c.world(t)
		if got := b.call("ADD", c.path, "CNI_CONTAINERID=c2"); got.rc != 1 || got.err().Code != ctl.CodeAddressTaken || got.err().Msg != "another container on this bridge has that MAC already" {
			t.Errorf("got %+v", got)
		}
		if after := b.world(t) + a.world(t) + c.world(t); after != before || b.held() != 1 {
			t.Errorf("before:\n%s\nafter:\n%s\nreserved: %d", before, after, b.held())
		}
	})
}

func TestFiftyParallelADDsThenDELs(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		const n = 50
		var spaces []*netNS
		for range n {
			spaces = append(spaces, newNetNS(t))
		}
		answers := make([]answer, n)
		inParallel := func(verb string) {
			var wg sync.WaitGroup
			for i, ns := range spaces {
				wg.Go(func() { answers[i] = b.call(verb, ns.path, fmt.Sprintf("CNI_CONTAINERID=c%d", i)) })
			}
			wg.Wait()
		}
		inParallel("ADD")
		seen := map[string]bool{}
		for i, a := range answers {
			if a.rc != 0 {
				t.Fatalf("c%d: %v", i, a.err())
			}
			seen[a.result(t).IPs[0].Address.String()] = true
		}
		if len(seen) != n {
			t.Errorf("got %d addresses for %d containers", len(seen), n)
		}
		inParallel("DEL")
		for i, a := range answers {
			if a.rc != 0 {
				t.Errorf("c%d: %v", i, a.err())
			}
		}
		if w := b.world(t); strings.Contains(w, "veth") || b.held() != 0 {
			t.Errorf("left: %s, reserved: %d", w, b.held())
		}
	})
}

func TestCHECKSeesWhatMattersAndOnlyThat(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		c := newNetNS(t)
		a := b.call("ADD", c.path)
		r := a.result(t)
		b.keys["prevResult"] = json.RawMessage(a.stdout)
		check := func(what string, ok bool) {
			t.Helper()
			a := b.call("CHECK", c.path)
			if (a.rc == 0) != ok || a.rc == 0 && a.stdout != "" {
				t.Errorf("%s: got %+v", what, a)
			}
		}
		addr, bridge := r.IPs[0].Address.String(), r.Interfaces[0].Name
		check("right after ADD", true)
		ipCommand(t, b.netNS, "link", "set", bridge, "address", "02:00:00:00:00:aa")
		ipCommand(t, c, "route", "add", "10.200.0.0/16", "dev", "eth0")
		if bridge != routerBridge { // the router repairs its own
			check("another MAC of the bridge, a route more", true)
		}
		ipCommand(t, c, "addr", "del", addr, "dev", "eth0")
		check("without its address", false)
		ipCommand(t, c, "addr", "add", addr, "dev", "eth0")
		check("with its address again", true)
		ipCommand(t, c, "link", "set", "eth0", "mtu", "1300")
		check("with another MTU", false)
		ipCommand(t, c, "link", "set", "eth0", "mtu", fmt.Sprint(r.Interfaces[2].Mtu))
		ipCommand(t, b.netNS, "link", "set", r.Interfaces[1].Name, "nomaster")
		check("off its bridge", false)
		ipCommand(t, b.netNS, "link", "set", r.Interfaces[1].Name, "master", bridge)
		check("on its bridge again", true)
		ipCommand(t, b.netNS, "link", "set", r.Interfaces[1].Name, "alias", "mine")
		check("with another's alias", false)
		delete(b.keys, "prevResult")
		if a := b.call("CHECK", c.path); a.rc != 1 || a.err().Code != 7 {
			t.Errorf("without prevResult: got %+v", a)
		}
	})
}

func TestCHECKSeesALostReservation(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
	keys["prevResult"] = json.RawMessage(m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+c.path).stdout)
	clear(r.addrs)
	if a := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_COMMAND=CHECK", "CNI_NETNS="+c.path); a.rc != 1 || a.err().Code != ctl.CodeUnknownContainer {
		t.Errorf("got %+v", a)
	}
}

func TestGCIsForwardedWithItsListOrItsAbsence(t *testing.T) {
	list := []any{map[string]any{"containerID": "c1", "ifname": "eth0"}}
	for name, c := range map[string]struct {
		keys   map[string]any
		valid  int
		absent bool
	}{
		"no list":      {nil, 0, true},
		"empty list":   {map[string]any{"cni.dev/valid-attachments": []any{}}, 0, false},
		"a list":       {map[string]any{"cni.dev/valid-attachments": list}, 1, false},
		"the old key":  {map[string]any{"cni.dev/attachments": list}, 1, false},
		"old and new":  {map[string]any{"cni.dev/attachments": list, "cni.dev/valid-attachments": list}, 1, false},
		"empty by old": {map[string]any{"cni.dev/attachments": []any{}}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			r := m.startRouter()
			keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
			for k, v := range c.keys {
				keys[k] = v
			}
			for _, p := range []string{"weave-net", "simplebridge", "weave-ipam"} {
				if a := m.run(p, conf("1.1.0", p, keys), "CNI_COMMAND=GC"); a.rc != 0 || a.stdout != "" {
					t.Fatalf("%s: %v", p, a.err())
				}
				var in ctl.CollectRequest
				r.last(t, ctl.PathCollect, &in)
				if in.Network != "net1" || len(in.Valid) != c.valid || in.Absent != c.absent {
					t.Errorf("%s: got %+v", p, in)
				}
				if c.valid == 1 && in.Valid[0] != (attachment.Key{Network: "net1", ContainerID: "c1", IfName: "eth0"}) {
					t.Errorf("%s: got %+v", p, in.Valid)
				}
			}
		})
	}
}

func TestSTATUSIsWhatTheRouterSays(t *testing.T) {
	m := newMachine(t)
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket(), "required": true}
	status := func(p string) answer {
		return m.runAtOnce(p, conf("1.1.0", p, keys), "CNI_COMMAND=STATUS", "CNI_CONTAINERID=", "CNI_IFNAME=")
	}
	for _, p := range all {
		if a := status(p); a.rc != 1 || a.err().Code != ctl.CodeNotAvailable {
			t.Errorf("%s without a router: got %+v", p, a)
		}
	}
	r := m.startRouter()
	for _, p := range all {
		if a := status(p); a.rc != 0 || a.stdout != "" {
			t.Errorf("%s: %v", p, a.err())
		}
	}
	r.setFail(ctl.PathReady, &ctl.Error{Code: ctl.CodeDegraded, Msg: "broken"})
	for _, p := range all {
		if a := status(p); a.rc != 1 || a.err().Code != ctl.CodeDegraded {
			t.Errorf("%s: got %+v", p, a)
		}
	}
	r.stop()
	old := time.Now().Add(-3 * time.Second)
	if err := os.Chtimes(filepath.Dir(m.socket()), old, old); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if a := status(p); a.rc != 1 || a.err().Code != ctl.CodeNotAvailable {
			t.Errorf("%s with the router gone: got %+v", p, a)
		}
	}
	delete(keys, "required")
	if a := status("weavedns"); a.rc != 0 {
		t.Errorf("weavedns that is not required: %v", a.err())
	}
}

func TestAMissingRouterIsWaitedForTwoSecondsThenCode11(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := newNetNS(t)
	before := m.world(t) + c.world(t)
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
	a := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+c.path)
	if e := a.err(); a.rc != 1 || e.Code != 11 || !strings.Contains(e.Msg, m.socket()) || a.took < cniconf.Patience*9/10 || a.took > 5*cniconf.Patience { // its bound is later still
		t.Errorf("got %+v", a)
	}
	if after := m.world(t) + c.world(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	// A router that comes back meanwhile costs nothing.
	for range 5 { // a busy machine may let the plugin's patience end before the router is there
		done := make(chan answer, 1)
		go func() { done <- m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+c.path) }()
		<-time.After(500 * time.Millisecond) // how long it is away
		select {
		case a = <-done:
			if a.took < cniconf.Patience*9/10 {
				t.Fatalf("it did not wait: %+v", a)
			}
			continue // it did, for longer than this test was away
		default:
		}
		r := m.startRouter()
		if a = <-done; a.rc == 0 {
			return
		}
		r.stop()
	}
	t.Errorf("got %+v", a)
}

func TestDELWithoutARouterDeletesAndSucceedsAtOnce(t *testing.T) {
	for _, p := range []string{"weave-net", "simplebridge"} {
		t.Run(p, func(t *testing.T) {
			m := newMachine(t)
			r := m.startRouter()
			c := newNetNS(t)
			keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
			m.run(p, conf("1.0.0", p, keys), "CNI_NETNS="+c.path).result(t)
			r.stop()
			for range 2 {
				if a := m.runAtOnce(p, conf("1.0.0", p, keys), "CNI_COMMAND=DEL", "CNI_NETNS="+c.path); a.rc != 0 || a.stdout != "" {
					t.Errorf("got %+v", a)
				}
			}
			if w := m.world(t) + c.world(t); strings.Contains(w, "veth") || strings.Contains(w, "eth0") {
				t.Errorf("left: %s", w)
			}
		})
	}
}

func TestDELPastASilentRouterDeletesByItself(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}
	m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+c.path).result(t)
	r.stop()
	if err := os.Remove(m.socket()); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", m.socket()) // takes calls and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_COMMAND=DEL", "CNI_NETNS="+c.path)
	if a.rc != 0 || a.took < cniconf.Patience || a.took > 12*time.Second { // its bound; without other work it is 4 s
		t.Errorf("got %+v", a)
	}
	if w := m.world(t) + c.world(t); strings.Contains(w, "veth") || strings.Contains(w, "eth0") {
		t.Errorf("left: %s", w)
	}
}

func TestADDPastASilentRouterEndsWithinItsBound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 12 s")
	}
	m := newMachine(t)
	c := newNetNS(t)
	if err := os.MkdirAll(filepath.Dir(m.socket()), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", m.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := m.run("weave-net", conf("1.0.0", "weave-net", map[string]any{"ipam": weaveIPAM(m), "socket": m.socket()}), "CNI_NETNS="+c.path)
	if a.rc != 1 || a.err().Code != 11 || a.took > 20*time.Second { // 15 s and a process' start
		t.Errorf("got %+v", a)
	}
}

func TestStdinThatNeverEndsIsEndedByTheBound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 3 s")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd := exec.Command(filepath.Join(bin, "weave-net"))
	cmd.Env = []string{"CNI_COMMAND=STATUS", "CNI_PATH=/x"}
	cmd.Stdin = r
	begin := time.Now()
	out, err := cmd.Output()
	if err == nil || !strings.Contains(string(out), `"code": 11`) || time.Since(begin) > 15*time.Second { // STATUS has 3 s, and this pipe never ends
		t.Errorf("got %q, %v after %v", out, err, time.Since(begin))
	}
}

func TestWeaveIPAMAsksForWhatItsCallerMeans(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	for _, x := range []struct {
		plugin string
		keys   map[string]any
		env    string
		want   ctl.AllocateRequest
	}{
		{"weave-net", nil, "", ctl.AllocateRequest{Network: "net1", Decider: ctl.DecidedByVeth}},
		{"weave-net", map[string]any{"network": "net2"}, "", ctl.AllocateRequest{Network: "net2", Decider: ctl.DecidedByVeth}},
		{"simplebridge", map[string]any{"network": "x"}, "", ctl.AllocateRequest{Network: "net1", Decider: ctl.DecidedByVeth}},
		{"macvlan", nil, "CNI_ARGS=IP=10.32.0.9;X=a=b;IgnoreUnknown=1", ctl.AllocateRequest{Network: "net1", Decider: ctl.DecidedByClaim, Requested: []string{"10.32.0.9"}}},
		{"weave-net", map[string]any{"RuntimeConfig": map[string]any{"IPs": []string{"10.32.0.50", "10.32.0.50/12"}}}, "CNI_ARGS=IP=10.32.0.9", ctl.AllocateRequest{Network: "net1", Decider: ctl.DecidedByVeth, Requested: []string{"10.32.0.50"}}},
	} {
		keys := map[string]any{"ipam": map[string]any{"type": "weave-ipam", "subnet": "10.32.0.0/16", "socket": m.socket(), "routes": []any{map[string]any{"dst": "10.5.0.0/16", "mtu": 1000}}}}
		for k, v := range x.keys {
			keys[k] = v
		}
		clear(r.addrs)
		res := m.run("weave-ipam", conf("1.0.0", x.plugin, keys), "CNI_NETNS="+c.path, x.env).result(t)
		if len(res.Interfaces) != 0 || len(res.IPs) != 1 || res.IPs[0].Interface != nil || len(res.Routes) != 1 || res.Routes[0].MTU != 1000 {
			t.Errorf("got result %+v", res)
		}
		var got ctl.AllocateRequest
		r.last(t, ctl.PathAllocate, &got)
		if got.Network != x.want.Network || got.Decider != x.want.Decider || !slices.Equal(got.Requested, x.want.Requested) || got.Subnet != "10.32.0.0/16" || !got.NetNS.Known() || got.Key.ContainerID != "c1" {
			t.Errorf("%s %v: asked for %+v, want %+v", x.plugin, x.keys, got, x.want)
		}
	}
}

func TestWeaveNetAttachesToTheNetworkThatIsMeant(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	keys := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket(), "network": "net2"}
	res := m.run("weave-net", conf("1.1.0", "weave-net", keys), "CNI_NETNS="+c.path, "CNI_ARGS=MAC=02:00:00:00:00:05;IP=10.32.9.9").result(t)
	checkResult(t, res, routerBridge, c.path, routerMTU)
	if len(res.Routes) != 1 || res.Routes[0].Dst.String() != "0.0.0.0/0" || res.Interfaces[2].Mac != "02:00:00:00:00:05" || res.IPs[0].Address.String() != "10.32.9.9/12" {
		t.Errorf("got %+v", res)
	}
	ping(t, c, "10.32.0.1")
	var in ctl.CommitRequest
	r.last(t, ctl.PathCommit, &in)
	if in.Network != "net2" || in.Key.Network != "net1" || in.MAC != "02:00:00:00:00:05" || len(in.Addresses) != 1 || !in.NetNS.Known() {
		t.Errorf("committed %+v", in)
	}
	for what, keys := range map[string]map[string]any{
		"an MTU that is too large":  {"mtu": routerMTU + 1},
		"a network that is not":     {"network": "net9"},
		"two networks":              {"ipam": map[string]any{"type": "weave-ipam", "network": "net1"}},
		"too many addresses":        {"runtimeConfig": map[string]any{"ips": manyIPs(40)}},
		"an address but no ipam":    {"ipam": map[string]any{}, "args": map[string]any{"cni": map[string]any{"ips": []string{"10.32.0.4"}}}},
		"an mtu that is ridiculous": {"mtu": 12},
	} {
		all := map[string]any{"ipam": weaveIPAM(m), "socket": m.socket(), "network": "net2"}
		for k, v := range keys {
			all[k] = v
		}
		n, _, _ := r.held()
		if a := m.run("weave-net", conf("1.0.0", "weave-net", all), "CNI_NETNS="+c.path, "CNI_IFNAME=eth1"); a.rc != 1 || a.err().Code != 7 {
			t.Errorf("%s: got %+v", what, a)
		}
		if now, _, _ := r.held(); now != n {
			t.Errorf("%s: %d addresses became %d", what, n, now)
		}
	}
}

func manyIPs(n int) (ips []string) {
	for i := range n {
		ips = append(ips, fmt.Sprintf("10.32.100.%d", i+1))
	}
	return ips
}

func TestWeaveNetNeedsNoIPAM(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	for i, ipam := range []any{nil, map[string]any{}} {
		keys := map[string]any{"socket": m.socket()}
		if ipam != nil {
			keys["ipam"] = ipam
		}
		res := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_NETNS="+c.path).result(t)
		checkResult(t, res, routerBridge, c.path, routerMTU)
		if len(res.IPs)+len(res.Routes) != 0 {
			t.Errorf("%d: got %+v", i, res)
		}
		keys["prevResult"] = res
		for _, verb := range []string{"CHECK", "DEL"} {
			if a := m.run("weave-net", conf("1.0.0", "weave-net", keys), "CNI_COMMAND="+verb, "CNI_NETNS="+c.path); a.rc != 0 {
				t.Errorf("%s: %v", verb, a.err())
			}
		}
	}
	var in ctl.CommitRequest
	if r.last(t, ctl.PathCommit, &in); len(in.Addresses) != 0 || !strings.HasPrefix(in.MAC, "02:") {
		t.Errorf("committed %+v", in)
	}
}

func TestTheWholeChainThroughLibcni(t *testing.T) {
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			m := newMachine(t)
			r := m.startRouter()
			a, b := newNetNS(t), newNetNS(t)
			before := a.world(t)
			list := m.list(v,
				fmt.Sprintf(`{"type":"weave-net","socket":%q,"ipam":{"type":"weave-ipam"},"capabilities":{"ips":true,"mac":true}}`, m.socket()),
				fmt.Sprintf(`{"type":"weavedns","socket":%q,"capabilities":{"aliases":true}}`, m.socket()))
			rt := func(id string, ns *netNS) *libcni.RuntimeConf {
				return &libcni.RuntimeConf{ContainerID: id, NetNS: ns.path, IfName: "eth0", Args: [][2]string{{"K8S_POD_NAME", id}, {"IgnoreUnknown", "1"}},
					CapabilityArgs: map[string]any{"aliases": map[string][]string{"net1": {"Al-" + id}}}}
			}
			err := m.through(func(ctx context.Context) error {
				res, err := m.cni.AddNetworkList(ctx, list, rt("web", a))
				if err != nil {
					return err
				}
				got, err := current.NewResultFromResult(res)
				if err != nil {
					return err
				}
				if len(got.IPs) != 1 || !slices.Equal(got.DNS.Nameservers, slices.Repeat([]string{"10.32.0.1"}, 3)) || !slices.Equal(got.DNS.Search, []string{"weave.local"}) || len(got.DNS.Options) != 0 {
					t.Errorf("got %+v", got)
				}
				if v >= "1" {
					checkResult(t, got, routerBridge, a.path, routerMTU)
				}
				_, err = m.cni.AddNetworkList(ctx, list, rt("db", b))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			key := attachment.Key{Network: "net1", ContainerID: "web", IfName: "eth0"}
			if got := r.names[key.Hash()]; !slices.Equal(got, []string{"web", "al-web"}) {
				t.Errorf("got names %v", got)
			}
			ping(t, a, "10.32.0.1", "10.32.0.3")
			err = m.through(func(ctx context.Context) error {
				if v >= "0.4" {
					if err := m.cni.CheckNetworkList(ctx, list, rt("web", a)); err != nil {
						t.Errorf("CHECK: %v", err)
					}
				}
				if v == "1.1.0" {
					if err := m.cni.GetStatusNetworkList(ctx, list); err != nil {
						t.Errorf("STATUS: %v", err)
					}
				}
				if err := m.cni.DelNetworkList(ctx, list, rt("db", b)); err != nil {
					return err
				}
				return m.cni.DelNetworkList(ctx, list, rt("web", a))
			})
			if err != nil {
				t.Error(err)
			}
			if addrs, _, names := r.held(); addrs+names != 0 {
				t.Errorf("left at the router: %d addresses, %d names", addrs, names)
			}
			if w := a.world(t); w != before {
				t.Errorf("left in the container: %s", w)
			}
		})
	}
}

// dnsConf is weavedns behind a result that has a name server of its own.
func dnsConf(m *machine, keys map[string]any) string {
	all := map[string]any{"socket": m.socket(), "prevResult": map[string]any{"cniVersion": "1.0.0", "ips": []any{map[string]any{"address": "10.32.0.9/12"}},
		"dns": map[string]any{"nameservers": []string{"9.9.9.9"}, "search": []string{"corp"}, "options": []string{"ndots:3"}, "domain": "corp"}}}
	for k, v := range keys {
		all[k] = v
	}
	return conf("1.0.0", "weavedns", all)
}

func TestWeavednsPutsTheResolverBeforeTheOthersUnlessOff(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	for name, x := range map[string]struct {
		keys map[string]any
		env  string
		on   bool
	}{
		"by default":        {nil, "X=", true},
		"inject auto":       {map[string]any{"inject": "auto"}, "X=", true}, // and there is no file to be had
		"inject result":     {map[string]any{"inject": "result"}, "X=", true},
		"inject off":        {map[string]any{"inject": "off"}, "X=", false},
		"off for container": {nil, "CNI_ARGS=WEAVE_DNS=off", false},
	} {
		clear(r.names)
		res := m.run("weavedns", dnsConf(m, x.keys), "CNI_NETNS="+c.path, x.env).result(t)
		servers, search := []string{"9.9.9.9"}, []string{"corp"}
		if x.on {
			servers, search = []string{"10.32.0.1", "9.9.9.9"}, []string{"weave.local", "corp"}
		}
		if d := res.DNS; !slices.Equal(d.Nameservers, servers) || !slices.Equal(d.Search, search) || !slices.Equal(d.Options, []string{"ndots:3"}) || d.Domain != "corp" || len(res.IPs) != 1 {
			t.Errorf("%s: got %+v", name, res)
		}
		if _, _, n := r.held(); n != 1 {
			t.Errorf("%s: not registered", name)
		}
	}
	if a := m.run("weavedns", dnsConf(m, map[string]any{"inject": "on"}), "CNI_NETNS="+c.path); a.rc != 1 || a.err().Code != 7 {
		t.Errorf("an inject that is not there: got %+v", a)
	}
	if a := m.run("weavedns", conf("1.0.0", "weavedns", nil), "CNI_NETNS="+c.path); a.rc != 1 || a.err().Code != 7 {
		t.Errorf("ADD without prevResult: got %+v", a)
	}
}

func TestWeavednsNamesAContainerByTheBestItKnows(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	for _, x := range []struct {
		env  string
		keys map[string]any
		want []string
	}{
		{"CNI_ARGS=K8S_POD_NAME=Web;IgnoreUnknown=1", nil, []string{"web"}},
		{"CNI_ARGS=K8S_POD_NAME=web;K8S_POD_NAMESPACE=prod", nil, []string{"web.prod"}},
		{"CNI_ARGS=NERDCTL_CNI_DHCP_HOSTNAME=host1", nil, []string{"host1"}},
		{"CNI_ARGS=WEAVE_HOSTNAME=mine;K8S_POD_NAME=web", nil, []string{"mine"}},
		{"CNI_ARGS=K8S_POD_NAME=a=b;X=c=d", nil, []string{"0123456789ab"}}, // '=' is no part of a DNS name
		{"X=", map[string]any{"runtimeConfig": map[string]any{"Aliases": []string{"A1", "a1", "bad name", "a_2"}}}, []string{"a1", "a_2"}},
		{"CNI_ARGS=K8S_POD_NAME=web", map[string]any{"runtimeConfig": map[string]any{"aliases": map[string]any{"net1": []string{"al"}, "net2": []string{"no"}}}}, []string{"web", "al"}},
		{"X=", nil, []string{"0123456789ab"}},
	} {
		m.run("weavedns", dnsConf(m, x.keys), "CNI_NETNS="+c.path, "CNI_CONTAINERID=0123456789abcdef0123", x.env).result(t)
		var in ctl.RegisterRequest
		if r.last(t, ctl.PathRegister, &in); !slices.Equal(in.Names, x.want) {
			t.Errorf("%s %v: got %v, want %v", x.env, x.keys, in.Names, x.want)
		}
	}
}

func TestWeavednsFailsOnlyWhereItIsTold(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	c := newNetNS(t)
	if a := m.run("weavedns", dnsConf(m, nil), "CNI_NETNS="+c.path); a.rc != 0 || a.stderr == "" || len(a.result(t).DNS.Nameservers) != 1 {
		t.Errorf("without a router: got %+v", a)
	}
	if a := m.run("weavedns", dnsConf(m, map[string]any{"required": true}), "CNI_NETNS="+c.path); a.rc != 1 || a.err().Code != 11 {
		t.Errorf("required, without a router: got %+v", a)
	}
	for _, stdin := range []string{dnsConf(m, nil), conf("1.0.0", "weavedns", map[string]any{"inject": 7}), conf("1.0.0", "weavedns", map[string]any{"socket": "nonsense"})} {
		if a := m.run("weavedns", stdin, "CNI_COMMAND=DEL", "CNI_NETNS="); a.rc != 0 || a.stdout != "" {
			t.Errorf("DEL of %s: got %+v", stdin, a)
		}
	}
	r := m.startRouter()
	m.run("weavedns", dnsConf(m, nil), "CNI_NETNS="+c.path).result(t)
	check := func() answer { return m.run("weavedns", dnsConf(m, nil), "CNI_COMMAND=CHECK", "CNI_NETNS="+c.path) }
	if a := check(); a.rc != 0 {
		t.Errorf("CHECK: %v", a.err())
	}
	clear(r.names)
	if a := check(); a.rc != 1 || a.err().Code != cniconf.CodeNotAsAdded {
		t.Errorf("CHECK without its names: got %+v", a)
	}
	r.setFail(ctl.PathForget, ctl.Errorf(ctl.CodeInternal, "broken"))
	if a := m.run("weavedns", dnsConf(m, nil), "CNI_COMMAND=DEL"); a.rc != 0 {
		t.Errorf("DEL with a broken router: %v", a.err())
	}
}
