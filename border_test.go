// Package border holds no code, only the test of the borders between packages.
//
// The layout in docs/design says which package may know which. That is kept by
// this test and not by good will: every rule below is a row with the reason
// that is printed when somebody crosses it.
package border_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/weave-cni/weave-cni"

// only gives an import path to a few packages of ours: nobody else's code
// imports it directly. Tests may: they are not linked into anything.
type only struct {
	path   string   // the package, and everything below it
	owners []string // packages of ours, relative to the module; "x/..." means x and all below
	reason string
}

var onlys = []only{
	{"github.com/vishvananda/netlink", []string{"pkg/netdev"}, "one package knows how links are made, so one place has the retries, the interrupted dumps and the alias check"},
	{"github.com/vishvananda/netns", []string{}, "a thread left in the wrong namespace is found only in production: open namespaces with pkg/netdev"},
	{"github.com/google/nftables", []string{"pkg/hostfw", "pkg/intercept"}, "the host's firewall is one desired state in one transaction, read back after the commit; a container's own namespace is entered by intercept alone"},
	{"github.com/coreos/go-iptables", []string{"pkg/hostfw"}, "iptables is touched only where another firewall drops in it"},
	{"github.com/weaveworks/mesh", []string{"pkg/gossip/meshlink"}, "mesh has sharp edges that the adapter guards; no type of it leaves the adapter"},
	{"go.etcd.io/raft", []string{"pkg/replica"}, "who drives raft must keep its rules (persist before send); one package does"},
	{"go.etcd.io/bbolt", []string{"pkg/replica/store"}, "the store is behind an interface, so that the ledger can be tested in memory"},
	{"github.com/miekg/dns", []string{"pkg/names", "scripts/bench/..."}, "DNS messages end at the name server; a bare server of this library is what ours is measured beside"},
	{"github.com/dustinkirkland/golang-petname", []string{"pkg/router"}, "random names are for people, and made where a network is made without one"},
	{"github.com/fxamacker/cbor", []string{"pkg/wire"}, "limits on what a peer may send are set once"},
	{"golang.zx2c4.com/wireguard", []string{"pkg/overlay/wireguard"}, "the tunnel is one way for packets among others"},
	{"golang.zx2c4.com/wireguard/wgctrl", []string{"pkg/overlay/wireguard"}, "the tunnel is one way for packets among others"},
	{"github.com/prometheus", []string{"pkg/control", "pkg/router"}, "parts report plain numbers; how they are exported is not their business"},
	{"github.com/spf13/cobra", []string{"cmd/..."}, "flags end at main"},
	{"go.yaml.in/yaml", []string{"cmd/weaver"}, "the configuration file ends at main, like the flags that it stands for; only this library tells the line of each value"},
	{"google.golang.org/grpc", []string{"pkg/runtimes"}, "containerd speaks it, and nobody else"},
	{"github.com/containerd/containerd/api", []string{"pkg/runtimes"}, "what a runtime is asked, and how, is known in one place"},
	{"github.com/containernetworking/cni/libcni", []string{"pkg/attach", "scripts/bench/..."}, "calling plugins is a runtime's work: the router does none of it"},
	{"github.com/containernetworking/cni/pkg/skel", []string{"plugins/...", "pkg/cniconf"}, "only a plugin answers CNI"},
	{"os/exec", []string{"pkg/cniconf", "pkg/conflist", "pkg/doctor", "pkg/hostfw", "pkg/netlab", "pkg/runtimes", "scripts/..."}, "the router starts no process (but iptables, where another firewall drops in it): a call that forks has no bound. doctor is linked into the command alone: it lists rules and links as an operator would, by the host's own programs"},
	{module + "/pkg/router", []string{"cmd/weaver"}, "the one place that knows everything is known by nobody but main"},
	{module + "/pkg/control", []string{"pkg/router", "pkg/attachd", "cmd/weave"}, "only the wiring serves a socket: the router's, and that of weave attachd"},
	{module + "/pkg/gossip/meshlink", []string{"pkg/router"}, "parts know the contract of gossip, the wiring alone knows the carrier"},
	{module + "/pkg/gossip/gossiptest", []string{"pkg/simtest"}, "it is for tests"},
	{module + "/pkg/cniconf/configtest", []string{}, "it is for tests"},
	{module + "/pkg/netlab", []string{"scripts/..."}, "it is for tests, the demo and the benchmarks"},
}

