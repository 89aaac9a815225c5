package main

import (
	"go/ast"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

const tree = "../.."

func TestThePageIsWhatTheTypesSay(t *testing.T) {
	want, err := document(tree)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(tree, "docs/api.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/api.md is not what pkg/ctl says: go generate ./scripts/apidoc\nit begins to differ at %q", difference(string(got), want))
	}
	for i, line := range strings.Split(want, "\n") {
		if utf8.RuneCountInString(line) > 140 {
			t.Errorf("line %d is too long: %s", i+1, line)
		}
	}
}

// difference is the first line of want that got has not at that place.
func difference(got, want string) string {
	g := strings.Split(got, "\n")
	for i, line := range strings.Split(want, "\n") {
		if i >= len(g) || g[i] != line {
			return line
		}
	}
	return "the end"
}

// served is what the router's source says of the calls: by constant, the types of the
// function that control.Handle was given.
func served(t *testing.T) map[string][2]string {
	t.Helper()
	a := &api{tree: tree, scans: map[string]*scan{}}
	s, err := a.scan("pkg/router")
	if err != nil {
		t.Fatal(err)
	}
	functions := map[string]*ast.FuncType{}
	handlers := map[string]string{} // function by constant
	for _, f := range s.files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				functions[n.Name.Name] = n.Type
			case *ast.CallExpr:
				if fn := selector(n.Fun); (fn == "control.Handle" || fn == "control.HandleGet") && len(n.Args) == 3 {
					if _, name, ok := strings.Cut(selector(n.Args[2]), "."); ok {
						handlers[strings.TrimPrefix(selector(n.Args[1]), "ctl.")] = name
					}
				}
			}
			return true
		})
	}
	out := map[string][2]string{}
	for constant, name := range handlers {
		f := functions[name]
		if f == nil {
			continue
		}
		in := "GET"
		if p := f.Params.List; len(p) > 1 {
			in = strings.TrimPrefix(selector(p[1].Type), "ctl.")
		}
		out[constant] = [2]string{in, strings.TrimPrefix(selector(f.Results.List[0].Type), "ctl.")}
	}
	return out
}

// selector is the text of a.b, or of a; a struct without fields is nothing.
func selector(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.SelectorExpr:
		return selector(x.X) + "." + x.Sel.Name
	case *ast.Ident:
		return x.Name
	case *ast.StarExpr:
		return selector(x.X)
	case *ast.StructType:
		return "nothing"
	}
	return ""
}

func TestTheCallsAreServedAsTheirCommentsSay(t *testing.T) {
	a, err := readAPI(tree)
	if err != nil {
		t.Fatal(err)
	}
	have, compared := served(t), 0
	for _, g := range a.groups {
		for _, c := range g.calls {
			got, ok := have[c.constant]
			if !ok {
				continue // somebody else serves it, or a function without a name
			}
			request, reply := c.request, c.reply
			if c.method == "GET" {
				request = "GET"
			}
			if reply == "{}" {
				reply = "nothing"
			}
			if !isType(reply) && reply != "nothing" {
				reply = got[1] // in words
			}
			if got != [2]string{request, reply} {
				t.Errorf("%s: the comment says %s -> %s, the router serves %s -> %s", c.constant, request, reply, got[0], got[1])
			}
			compared++
		}
	}
	if compared < 15 {
		t.Errorf("only %d calls were compared", compared)
	}
}

const source = `package ctl

import "github.com/weave-cni/weave-cni/pkg/other"

// Paths. All of them.
const (
	PathDo   = "/v1/do"   // Do -> Done; CodeNo when <not>, see PathLook
	PathLook = "/v1/look" // GET, ?id=ID -> Done
	PathEnd  = "/v1/end"  // Do -> {}: over
)

const CodeNo = 200 // no

// Do it.
type Do struct {
	A, B  []netip.Addr
	Many  map[string]*Mode ` + "`json:\"many,omitempty\"`" + ` // of them
	Other other.Thing ` + "`json:\"other\"`" + `
	left  int
	Gone  int ` + "`json:\"-\"`" + `
}

// Done is done.
//
// Truly.
type Done struct {
	Do
	// When: as it was.
	When time.Time ` + "`json:\"when,omitzero\"`" + `
}

// Mode is how.
type Mode string

const (
	// Fast: soon.
	Fast Mode = "fast"
)

// Error is no.
type Error struct{}
`

func TestEachShapeOfATypeIsWritten(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("pkg/ctl/ctl.go", source)
	write("pkg/other/other.go", "package other\n\n// Thing of others.\ntype Thing struct{ N uint8 }\n")
	page, err := document(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n## Calls\n\nPaths. All of them.\n\n### POST /v1/do\n\nTakes [Do](#do) and answers with [Done](#done). Code 200 when \\<not>, see /v1/look.\n",
		"### GET /v1/look\n\nWith ?id=ID; answers with [Done](#done).\n", "answers with `{}`. Over.\n",
		"- `200` No: no\n", "- `A`, list of address\n- `B`, list of address\n", "- `many`, object with values of [Mode](#mode), may be left out — of them\n",
		"- `other`, [Thing](#thing)\n", "### Thing\n\nThing of others.\n\n- `N`, number\n", "Done is done.\n\nTruly.\n\n- and all fields of [Do](#do)\n",
		"- `when`, time as in RFC 3339, may be left out — as it was.\n", "### Mode\n\nMode is how.\n\nA text.\n\n- `fast`: soon.\n", "### Error\n\nError is no.\n\nIt has no fields.\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	for _, not := range []string{"left`", "Gone"} {
		if strings.Contains(page, not) {
			t.Errorf("%q is on the page", not)
		}
	}
	for _, c := range []struct{ old, new, words string }{
		{"// Do -> Done; CodeNo when <not>, see PathLook", "", "PathDo: the comment is"},
		{"Do -> Done;", "Do -> Missing;", "no type Missing"},
		{"time.Time", "time.Month", "what time.Month is in JSON"},
		{"map[string]*Mode", "func()", "does not know such a type"},
	} {
		write("pkg/ctl/ctl.go", strings.Replace(source, c.old, c.new, 1))
		if _, err := document(dir); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want %q", c.new, err, c.words)
		}
	}
}

func TestLinesAreBrokenBetweenWordsAndBeginNoList(t *testing.T) {
	long := strings.Repeat("word ", width/5)
	got := wrapped("- "+long+"- more", "  ")
	if want := "- " + strings.TrimSpace(long) + " -\n  more\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
