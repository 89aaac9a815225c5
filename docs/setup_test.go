package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// machines are the two of the README.
type machines struct {
	t             *testing.T
	first, second *netlab.Host
}

// where says on which machines a tag's blocks are run.
func (m machines) where(tag string) []*netlab.Host {
	return map[string][]*netlab.Host{
		"both": {m.first, m.second}, "conflist": {m.first, m.second},
		"first": {m.first}, "run": {m.first},
		"second": {m.second}, "run second": {m.second}, "last": {m.second}, "anew": {m.first},
	}[tag]
}

func TestWhatTheDocumentsTellToRunRuns(t *testing.T) {
	lab := netlab.New(t, netlab.Options{
		Hosts: 2, Timeout: time.Minute,
		Private: []string{"/usr/local/bin", "/etc/weave"},
	})
	m := machines{t, lab.Host(0), lab.Host(1)}
	m.before()
	for _, b := range find(t, "README.md").blocks {
		m.readme(b)
	}
	reach := m.attachAndPing()
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if strings.HasPrefix(b.tag, "run") {
				m.run(b)
			}
		}
	}
	m.rulesAreTaken()
	m.filesOfTheTableAreThere()
	m.foundAnew()
	reach()
	m.theUnitRuns()
	m.takeOff()
}

// before puts in place what the README expects to be there.
func (m machines) before() {
	m.t.Setenv("BIN", bin)
	m.t.Setenv("A", m.first.Addr().String())
	m.t.Setenv("B", m.second.Addr().String())
	for _, h := range m.where("both") {
		h.MustRun(m.t, "install", "-D", "-t", "/opt/cni/bin", filepath.Join(bin, "portmap"))
		h.MustRun(m.t, "install", "-D", "-t", "/usr/local/bin", filepath.Join(bin, "cnitool"))
	}
}