// links lists all that a program of ours may be linked from: packages of ours,
// and modules of others. What is not listed is refused.
type links struct {
	programs string // relative to the module, "x/..." means all below x
	ours     []string
	modules  []string
	reason   string
}

var linked = []links{
	{
		programs: "plugins/...",
		ours: []string{"pkg/addr", "pkg/attachment", "pkg/cniconf", "pkg/ctl", "pkg/endpoint", "pkg/netdev",
			"pkg/inject", "pkg/intercept", "pkg/resolvconf"}, // what weavedns does in a container
		modules: []string{
			"github.com/containernetworking/cni", "github.com/containernetworking/plugins",
			"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys",
			"go.opentelemetry.io/otel",                                                                   // comes with cni/pkg/invoke
			"github.com/google/nftables", "github.com/mdlayher", "golang.org/x/net", "golang.org/x/sync", // weavedns' rules, where a host need not have nft(8)
			"github.com/pkg/errors",                                                                  // comes with plugins/pkg/netlinksafe
			"github.com/safchain/ethtool", "sigs.k8s.io/knftables", "github.com/mattn/go-shellwords", // come with plugins/pkg/ip
		},
		reason: "a plugin is started for every container and must be small and quick: it asks the router, it does not contain it",
	},
	{
		programs: "cmd/weave",
		ours: []string{"pkg/addr", "pkg/attachment", "pkg/conflist", "pkg/ctl", "pkg/doctor", "pkg/gossip", "pkg/identity", "pkg/topology",
			"pkg/attach", "pkg/attachd", "pkg/control", "pkg/endpoint", "pkg/netdev", "pkg/runtimes"}, // net plug and attachd, which enter containers
		modules: []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/inconshreveable/mousetrap", "golang.org/x/sys",
			"github.com/containernetworking/cni", "go.opentelemetry.io/otel", "github.com/cespare/xxhash", // net plug calls plugins as a runtime does; the last two come with libcni
			"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/containernetworking/plugins", // pkg/netdev looks into a container for a free name
			"github.com/containerd/containerd/api", "google.golang.org/grpc", "google.golang.org/protobuf", // only so is a hook written into a specification
			"google.golang.org/genproto", "golang.org/x/net", "golang.org/x/text", "github.com/opencontainers", "github.com/containerd/ttrpc", "github.com/containerd/log", "github.com/sirupsen/logrus"}, // come with these
		reason: "the operator's command talks to the router over its socket and must work when no part of the router does",
	},
	{
		programs: "cmd/weaver",
		ours:     []string{"pkg/..."},
		modules: []string{
			"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/google/nftables", "github.com/mdlayher",
			"github.com/coreos/go-iptables", "github.com/weaveworks/mesh", "go.etcd.io", "google.golang.org/protobuf",
			"github.com/miekg/dns", "github.com/fxamacker/cbor", "github.com/x448/float16", "golang.org/x", "github.com/dustinkirkland/golang-petname",
			"github.com/prometheus", // metrics, with what its client is made of:
			"github.com/beorn7/perks", "github.com/cespare/xxhash", "github.com/munnerz/goautoneg",
			"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/inconshreveable/mousetrap",
			"go.yaml.in/yaml", // the configuration file
		},
		reason: "a new dependency of the router is a decision: write it down in docs/design, then here",
	},
}

// pure packages compute: they import the standard library and each other, and
// whoever calls them passes the time, the chance and the bytes.
var pure = []string{"pkg/addr", "pkg/attachment", "pkg/endpoint", "pkg/gossip", "pkg/ledger", "pkg/record", "pkg/resolvconf", "pkg/wire/cursor"}

