package docs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

const maxLine = 140 // characters

func TestLinesAreShortAndTablesWhole(t *testing.T) {
	for _, p := range pages(t) {
		columns := 0
		for i, line := range p.raw {
			if n := utf8.RuneCountInString(line); n > maxLine && !strings.HasPrefix(p.path, "plugins/") { // those keep to their own width
				t.Errorf("%s:%d: %d characters, at most %d", p.path, i+1, n, maxLine)
			}
		}
		for i, line := range p.prose {
			if !strings.HasPrefix(line, "|") {
				columns = 0
				continue
			}
			if n := len(cells(line)); columns != 0 && n != columns {
				t.Errorf("%s:%d: a row of %d cells in a table of %d", p.path, i+1, n, columns)
			} else {
				columns = n
			}
		}
	}
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	anchors := map[string][]string{}
	for _, p := range pages(t) {
		anchors[p.path] = p.anchors()
	}
	for _, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(strings.Join(p.prose, "\n"), -1) {
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := filepath.Join(filepath.Dir(p.path), file)
			if file == "" {
				target = p.path
			}
			if _, err := os.Stat(filepath.Join(top, target)); err != nil {
				t.Errorf("%s: link %s: %v", p.path, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors[target], anchor) {
				t.Errorf("%s: link %s: %s has no such heading", p.path, m[1], target)
			}
		}
	}
}

// anchors are those that a renderer gives the headings.
func (p page) anchors() []string {
	var out []string
	for _, line := range p.prose {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimLeft(line, "# "))
		out = append(out, slug)
	}
	return out
}

func TestEveryBlockIsRunOrSaysWhyNot(t *testing.T) {
	run := []string{"both", "first", "second", "conflist", "run", "run second", "anew", "last"}
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			switch b.lang {
			case "sh":
				why, example := strings.CutPrefix(b.tag, "example")
				if why = strings.TrimSpace(why); example && why == "" {
					t.Errorf("%s: why is this example not run?", b.where)
				}
				if !example && !slices.Contains(run, b.tag) {
					t.Errorf("%s: %q: is it run, or an example?", b.where, b.tag)
				}
				if out, err := exec.Command("sh", "-nc", b.text).CombinedOutput(); err != nil {
					t.Errorf("%s: %s", b.where, out)
				}
			case "json":
				checkConfig(t, b)
			case "", "text", "nft":
			default:
				t.Errorf("%s: nobody looks at %q", b.where, b.lang)
			}
		}
	}
}

// checkConfig reads a config as a runtime would, and looks for keys that nobody reads.
func checkConfig(t *testing.T, b block) {
	t.Helper()
	var conf map[string]json.RawMessage
	if err := json.Unmarshal([]byte(b.text), &conf); err != nil {
		t.Errorf("%s: %v", b.where, err)
		return
	}
	plugins := []json.RawMessage{[]byte(b.text)}
	if list := conf["plugins"]; list != nil {
		if _, err := libcni.NetworkConfFromBytes([]byte(b.text)); err != nil {
			t.Errorf("%s: %v", b.where, err)
		}
		if err := json.Unmarshal(list, &plugins); err != nil {
			t.Errorf("%s: %v", b.where, err)
		}
	} else if _, err := libcni.NetworkPluginConfFromBytes([]byte(b.text)); err != nil {
		t.Errorf("%s: %v", b.where, err)
	}
	for _, one := range plugins {
		var c struct {
			Type string
			IPAM map[string]json.RawMessage
		}
		var keys map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(one, &c), json.Unmarshal(one, &keys)); err != nil {
			t.Errorf("%s: %v", b.where, err)
			continue
		}
		known, ours := pluginKeys(t)[c.Type]
		for k := range keys {
			if ours && !slices.Contains(known, k) && !slices.Contains(cniKeys, k) {
				t.Errorf("%s: %s has no key %q", b.where, c.Type, k)
			}
		}
		for k := range c.IPAM {
			if strings.Trim(string(c.IPAM["type"]), `"`) == "weave-ipam" && k != "type" && !slices.Contains(pluginKeys(t)["weave-ipam"], "ipam."+k) {
				t.Errorf("%s: weave-ipam has no key %q", b.where, k)
			}
		}
	}
}