// readme runs a block of the README, as its reader would.
func (m machines) readme(b block) {
	m.t.Helper()
	if b.tag == "second" {
		secret, err := m.first.ReadFile("/etc/weave/secret")
		if err == nil {
			err = m.second.WriteFile("/etc/weave/secret", secret, 0o600)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	if b.tag == "conflist" {
		for _, h := range m.where(b.tag) {
			m.ready(h) // the reader comes to this some seconds later
		}
	}
	if b.lang == "sh" && !strings.HasPrefix(b.tag, "example") && !strings.HasPrefix(b.tag, "run") {
		m.run(b)
	}
}

// ownBin is where build.sh puts the binaries, as a reader writes it.
var ownBin = regexp.MustCompile(`(?m)(^| )bin/`)

// run runs a block on its machines, as root's shell at the top of the tree.
func (m machines) run(b block) {
	m.t.Helper()
	hosts := m.where(b.tag)
	if len(hosts) == 0 {
		m.t.Fatalf("%s: on which machine is %q?", b.where, b.tag)
	}
	for _, h := range hosts {
		script := ownBin.ReplaceAllString(b.text, "$1$$BIN/") // not into the tree
		if b.tag == "first" {
			script = founder + script
		}
		if strings.Contains(script, " &\n") {
			script += "echo $! > " + pidFile + "\n"
		}
		out, err := m.shell(h, script)
		if err != nil {
			m.t.Fatalf("%s on %s: %v\n%s%s", b.where, h.Name(), err, script, out)
		}
		if strings.HasPrefix(b.tag, "run") {
			m.t.Logf("%s on %s:\n%s", b.where, h.Name(), out)
		}
	}
}

// founder is said before a router is started that founds a cluster: unlike the reader's
// machines, those of the lab lose their state directories at each reboot.
const founder = "export WEAVE_INIT=new\n"

// pidFile holds the process that a block left in the background: the router.
const pidFile = "/run/docs-router.pid"

func (m machines) shell(h *netlab.Host, script string) (string, error) {
	log, err := os.CreateTemp(m.t.TempDir(), "log") // a file: a router that is left running holds it
	if err != nil {
		return "", err
	}
	defer log.Close()
	cmd := h.Command(m.t.Context(), "sh", "-euc", script)
	if cmd.Dir, err = filepath.Abs(top); err != nil {
		return "", err
	}
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Run()
	said, readErr := os.ReadFile(log.Name())
	if readErr != nil {
		return "", readErr
	}
	return string(said), err
}

// ready waits until containers can be added on a host.
func (m machines) ready(h *netlab.Host) {
	m.t.Helper()
	m.wait("weave status is content", func() error {
		out, err := h.Run("/usr/local/bin/weave", "status")
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
}

// attachAndPing gives each machine a container, with the real cnitool; the one
// on the second reaches the other by its address and knows its name, as the
// function that it returns looks once more.
func (m machines) attachAndPing() (reach func()) {
	m.t.Helper()
	addr := map[*netlab.Host]string{}
	var last *netlab.Container
	for host, name := range map[*netlab.Host]string{m.first: "web", m.second: "client"} {
		c, err := host.NewContainer(name)
		if err != nil {
			m.t.Fatal(err)
		}
		out, err := m.shell(host, "CNI_PATH=/opt/cni/bin NETCONFPATH=/etc/cni/net.d cnitool add weave "+c.Path())
		if err != nil {
			m.t.Fatalf("cnitool add on %s: %v\n%s", host.Name(), err, out)
		}
		var result struct{ IPs []struct{ Address string } }
		if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.IPs) == 0 {
			m.t.Fatalf("result: %v\n%s", err, out)
		}
		addr[host], _, _ = strings.Cut(result.IPs[0].Address, "/")
		if host == m.second {
			last = c
		}
	}
	reach = func() {
		m.t.Helper()
		m.wait("the second machine reaches the first", func() error {
			_, err := last.Run("ping", "-n", "-c1", "-W1", addr[m.first])
			return err
		})
		m.wait("the second machine knows web", func() error {
			out, err := m.shell(m.second, "weave status dns")
			if err == nil && !strings.Contains(out, addr[m.first]) {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
	}
	reach()
	return reach
}

func (m machines) wait(what string, is func() error) {
	m.t.Helper()
	if err := netlab.Wait(time.Minute, what, is); err != nil {
		m.t.Fatal(err)
	}
}

// stop ends a machine's router.
func (m machines) stop(h *netlab.Host) {
	m.t.Helper()
	m.must(h, "kill $(cat "+pidFile+"); while [ -e /run/weave/weave.sock ]; do sleep 0.1; done")
}

// foundAnew does what operating.md says of a cluster whose majority is lost.
func (m machines) foundAnew() {
	m.t.Helper()
	const start = "weaver --secret-file /etc/weave/secret "
	for _, h := range m.where("both") {
		m.stop(h)
		m.must(h, "rm -rf /var/lib/weave/*")
	}
	out, err := m.shell(m.first, start)
	if err == nil || !strings.Contains(out, "this host was in a cluster") {
		m.t.Errorf("a router founds a second cluster: %v\n%s", err, out)
	}
	for _, b := range find(m.t, "docs/operating.md").blocks {
		if b.tag == "anew" {
			m.run(b)
		}
	}
	for _, h := range m.where("both") {
		before, peer := founder, ""
		if h == m.second {
			before, peer = "", "$A"
		}
		m.must(h, before+start+peer+" & echo $! > "+pidFile)
		m.ready(h)
		m.must(h, "weave status ipam") // which may count some in others' blocks: the page says what to do then
	}
}

// rulesAreTaken has nft check the rules that the documents show.
func (m machines) rulesAreTaken() {
	m.t.Helper()
	for _, p := range pages(m.t) {
		for _, b := range p.blocks {
			if b.lang != "nft" {
				continue
			}
			if _, err := m.first.RunInput(b.text, "nft", "-c", "-f", "-"); err != nil {
				m.t.Errorf("%s: %v", b.where, err)
			}
		}
	}
}

// filesOfTheTableAreThere looks for what operating.md says is on a host.
func (m machines) filesOfTheTableAreThere() {
	m.t.Helper()
	for _, row := range find(m.t, "docs/operating.md").table(m.t, "Files") {
		for _, path := range code(row[0]) {
			m.wait("docs/operating.md: "+path, func() error { // known-hosts is written some seconds after the first contact
				_, err := m.shell(m.first, "ls -d "+path)
				return err
			})
		}
	}
}

// theUnitRuns starts the second machine's router as docs/weaver.service would:
// with its arguments, its environment file and its capabilities.
func (m machines) theUnitRuns() {
	m.t.Helper()
	unit := m.unit()
	m.stop(m.second)
	caps := "-all"
	for c := range strings.FieldsSeq(unit["CapabilityBoundingSet"]) {
		caps += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	m.must(m.second, "grep -h '^[A-Z]' docs/weaver.env > /etc/weave/weaver.env")
	m.must(m.second, fmt.Sprintf(`sed -i "s/^PEERS=.*/PEERS=\"$B $A\"/" /etc/weave/weaver.env
set -a; . %s; set +a
setpriv --bounding-set=%s --inh-caps=-all --no-new-privs %s & echo $! > %s`,
		strings.TrimPrefix(unit["EnvironmentFile"], "-"), caps, unit["ExecStart"], pidFile))
	m.ready(m.second)
	if out := m.must(m.second, "grep CapEff /proc/$(cat "+pidFile+")/status"); strings.Contains(out, "ffffffff") {
		m.t.Errorf("the router has every capability: %s", out)
	}
	m.wait("it answers names, for which it needs a capability", func() error {
		out, err := m.shell(m.second, `dig +short +time=1 +tries=1 @"$(weave status --json | jq -r '.networks[] | select(.name == "weave").gateways[0]')" client.weave.local | grep '^[0-9]'`)
		if err != nil {
			err = fmt.Errorf("%w %s", err, out)
		}
		return err
	})
	c, err := m.second.NewContainer("unit")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, verb := range []string{"add", "check", "del"} {
		m.must(m.second, "CNI_PATH=/opt/cni/bin NETCONFPATH=/etc/cni/net.d cnitool "+verb+" weave "+c.Path())
	}
}

func (m machines) unit() map[string]string {
	text, err := os.ReadFile("weaver.service")
	if err != nil {
		m.t.Fatal(err)
	}
	unit := map[string]string{}
	for line := range strings.SplitSeq(string(text), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			unit[key] = value
		}
	}
	return unit
}

// takeOff runs what takes weave off a host, and looks that it did.
func (m machines) takeOff() {
	m.t.Helper()
	m.must(m.second, "CNI_PATH=/opt/cni/bin NETCONFPATH=/etc/cni/net.d cnitool del weave /run/netns/client")
	for _, b := range find(m.t, "docs/operating.md").blocks {
		if b.tag == "last" {
			m.run(b)
		}
	}
	left := m.must(m.second, "ip -o link; nft list tables; find /run/weave /var/lib/weave /etc/weave /etc/cni/net.d -type f 2>/dev/null || true")
	if strings.Contains(left, "weave") {
		m.t.Errorf("still there:\n%s", left)
	}
}

func (m machines) must(h *netlab.Host, script string) string {
	m.t.Helper()
	out, err := m.shell(h, script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s\n%s", h.Name(), err, script, out)
	}
	return out
}