// stdOnly packages may do I/O, but link nothing that is not ours or Go's.
var stdOnly = append([]string{"pkg/calllog", "pkg/conflist", "pkg/ctl", "pkg/netlists", "pkg/topology"}, pure...)

// impure are imports that a pure package has no use for.
var impure = []string{"bufio", "crypto/rand", "io/ioutil", "log", "math/rand", "net/http", "os", "plugin", "runtime", "syscall", "testing", "unsafe"}

// parts are identifiers that a pure package may use of a package that is
// otherwise about I/O; all of them are types, or functions of their arguments.
var parts = map[string][]string{
	"net": {"HardwareAddr", "ParseMAC", "IP", "IPMask", "IPNet", "ParseIP", "ParseCIDR", "CIDRMask", "IPv4", "IPv4Mask", "IPv4len", "IPv6len"},
	"time": {"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour",
		"Time", "Unix", "UnixMilli", "ParseDuration"},
}

var noNames = []string{"base", "common", "helper", "helpers", "lib", "misc", "shared", "tools", "types", "util", "utils"}

// pkg is what the test looks at, of one package of ours or of others.
type pkg struct {
	ImportPath string
	Name       string
	Standard   bool
	Imports    []string
	Deps       []string
	Module     *struct{ Path string }
}

func (p pkg) ours() bool {
	return p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/")
}

// rel is the path inside the module; "" for packages of others.
func (p pkg) rel() string {
	r, ok := strings.CutPrefix(p.ImportPath, module+"/")
	if !ok {
		return ""
	}
	return r
}

type graph map[string]pkg

func within(p, parent string) bool { return p == parent || strings.HasPrefix(p, parent+"/") }

func matches(rel string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pat string) bool {
		if below, ok := strings.CutSuffix(pat, "/..."); ok {
			return within(rel, below)
		}
		return rel == pat
	})
}

func (g graph) each(f func(pkg)) {
	paths := make([]string, 0, len(g))
	for p := range g {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		if g[p].ours() {
			f(g[p])
		}
	}
}

// crossings of the rules about who imports what directly.
func (o only) crossings(g graph) (bad []string) {
	g.each(func(p pkg) {
		if matches(p.rel(), o.owners) || within(p.ImportPath, o.path) {
			return
		}
		for _, i := range p.Imports {
			if within(i, o.path) {
				bad = append(bad, fmt.Sprintf("%s imports %s, which only %v may: %s", p.rel(), i, o.owners, o.reason))
			}
		}
	})
	return bad
}

// crossings of the rules about what a program is linked from: of what must not
// be linked, the packages that something permitted imports. What those drag in
// goes with them.
func (l links) crossings(g graph) (bad []string) {
	g.each(func(p pkg) {
		if !matches(p.rel(), []string{l.programs}) {
			return
		}
		first := map[string]bool{}
		for _, importer := range append([]string{p.ImportPath}, p.Deps...) {
			if importer != p.ImportPath && !l.permits(g[importer]) {
				continue
			}
			for _, i := range g[importer].Imports {
				if q, known := g[i]; known && !first[i] && !l.permits(q) {
					first[i] = true
					bad = append(bad, fmt.Sprintf("%s links %s (%s): %s", p.rel(), i, g.road(p.ImportPath, i), l.reason))
				}
			}
		}
	})
	return bad
}

func (l links) permits(q pkg) bool {
	switch {
	case q.Standard:
		return true
	case q.ours():
		return matches(q.rel(), l.ours) || matches(q.rel(), []string{l.programs})
	default:
		return q.Module != nil && slices.ContainsFunc(l.modules, func(m string) bool { return within(q.Module.Path, m) })
	}
}

// road is one shortest chain of imports from a to b.
func (g graph) road(a, b string) string {
	from, queue := map[string]string{a: ""}, []string{a}
	for len(queue) > 0 && queue[0] != b {
		at := queue[0]
		queue = queue[1:]
		for _, i := range g[at].Imports {
			if _, seen := from[i]; !seen {
				from[i] = at
				queue = append(queue, i)
			}
		}
	}
	var steps []string
	for at := b; at != ""; at = from[at] {
		steps = append(steps, path.Base(at))
	}
	slices.Reverse(steps)
	return strings.Join(steps, " -> ")
}

