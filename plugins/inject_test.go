package plugins_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// bound starts a process in namespaces of its own with a file bound over a resolv.conf,
// as runc has it when nerdctl's hook calls the plugins.
func bound(t *testing.T, src string) (netns string) {
	t.Helper()
	netns, _ = boundUntil(t, src)
	return netns
}

func boundUntil(t *testing.T, src string) (netns string, end func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	over := filepath.Join(t.TempDir(), "rootfs", "etc", "resolv.conf")
	write(t, over, "")
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-euc", `mount --bind "$1" "$2"; echo; exec sleep 3600`, "sh", src, over)
	out, err := cmd.StdoutPipe()
	if err == nil {
		cmd.Stderr = os.Stderr
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	end = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(end)
	if _, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), end
}

func write(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWeavednsWritesTheFileThatTheRuntimeHasBound(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	id := strings.Repeat("0123456789abcdef", 4)
	state, err := filepath.EvalSymlinks(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(state, "nerdctl", "1935db59", "containers", "default", id, "resolv.conf")
	const before = "search corp\nnameserver 203.0.113.53\noptions ndots:2\n"
	write(t, file, before)
	netns := bound(t, file)
	stdin := dnsConf(m, map[string]any{"runtimeDirs": []string{filepath.Join(state, "nerdctl")}})
	call := func(verb, netns, ifname string) answer {
		return m.run("weavedns", stdin, "CNI_COMMAND="+verb, "CNI_NETNS="+netns, "CNI_CONTAINERID=default-"+id, "CNI_IFNAME="+ifname)
	}
	silent := func(a answer) {
		t.Helper()
		if a.rc != 0 || a.stderr != "" {
			t.Errorf("got %+v", a)
		}
	}
	for range 2 { // nerdctl calls DEL before each ADD, and has no namespace then
		silent(call("DEL", "", "eth0"))
		silent(call("ADD", netns, "eth0"))
		silent(call("ADD", netns, "eth1"))
		if got := read(t, file); !strings.Contains(got, "\nnameserver 10.32.0.1\nsearch weave.local corp\n") || !strings.Contains(got, "\noptions ndots:2\n") || strings.Contains(got, "\nnameserver 203") {
			t.Errorf("got\n%s", got)
		}
		var in ctl.RegisterRequest
		if r.last(t, ctl.PathRegister, &in); len(in.Upstreams) != 1 || in.Upstreams[0].String() != "203.0.113.53" || in.Resolver != "result, and "+file {
			t.Errorf("the router is told %+v", in)
		}
		silent(call("DEL", "", "eth1"))
		silent(call("DEL", "", "eth0"))
		if got := read(t, file); got != before {
			t.Errorf("after DEL\n%s", got)
		}
	}
	if a := m.run("weavedns", dnsConf(m, nil), "CNI_NETNS="+netns, "CNI_CONTAINERID=default-"+id); a.rc != 0 || !strings.Contains(a.stderr, "is left alone: it is in no runtime's directory") {
		t.Errorf("below no directory that is known: %+v", a)
	}
	if got := read(t, file); got != before {
		t.Errorf("written:\n%s", got)
	}
	const theirs = "nameserver 10.32.0.1\n" // by its user, as docs/names.md has it for ctr
	write(t, file, theirs)
	a := m.run("weavedns", dnsConf(m, nil), "CNI_NETNS="+netns, "CNI_CONTAINERID=default-"+id)
	if silent(a); read(t, file) != theirs {
		t.Errorf("written:\n%s", read(t, file))
	}
	a = m.run("weavedns", dnsConf(m, nil), "CNI_CONTAINERID=default-"+id, "CNI_NETNS="+netns, "CNI_ARGS=WEAVE_HOSTNAME=-foo bar")
	var in ctl.RegisterRequest
	r.last(t, ctl.PathRegister, &in)
	const left = `WEAVE_HOSTNAME "-foo bar" is left out`
	if a.rc != 0 || !strings.Contains(a.stderr, left) || !strings.Contains(in.Resolver, left) || len(in.Names) == 0 {
		t.Errorf("a name that is none: %+v, registered %+v", a, in)
	}
}

func TestWeavednsTurnsQueriesInTheContainerWhereItIsTold(t *testing.T) {
	m := newMachine(t)
	m.startRouter()
	c := newNetNS(t)
	stdin := dnsConf(m, map[string]any{"inject": "intercept", "required": true})
	add := func() {
		t.Helper()
		m.run("weavedns", stdin, "CNI_NETNS="+c.path).result(t)
		if got := output(t, c, "nft", "list", "ruleset"); strings.Count(got, "dnat ip to 10.32.0.1") != 2 {
			t.Errorf("got\n%s", got)
		}
	}
	add()
	add()
	if a := m.run("weavedns", stdin, "CNI_COMMAND=DEL", "CNI_NETNS="+c.path); a.rc != 0 || a.stderr != "" {
		t.Errorf("DEL: %+v", a)
	}
	if got := output(t, c, "nft", "list", "ruleset"); got != "" {
		t.Errorf("left\n%s", got)
	}
	add()
	for _, netns := range []string{"", "/proc/999999999/ns/net", "/etc/passwd"} {
		if a := m.run("weavedns", stdin, "CNI_COMMAND=DEL", "CNI_NETNS="+netns); a.rc != 0 {
			t.Errorf("DEL of %q: %+v", netns, a)
		}
	}
}

// The DEL of two never came, one is still on the runtime's list, one is too young, one is of
// another network.
func TestGCTakesTheResolverOutOfWhatIsOnNoListAnyMore(t *testing.T) {
	m := newMachine(t)
	m.startRouter()
	c := newNetNS(t)
	id := strings.Repeat("0123456789abcdef", 4)
	state, err := filepath.EvalSymlinks(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(state, "nerdctl", "containers", id, "resolv.conf")
	const before = "nameserver 203.0.113.53\n"
	write(t, file, before)
	keys := map[string]any{"runtimeDirs": []string{filepath.Join(state, "nerdctl")}}
	netns, end := boundUntil(t, file)
	m.run("weavedns", dnsConf(m, keys), "CNI_NETNS="+netns, "CNI_CONTAINERID="+id).result(t)
	keys["inject"] = "intercept"
	for _, name := range []string{"dead", "listed", "young"} {
		m.run("weavedns", dnsConf(m, keys), "CNI_NETNS="+c.path, "CNI_CONTAINERID="+name).result(t)
	}
	end()
	hour := time.Now().Add(-time.Hour)
	old := func(container string) {
		k := attachment.Key{Network: "net1", ContainerID: container, IfName: "eth0"}
		if err := os.Chtimes(filepath.Join(filepath.Dir(m.socket()), "resolv", "at-"+k.Hash()), hour, hour); err != nil {
			t.Fatal(err)
		}
	}
	old(id)
	old("dead")
	old("listed")
	gc := func(network string, left int) {
		t.Helper()
		stdin := conf("1.1.0", "weavedns", map[string]any{"socket": m.socket(), "name": network,
			"cni.dev/valid-attachments": []any{map[string]any{"containerID": "listed", "ifname": "eth0"}}})
		if a := m.run("weavedns", stdin, "CNI_COMMAND=GC"); a.rc != 0 || a.stderr != "" {
			t.Errorf("GC: %+v", a)
		}
		if got := output(t, c, "nft", "list", "tables"); strings.Count(got, "weavedns_") != left {
			t.Errorf("GC of %s: want %d tables, got\n%s", network, left, got)
		}
	}
	gc("othernet", 3)
	if got := read(t, file); got == before {
		t.Error("another network's GC took it out")
	}
	gc("net1", 2)
	if got := read(t, file); got != before {
		t.Errorf("after GC\n%s", got)
	}
}

func TestAContainerIsGivenItsResolverAsTheBestSourceSays(t *testing.T) {
	m := newMachine(t)
	m.startRouter()
	c := newNetNS(t)
	annotation := func(word string) map[string]any {
		return map[string]any{"runtimeConfig": map[string]any{"io.kubernetes.cri.pod-annotations": map[string]string{"weave.network/dns": word}}}
	}
	both := func(a, b map[string]any) map[string]any {
		out := map[string]any{}
		for _, m := range []map[string]any{a, b} {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	list := func(word string) map[string]any { return map[string]any{"inject": word} }
	const pod = "CNI_ARGS=K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web"
	for name, x := range map[string]struct {
		keys map[string]any
		env  string
		want string // off, result, or intercept
	}{
		"nothing said":                        {nil, "X=", "result"}, // auto, which finds no file here
		"a pod":                               {nil, pod, "result"},
		"the list":                            {list("off"), "X=", "off"},
		"a pod, and the list":                 {list("intercept"), pod, "intercept"},
		"the container, and the list":         {list("off"), "CNI_ARGS=WEAVE_DNS=intercept", "intercept"},
		"the container does not want to":      {list("intercept"), "CNI_ARGS=WEAVE_DNS=off", "off"},
		"annotation":                          {annotation("intercept"), pod, "intercept"},
		"annotation, and the list":            {both(annotation("off"), list("intercept")), pod, "off"},
		"annotation before the arguments":     {annotation("off"), pod + ";WEAVE_DNS=intercept", "off"},
		"the endpoint has none":               {list("intercept"), "CNI_ARGS=WEAVE_ENDPOINT=?dns%3Dno;WEAVE_DNS=intercept", "off"},
		"the endpoint wants it":               {list("off"), "CNI_ARGS=WEAVE_ENDPOINT=?dns%3Dyes", "result"},
		"the endpoint wants it, and likes it": {list("intercept"), "CNI_ARGS=WEAVE_ENDPOINT=?dns%3Dyes", "intercept"},
	} {
		res := m.run("weavedns", dnsConf(m, x.keys), "CNI_NETNS="+c.path, x.env).result(t)
		rules := output(t, c, "nft", "list", "ruleset") != ""
		given := slices.Contains(res.DNS.Nameservers, "10.32.0.1")
		if given != (x.want != "off") || rules != (x.want == "intercept") {
			t.Errorf("%s: in the result %v, rules %v, want %s", name, given, rules, x.want)
		}
		m.run("weavedns", dnsConf(m, nil), "CNI_COMMAND=DEL", "CNI_NETNS="+c.path)
	}
	for name, x := range map[string]struct {
		keys map[string]any
		env  string
		says string
	}{
		"the list":    {list("on"), "X=", `inject \"on\": want one of`},
		"arguments":   {nil, "CNI_ARGS=WEAVE_DNS=on", `CNI_ARGS WEAVE_DNS \"on\": want one of`},
		"annotation":  {annotation("on"), "X=", `annotation weave.network/dns \"on\": want one of`},
		"a directory": {map[string]any{"runtimeDirs": []string{"/"}}, "X=", "want a clean absolute path"},
	} {
		if a := m.run("weavedns", dnsConf(m, x.keys), "CNI_NETNS="+c.path, x.env); a.rc != 1 || a.err().Code != 7 || !strings.Contains(a.stdout, x.says) {
			t.Errorf("%s: got %+v", name, a)
		}
	}
}

func TestTheServersThatAUserChoseAreTheRoutersToAsk(t *testing.T) {
	m := newMachine(t)
	r := m.startRouter()
	c := newNetNS(t)
	dns := map[string]any{"Servers": []string{"9.9.9.9", "127.0.0.1", "2620:fe::fe", "9.9.9.9", "fe80::1%eth0", "junk"},
		"Searches": []string{"corp.example", "corp"}, "Options": []string{"ndots:5"}} // as containerd spells it
	res := m.run("weavedns", dnsConf(m, map[string]any{"runtimeConfig": map[string]any{"dns": dns}}), "CNI_NETNS="+c.path).result(t)
	if d := res.DNS; !slices.Equal(d.Nameservers, []string{"10.32.0.1", "9.9.9.9"}) || !slices.Equal(d.Search, []string{"weave.local", "corp.example", "corp"}) ||
		!slices.Equal(d.Options, []string{"ndots:5", "ndots:3"}) || d.Domain != "corp" {
		t.Errorf("got %+v", res.DNS)
	}
	var in ctl.RegisterRequest
	r.last(t, ctl.PathRegister, &in)
	if want := []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2620:fe::fe")}; !slices.Equal(in.Upstreams, want) {
		t.Errorf("the router is to ask %v, want %v", in.Upstreams, want)
	}
}