// cniKeys are CNI's own.
var cniKeys = []string{"cniVersion", "name", "type", "ipam", "capabilities", "runtimeConfig", "args", "prevResult", "disableGC",
	"cni.dev/valid-attachments", "cni.dev/attachments"}

// mainPackage is where each plugin's source is.
var mainPackage = map[string]string{
	"weave-net": "plugins/main/weave-net", "simplebridge": "plugins/main/simplebridge",
	"weave-ipam": "plugins/ipam/weave-ipam", "weavedns": "plugins/meta/weavedns",
}

// pluginKeys gives the config keys that each plugin's source reads, besides CNI's own.
func pluginKeys(t *testing.T) map[string][]string {
	t.Helper()
	shared := jsonTags(t, "pkg/cniconf")
	out := map[string][]string{}
	for name, dir := range mainPackage {
		keys := slices.Concat(shared["Conf"], jsonTags(t, dir)["config"])
		if name == "weave-ipam" {
			keys = nil // "socket" and "network" of its caller's are read in passing
			for _, k := range shared["IPAM"] {
				keys = append(keys, "ipam."+k)
			}
		}
		out[name] = slices.DeleteFunc(keys, func(k string) bool { return slices.Contains(cniKeys, k) || k == "ipam.type" })
		slices.Sort(out[name])
	}
	return out
}

// jsonTags gives, by the name of each struct type of a package, its fields' JSON names.
func jsonTags(t *testing.T, dir string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, file := range sources(t, dir) {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range s.Fields.List {
				if f.Tag == nil {
					continue
				}
				tag, _ := strconv.Unquote(f.Tag.Value)
				if name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ","); name != "" {
					out[spec.Name.Name] = append(out[spec.Name.Name], name)
				}
			}
			return true
		})
	}
	return out
}

// sources parses a package's files, without its tests.
func sources(t *testing.T, dir string) []*ast.File {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source in %s: %v", dir, err)
	}
	var out []*ast.File
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, file)
	}
	return out
}

func TestTheTablesOfKeysAreWhatThePluginsRead(t *testing.T) {
	read := pluginKeys(t)
	told := map[string][]string{}
	for _, row := range find(t, "docs/plugins.md").table(t, "Config") {
		at := strings.Split(row[1], ", ")
		if row[1] == "all four" {
			at = []string{"weave-net", "simplebridge", "weavedns"} // and weave-ipam, as ipam.socket
		}
		for _, plugin := range at {
			told[plugin] = append(told[plugin], code(row[0])...)
		}
	}
	for plugin, keys := range read {
		slices.Sort(told[plugin])
		if !slices.Equal(told[plugin], keys) {
			t.Errorf("docs/plugins.md: keys of %s: %v, it reads %v", plugin, told[plugin], keys)
		}
		p := find(t, mainPackage[plugin]+"/README.md")
		var own []string
		for _, row := range p.table(t, "Config") {
			for _, k := range code(row[0]) {
				if plugin == "weave-ipam" {
					k = "ipam." + k
				}
				if k != "ipam" && k != "ipam.type" {
					own = append(own, k)
				}
			}
		}
		slices.Sort(own)
		if !slices.Equal(own, keys) {
			t.Errorf("%s: keys %v, the plugin reads %v", p.path, own, keys)
		}
	}
}

// cniCodes are CNI's codes by their names in its library.
var cniCodes = map[string]uint{
	"ErrUnknown": types.ErrUnknown, "ErrIncompatibleCNIVersion": types.ErrIncompatibleCNIVersion, "ErrUnsupportedField": types.ErrUnsupportedField,
	"ErrUnknownContainer": types.ErrUnknownContainer, "ErrInvalidEnvironmentVariables": types.ErrInvalidEnvironmentVariables,
	"ErrIOFailure": types.ErrIOFailure, "ErrDecodingFailure": types.ErrDecodingFailure, "ErrInvalidNetworkConfig": types.ErrInvalidNetworkConfig,
	"ErrInvalidNetNS": types.ErrInvalidNetNS, "ErrTryAgainLater": types.ErrTryAgainLater, "ErrPluginNotAvailable": types.ErrPluginNotAvailable,
	"ErrLimitedConnectivity": types.ErrLimitedConnectivity, "ErrInternal": types.ErrInternal,
}