// notStd lists what a package imports besides the standard library and others of its kind.
func (g graph) notStd(kind string, members []string) (bad []string) {
	g.each(func(p pkg) {
		if !matches(p.rel(), members) {
			return
		}
		for _, i := range p.Imports {
			if q := g[i]; !q.Standard && !matches(q.rel(), members) {
				bad = append(bad, fmt.Sprintf("%s imports %s: a %s package imports the standard library and its like only, so that it can be read and tested alone", p.rel(), i, kind))
			}
		}
	})
	return bad
}

// badNames lists packages whose name says nothing, or hides a standard one.
func (g graph) badNames() (bad []string) {
	hidden := map[string]string{} // standard packages that code of ours can import, by name
	for _, p := range g {
		if p.Standard && !slices.Contains(strings.Split(p.ImportPath, "/"), "internal") && !within(p.ImportPath, "vendor") {
			hidden[p.Name] = p.ImportPath
		}
	}
	g.each(func(p pkg) {
		name := path.Base(p.ImportPath)
		if slices.Contains(noNames, name) || slices.Contains(noNames, p.Name) {
			bad = append(bad, fmt.Sprintf("%s: a package is named for the one thing it is about, %q is about nothing", p.rel(), name))
		}
		if std := hidden[p.Name]; std != "" {
			bad = append(bad, fmt.Sprintf("%s hides the standard package %q: a reader would have to look which one is meant", p.rel(), std))
		}
	})
	return bad
}

// impurities lists uses of a clock, a log, chance or I/O in one file.
func impurities(fset *token.FileSet, f *ast.File) (bad []string) {
	allowed := map[string][]string{} // by local name
	for _, spec := range f.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		if slices.ContainsFunc(impure, func(i string) bool { return within(p, i) }) {
			bad = append(bad, fmt.Sprintf("%s: a pure package must not import %s", fset.Position(spec.Pos()), p))
		}
		if ids, partly := parts[p]; partly {
			local := path.Base(p)
			if spec.Name != nil {
				local = spec.Name.Name
			}
			allowed[local] = ids
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok || x.Obj != nil { // a local variable that happens to have the package's name
			return true
		}
		if ids, partly := allowed[x.Name]; partly && !slices.Contains(ids, sel.Sel.Name) {
			bad = append(bad, fmt.Sprintf("%s: a pure package must not use %s.%s: the caller passes the time and the bytes", fset.Position(sel.Pos()), x.Name, sel.Sel.Name))
		}
		return true
	})
	return bad
}

// sources reads every Go file of the module. The graph comes from the go
// command, of whose reading `go test` knows nothing; with this the cached
// result of this test ends with the first change of any file.
func sources(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil // gone between the listing and now: somebody's temporary file
		case d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || p == "bin"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(p) != ".go" && p != "go.mod":
			return nil
		}
		b, err := os.ReadFile(p)
		if err == nil {
			files[p] = b
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("reading the sources: %v, %d files", err, len(files))
	}
	return files
}

// load asks the go command for every package of ours and all they are linked from.
func load(t *testing.T) graph {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Name,Standard,Imports,Deps,Module", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	g := graph{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return g
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		g[p.ImportPath] = p
	}
}

func report(t *testing.T, bad []string) {
	t.Helper()
	for _, b := range bad {
		t.Error(b)
	}
}

func TestBorderEveryPackageKeepsToItsImports(t *testing.T) {
	sources(t)
	g := load(t)
	for _, o := range onlys {
		report(t, o.crossings(g))
	}
	for _, l := range linked {
		report(t, l.crossings(g))
	}
	report(t, g.notStd("pure", pure))
	report(t, g.notStd("standard-library", stdOnly))
	report(t, g.badNames())
}