// usedCodes are those that a plugin can end with, and what the source calls them.
func usedCodes(t *testing.T) map[uint]string {
	t.Helper()
	used := map[uint]string{types.ErrIncompatibleCNIVersion: "CNI's library"}
	name := regexp.MustCompile(`\btypes\.(Err[A-Z]\w+)`)
	constant := regexp.MustCompile(`(?m)^\s*(Code[A-Z]\w+)\s*=\s*(\d+)`)
	for _, dir := range append(slices.Collect(maps.Values(mainPackage)), "pkg/cniconf", "pkg/ctl") {
		files, _ := filepath.Glob(filepath.Join(top, dir, "*.go"))
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range name.FindAllStringSubmatch(string(text), -1) {
				c, ok := cniCodes[m[1]]
				if !ok {
					t.Errorf("%s: this test does not know types.%s", f, m[1])
				}
				used[c] = m[1]
			}
			for _, m := range constant.FindAllStringSubmatch(string(text), -1) {
				c, _ := strconv.Atoi(m[2])
				used[uint(c)] = m[1]
			}
		}
	}
	return used
}

func TestTheTableOfErrorCodesIsWhatTheSourceHas(t *testing.T) {
	used, told := usedCodes(t), map[uint]bool{}
	for _, row := range find(t, "docs/plugins.md").table(t, "Error codes") {
		c, err := strconv.Atoi(row[0])
		if err != nil {
			t.Fatalf("code %q", row[0])
		}
		told[uint(c)] = true
		if used[uint(c)] == "" {
			t.Errorf("docs/plugins.md: nothing ends with code %d", c)
		}
	}
	for c, name := range used {
		if !told[c] {
			t.Errorf("docs/plugins.md: code %d (%s) is missing", c, name)
		}
	}
}

func TestTheCodesInTheReadmesOfThePluginsAreUsed(t *testing.T) {
	used, number := usedCodes(t), regexp.MustCompile(`\d+`)
	for plugin, dir := range mainPackage {
		if plugin == "simplebridge" {
			continue // has no table of its own
		}
		p := find(t, dir+"/README.md")
		for _, row := range p.table(t, "Troubleshooting") {
			for _, n := range number.FindAllString(row[0], -1) {
				if c, _ := strconv.Atoi(n); used[uint(c)] == "" {
					t.Errorf("%s: nothing ends with code %s", p.path, n)
				}
			}
		}
	}
}

// help is what a program says of a command's own flags: name to default.
func help(t *testing.T, program string, command ...string) map[string]string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, program), append(command, "--help")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	own, _, _ := strings.Cut(string(out), "Global Flags:")
	flag := regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z0-9-]+)\s.*?(?:\(default "?([^")]+)"?\))?$`)
	flags := map[string]string{}
	for _, m := range flag.FindAllStringSubmatch(own, -1) {
		if m[1] != "help" && m[1] != "version" {
			flags[m[1]] = m[2]
		}
	}
	return flags
}

func TestTheTableOfFlagsIsWhatWeaverHas(t *testing.T) {
	flags := help(t, "weaver")
	told := map[string]bool{}
	for _, row := range find(t, "docs/operating.md").table(t, "Flags of weaver") {
		name := strings.TrimPrefix(code(row[0])[0], "--")
		told[name] = true
		want, ok := flags[name]
		if !ok {
			t.Errorf("weaver has no flag --%s", name)
		}
		if v := "WEAVE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")); code(row[1])[0] != v {
			t.Errorf("--%s: variable %s, want %s", name, row[1], v)
		}
		if want != "" && !slices.Contains(code(row[2]), want) {
			t.Errorf("--%s: default %s, want %s", name, row[2], want)
		}
	}
	for name := range flags {
		if !told[name] {
			t.Errorf("docs/operating.md: --%s is missing", name)
		}
	}
}

func TestTheTableOfCommandsIsWhatWeaveHas(t *testing.T) {
	told := map[string]bool{}
	for _, row := range find(t, "docs/operating.md").table(t, "Commands") {
		var command []string
		for word := range strings.FieldsSeq(code(row[0])[0]) {
			if word != "weave" && word == strings.ToLower(word) {
				command = append(command, word)
			}
		}
		told[strings.Join(command, " ")] = true
		flags := slices.Sorted(maps.Keys(help(t, "weave", command...)))
		var have []string
		for _, f := range code(row[1]) {
			have = append(have, strings.TrimPrefix(f, "--"))
		}
		slices.Sort(have)
		if !slices.Equal(flags, have) {
			t.Errorf("weave %s: flags %v, it has %v", command, have, flags)
		}
	}
	for _, parent := range []string{"", "status", "secret", "net", "dns"} {
		for _, c := range commands(t, strings.Fields(parent)...) {
			full := strings.TrimSpace(parent + " " + c)
			if !told[full] && full != "secret" && full != "net" && full != "dns" { // which do nothing by themselves
				t.Errorf("docs/operating.md: weave %s is missing", full)
			}
		}
	}
}

func commands(t *testing.T, parent ...string) []string {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin, "weave"), append(parent, "--help")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(out), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var names []string
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 0 && f[0] != "help" {
			names = append(names, f[0])
		}
	}
	return names
}

// foreignFlags are those of other programs that the documents name.
var foreignFlags = []string{"--network", "--network-alias", "--dns", "--dns-search", "--hostname", "--mount", "--cni"}

func TestEveryFlagAndVariableThatIsNamedExists(t *testing.T) {
	known := map[string]bool{"--help": true, "--version": true}
	for _, f := range foreignFlags {
		known[f] = true
	}
	all := []map[string]string{help(t, "weaver"), help(t, "weave"), help(t, "weave", "conflist"), help(t, "weave", "status"), help(t, "weave", "rmpeer"), help(t, "weave", "reset"),
		help(t, "weave", "trace"), help(t, "weave", "dns", "lookup"), help(t, "weave", "dns", "trace"), help(t, "weave", "net", "create"), help(t, "weave", "net", "list"), help(t, "weave", "net", "rm"),
		help(t, "weave", "net", "plug"), help(t, "weave", "attachd"),
		help(t, "weave", "status", "topology"), help(t, "weave", "top"), help(t, "weave", "doctor"), help(t, "weave", "report")}
	for i, flags := range all {
		for f := range flags {
			known["--"+f] = true
			if i == 0 {
				known["WEAVE_"+strings.ToUpper(strings.ReplaceAll(f, "-", "_"))] = true
			}
		}
	}
	for _, v := range []string{"WEAVE_HOSTNAME", "WEAVE_DNS", "WEAVE_ENDPOINT", "WEAVE_SOME_FLAG"} { // the first three in CNI_ARGS
		known[v] = true
	}
	word := regexp.MustCompile(`(?:^|[\s=;(])(--[a-z][a-z0-9-]*|WEAVE_[A-Z0-9_]+)`)
	for _, p := range pages(t) {
		if p.path == "docs/design/README.md" {
			continue
		}
		spans := code(strings.Join(p.prose, "\n"))
		for _, s := range spans {
			for _, m := range word.FindAllStringSubmatch(s, -1) {
				if !known[m[1]] && !strings.HasPrefix(s, "weave net") {
					t.Errorf("%s: %s is no flag or variable", p.path, m[1])
				}
			}
		}
	}
}