func TestBorderPurePackagesUseNoClockNoLogNoIO(t *testing.T) {
	for name, src := range sources(t) {
		dir := filepath.ToSlash(filepath.Dir(name))
		if !matches(dir, pure) || strings.HasSuffix(name, "_test.go") || filepath.Ext(name) != ".go" {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		report(t, impurities(fset, f))
	}
}

func TestBorderEveryOwnerNamedInARuleIsARealPlace(t *testing.T) {
	// A rule about a package that was renamed holds nothing.
	g := load(t)
	have := func(rel string) bool {
		found := false
		g.each(func(p pkg) { found = found || matches(p.rel(), []string{rel}) })
		return found
	}
	for _, l := range linked {
		if !have(l.programs) {
			t.Errorf("no program %s", l.programs)
		}
	}
	for _, p := range []string{"pkg/addr", "pkg/attachment", "pkg/ledger", "pkg/record"} {
		if !have(p) {
			t.Errorf("no package %s", p)
		}
	}
}

func onlyOf(t *testing.T, path string) only {
	t.Helper()
	i := slices.IndexFunc(onlys, func(o only) bool { return o.path == path })
	if i < 0 {
		t.Fatalf("no rule about %s", path)
	}
	return onlys[i]
}

// The checks themselves, on a tree that breaks each rule once.
func TestBorderCrossingsAreToldWithTheirReason(t *testing.T) {
	type mod = struct{ Path string }
	g := graph{}
	add := func(p pkg) { g[p.ImportPath] = p }
	add(pkg{ImportPath: "os", Name: "os", Standard: true})
	add(pkg{ImportPath: "github.com/weaveworks/mesh", Name: "mesh", Module: &mod{"github.com/weaveworks/mesh"}})
	add(pkg{ImportPath: module + "/pkg/gossip/meshlink", Name: "meshlink", Imports: []string{"github.com/weaveworks/mesh"}})
	add(pkg{ImportPath: module + "/pkg/cniconf", Name: "cniconf", Imports: []string{module + "/pkg/gossip/meshlink"}})
	add(pkg{ImportPath: module + "/pkg/util", Name: "util", Imports: []string{"github.com/weaveworks/mesh"}})
	add(pkg{ImportPath: module + "/pkg/os", Name: "os"})
	add(pkg{ImportPath: module + "/pkg/ledger", Name: "ledger", Imports: []string{"os", module + "/pkg/util"}})
	add(pkg{ImportPath: module + "/plugins/main/weave-net", Name: "main",
		Imports: []string{module + "/pkg/cniconf"},
		Deps:    []string{"os", module + "/pkg/cniconf", module + "/pkg/gossip/meshlink", "github.com/weaveworks/mesh"}})

	for name, c := range map[string]struct {
		bad  []string
		want []string
	}{
		"a second importer":        {onlyOf(t, "github.com/weaveworks/mesh").crossings(g), []string{"pkg/util imports github.com/weaveworks/mesh"}},
		"a plugin with the daemon": {linked[0].crossings(g), []string{"links " + module + "/pkg/gossip/meshlink (weave-net -> cniconf -> meshlink)"}},
		"a pure package":           {g.notStd("pure", pure), []string{"pkg/ledger imports " + module + "/pkg/util"}},
		"names":                    {g.badNames(), []string{"pkg/os hides", "pkg/util: a package"}},
	} {
		if len(c.bad) != len(c.want) {
			t.Errorf("%s: got %q", name, c.bad)
			continue
		}
		for i := range c.want {
			if !strings.Contains(c.bad[i], c.want[i]) {
				t.Errorf("%s: got %q, want %q in it", name, c.bad[i], c.want[i])
			}
		}
	}
}

func TestBorderAClockIsSeenUnderAnyName(t *testing.T) {
	src := `package p
import ( clock "time"; "net"; "os" )
var d clock.Duration
func f(m net.HardwareAddr) (clock.Time, error) { _, err := net.Dial("", ""); os.Exit(1); return clock.Now(), err }`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(impurities(fset, f), "\n")
	for _, want := range []string{"must not import os", "net.Dial", "clock.Now"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n") + 1; n != 3 {
		t.Errorf("got %d findings:\n%s", n, got)
	}
}