// TestTheSentencesOfWaitingAreExplained compares the sentences in the source with those in operating.md, both ways.
func TestTheSentencesOfWaitingAreExplained(t *testing.T) {
	said := append(
		literals(t, "pkg/replica", "waiting", "waitingToJoin", "nobodyReached", "noMajority", "spent", "asking", "departed", "words", "unreadable", "errOlder", "cutOff", "contradiction"),
		literals(t, "pkg/ipam", "Waiting")...)
	said = append(said, literals(t, "pkg/ipam/allot", "unready", "givingBack")...)
	said = append(said, literals(t, "pkg/router", "unheard", "onlySelf", "heldBackWaits", "notFounding", "notTakingPart", "copied")...)
	said = append(said, literals(t, "pkg/founding", "Waiting", "waitingForFounder")...)
	var told []string
	in := false
	for _, line := range find(t, "docs/operating.md").prose {
		if strings.HasPrefix(line, "#") {
			in = strings.TrimLeft(line, "# ") == "weave status"
		}
		if in && strings.HasPrefix(line, "- ") {
			first, _, _ := strings.Cut(line, " — ")
			told = append(told, code(first)...)
		}
	}
	fits := func(words, sentence string) bool { // N, M and NAME stand for what is filled in
		quoted := regexp.QuoteMeta(words)
		quoted = regexp.MustCompile(`\b(NAME|N|M)\b`).ReplaceAllString(quoted, "%[a-z]")
		return regexp.MustCompile(quoted).MatchString(sentence)
	}
	for _, words := range told {
		if !slices.ContainsFunc(said, func(s string) bool { return fits(words, s) }) {
			t.Errorf("operating.md explains %q, which nothing says", words)
		}
	}
	for _, s := range said {
		if len(strings.Fields(s)) >= 4 && !slices.ContainsFunc(told, func(w string) bool { return fits(w, s) }) &&
			!slices.ContainsFunc(tails, func(tail string) bool { return strings.Contains(s, tail) }) {
			t.Errorf("operating.md does not explain %q", s)
		}
	}
}

// tails are parts of sentences that stand behind others.
var tails = []string{
	"Stop the router on the host that the state directory was copied to",
	": stop this router, remove its state directory and start it again",
	"has left the cluster under this identity",
	"name a PEER, put --state-dir on a disk, or start with --init new",
	"waits to join a cluster; ", "waits to join a cluster, but ",
	"if no host has a cluster any more, run ",
}

// literals gives the texts in some functions and constants of a package.
func literals(t *testing.T, dir string, funcs ...string) []string {
	t.Helper()
	var out []string
	found := map[string]bool{}
	for _, file := range sources(t, dir) {
		for _, d := range file.Decls {
			name := ""
			switch f := d.(type) {
			case *ast.FuncDecl:
				name = f.Name.Name
			case *ast.GenDecl: // a constant
				if v, ok := f.Specs[0].(*ast.ValueSpec); ok {
					name = v.Names[0].Name
				}
			}
			if !slices.Contains(funcs, name) {
				continue
			}
			found[name] = true
			ast.Inspect(d, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					if s, err := strconv.Unquote(l.Value); err == nil {
						out = append(out, s)
					}
				}
				return true
			})
		}
	}
	for _, f := range funcs {
		if !found[f] {
			t.Errorf("%s has no function %s", dir, f)
		}
	}
	return out
}

func TestTheReasonsAreInTheSource(t *testing.T) {
	texts := sourceText(t)
	p := find(t, "docs/operating.md")
	for _, row := range append(p.table(t, "weave status"), p.tableOf(t, "says")...) {
		for _, words := range code(row[0]) {
			if words == "connection refused" || words == "i/o timeout" { // the kernel's and Go's
				continue
			}
			if !bytes.Contains(texts, []byte(words)) {
				t.Errorf("nothing says %q", words)
			}
		}
	}
}

// sourceText is all Go source, tests too, of the tree.
func sourceText(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasPrefix(path, "../docs/") {
			return err
		}
		b, err := os.ReadFile(path)
		out.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestEveryTestAndFileThatIsNamedExists(t *testing.T) {
	texts := sourceText(t)
	test := regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w+$`)
	path := regexp.MustCompile(`^(pkg|cmd|plugins|scripts|conflist|docs)/[\w./-]*$|^[\w-]+\.(go|sh)$`)
	for _, p := range pages(t) {
		for _, s := range code(strings.Join(p.prose, "\n")) {
			switch {
			case test.MatchString(s) && !bytes.Contains(texts, []byte("\nfunc "+s+"(")):
				t.Errorf("%s: there is no test %s", p.path, s)
			case path.MatchString(s):
				if _, err := os.Stat(filepath.Join(top, s)); err != nil {
					t.Errorf("%s: %v", p.path, err)
				}
			}
		}
	}
	script := regexp.MustCompile(`scripts/[a-z0-9/]+\.sh`)
	for _, p := range pages(t) {
		for _, s := range script.FindAllString(strings.Join(p.raw, "\n"), -1) {
			if st, err := os.Stat(filepath.Join(top, s)); err != nil || st.Mode()&0o111 == 0 {
				t.Errorf("%s: %s cannot be run: %v", p.path, s, err)
			}
		}
	}
}

func TestTheUnitNamesWhatThereIs(t *testing.T) {
	unit, err := os.ReadFile("weaver.service")
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile("weaver.env")
	if err != nil {
		t.Fatal(err)
	}
	flags := help(t, "weaver")
	for _, m := range regexp.MustCompile(`(?m)^WEAVE_(\w+)=`).FindAllStringSubmatch(string(env), -1) {
		if _, ok := flags[strings.ToLower(strings.ReplaceAll(m[1], "_", "-"))]; !ok {
			t.Errorf("weaver.env: WEAVE_%s is no flag of weaver", m[1])
		}
	}
	if !strings.Contains(string(unit), "\nExecStart=/usr/local/bin/weaver $PEERS\n") || !strings.Contains(string(env), "\nPEERS=") {
		t.Error("unit and environment do not fit")
	}
	for line := range strings.Lines(string(unit)) {
		if key, _, ok := strings.Cut(line, "="); ok && key == "RuntimeDirectory" {
			t.Error("RuntimeDirectory= removes the claims at each stop")
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Logf("not looked at by systemd-analyze: %v", err) // no skip: a machine without systemd has no use for the unit
		return
	}
	// The binary is looked for: here it is elsewhere.
	file := filepath.Join(t.TempDir(), "weaver.service")
	text := strings.ReplaceAll(string(unit), "/usr/local/bin/weaver", filepath.Join(bin, "weaver"))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--recursive-errors=no", "--man=no", file).CombinedOutput(); err != nil || bytes.Contains(out, []byte("weaver.service")) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestTheUnitsOfAttachdNameWhatThereIs(t *testing.T) {
	service, err := os.ReadFile("attachd.service")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := os.ReadFile("attachd.socket")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(service), "\nExecStart=/usr/local/bin/weave attachd\n") || !slices.Contains(commands(t), "attachd") {
		t.Error("the unit starts something else")
	}
	if !strings.Contains(string(socket), "\nListenStream="+ctl.AttachSocket+"\n") || !strings.Contains(string(socket), "\nSocketMode=0600\n") {
		t.Error("the socket is another, or not root's alone")
	}
}

// A test that looks for nothing finds nothing.
func TestThePagesAreRead(t *testing.T) {
	var blocks, tables int
	for _, p := range pages(t) {
		blocks += len(p.blocks)
		for _, line := range p.prose {
			if strings.HasPrefix(line, "|") {
				tables++
			}
		}
	}
	if blocks < 30 || tables < 100 {
		t.Errorf("%d blocks, %d rows of tables", blocks, tables)
	}
	if got := fmt.Sprint(cells("| a | `b \\| c` | |")); got != "[a `b | c` ]" {
		t.Errorf("cells: %s", got)
	}
}

// A host has several networks, by name: which is the first one changes with the next that is made.
func TestNoSnippetTakesANetworkByItsPlace(t *testing.T) {
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if strings.Contains(b.text, "networks[0]") {
				t.Errorf("%s: it takes the first of several networks: select it by its name", b.where)
			}
		}
	}
}
