package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/weave-cni/weave-cni/"

// api is what is read of the source.
type api struct {
	groups []group
	codes  []constant
	types  map[string]typeDoc // by name: all that the calls lead to

	tree  string
	scans map[string]*scan // packages, by directory
}

// group is one block of path constants.
type group struct {
	file  string // "net" of net.go
	doc   string
	calls []call
}

type call struct {
	constant string // "PathAllocate"
	path     string
	method   string
	request  string // a type; "" for GET
	query    string // of a GET: what follows it, in words
	reply    string // a type, "{}", or words
	note     string
}

type constant struct {
	name, value, doc string
}

// typeDoc is a type as JSON has it.
type typeDoc struct {
	name   string
	doc    string
	fields []field
	kind   string     // of one that is no object
	values []constant // of a text that has a few values
}

type field struct {
	name     string // "" for what another type has, all of it
	kind     kind
	optional bool
	doc      string
}

// kind is a type of JSON in words, with the type of ours that it leads to.
type kind struct {
	before string // "list of "
	name   string // of ours, "" for none
	words  string // where it is none of ours
}

// scan is one package.
type scan struct {
	dir   string
	fset  *token.FileSet
	files []*ast.File // ctl.go first, then by name
}

func readAPI(tree string) (*api, error) {
	a := &api{types: map[string]typeDoc{}, tree: tree, scans: map[string]*scan{}}
	s, err := a.scan("pkg/ctl")
	if err != nil {
		return nil, err
	}
	for _, f := range s.files {
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
				file := strings.TrimSuffix(filepath.Base(s.fset.Position(g.Pos()).Filename), ".go")
				if err := a.constants(file, g); err != nil {
					return nil, err
				}
			}
		}
	}
	slices.SortStableFunc(a.codes, func(x, y constant) int { return cmp.Compare(number(x.value), number(y.value)) })
	for _, g := range a.groups {
		for _, c := range g.calls {
			for _, name := range []string{c.request, c.reply} {
				if !isType(name) {
					continue
				}
				if err := a.addType(s, name); err != nil {
					return nil, fmt.Errorf("%s: %w", c.constant, err)
				}
			}
		}
	}
	return a, a.addType(s, "Error")
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// scan parses a package of ours, without its tests.
func (a *api) scan(dir string) (*scan, error) {
	if s := a.scans[dir]; s != nil {
		return s, nil
	}
	names, err := filepath.Glob(filepath.Join(a.tree, dir, "*.go"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("no source in %s", dir)
	}
	slices.SortStableFunc(names, func(x, y string) int {
		return cmp.Or(-cmp.Compare(b2i(filepath.Base(x) == "ctl.go"), b2i(filepath.Base(y) == "ctl.go")), cmp.Compare(x, y))
	})
	s := &scan{dir: dir, fset: token.NewFileSet()}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(s.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, f)
	}
	a.scans[dir] = s
	return s, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// constants takes the paths and the codes of a block.
func (a *api) constants(file string, g *ast.GenDecl) error {
	var calls []call
	for _, spec := range g.Specs {
		v, ok := spec.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || len(v.Values) != 1 {
			continue
		}
		lit, ok := v.Values[0].(*ast.BasicLit)
		if !ok {
			continue
		}
		name, doc := v.Names[0].Name, oneLine(v.Doc, v.Comment)
		switch {
		case strings.HasPrefix(name, "Code") && lit.Kind == token.INT:
			a.codes = append(a.codes, constant{name, lit.Value, doc})
		case strings.HasPrefix(name, "Path") && lit.Kind == token.STRING:
			path, err := strconv.Unquote(lit.Value)
			if err != nil {
				return err
			}
			c, err := readCall(name, path, doc)
			if err != nil {
				return err
			}
			calls = append(calls, c)
		}
	}
	if len(calls) > 0 {
		a.groups = append(a.groups, group{file, oneLine(g.Doc), calls})
	}
	return nil
}

var arrow = regexp.MustCompile(`^(\w+)(.*?) -> (\{\}|[^;:]+)(?:[;:] (.*))?$`)

// readCall reads what the comment of a path says of it.
func readCall(name, path, doc string) (call, error) {
	m := arrow.FindStringSubmatch(doc)
	if m == nil || m[1] != "GET" && (!isType(m[1]) || m[2] != "") {
		return call{}, fmt.Errorf("%s: the comment is %q, want \"Request -> Reply; what else there is to say\", or \"GET -> Reply\"", name, doc)
	}
	c := call{constant: name, path: path, method: "POST", request: m[1], reply: strings.TrimSpace(m[3]), note: m[4]}
	if m[1] == "GET" {
		c.method, c.request, c.query = "GET", "", strings.Trim(m[2], " ,")
	}
	return c, nil
}

var typeName = regexp.MustCompile(`^[A-Z]\w*$`)

func isType(s string) bool { return typeName.MatchString(s) && s != "GET" && s != "JSON" }

// oneLine is the text of comments, without its line breaks; paragraphs stay apart.
func oneLine(groups ...*ast.CommentGroup) string {
	var out []string
	for _, g := range groups {
		if g == nil {
			continue
		}
		var paragraphs []string
		for p := range strings.SplitSeq(strings.TrimSpace(g.Text()), "\n\n") {
			paragraphs = append(paragraphs, strings.Join(strings.Fields(p), " "))
		}
		out = append(out, strings.Join(paragraphs, "\n\n"))
	}
	return strings.Join(out, "; ")
}

// addType documents a type of a package, and those that it leads to.
func (a *api) addType(s *scan, name string) error {
	if _, done := a.types[name]; done {
		return nil
	}
	for _, f := range s.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				if t := spec.(*ast.TypeSpec); t.Name.Name == name {
					return a.describe(s, f, t, oneLine(cmp.Or(t.Doc, g.Doc)))
				}
			}
		}
	}
	return fmt.Errorf("%s has no type %s", s.dir, name)
}

func (a *api) describe(s *scan, f *ast.File, t *ast.TypeSpec, doc string) error {
	name := t.Name.Name
	out := typeDoc{name: name, doc: doc}
	a.types[name] = out // so that a type may lead to itself
	var err error
	switch x := t.Type.(type) {
	case *ast.StructType:
		out.fields, err = a.fieldsOf(s, f, x)
	default:
		var k kind
		k, err = a.kindOf(s, f, x)
		out.kind, out.values = k.before+k.name+k.words, valuesOf(s, name)
	}
	a.types[name] = out
	if err != nil {
		return fmt.Errorf("type %s: %w", name, err)
	}
	return nil
}

// fieldsOf are the fields of a struct as encoding/json has them.
func (a *api) fieldsOf(s *scan, f *ast.File, st *ast.StructType) (out []field, err error) {
	for _, x := range st.Fields.List {
		k, err := a.kindOf(s, f, x.Type)
		if err != nil {
			return nil, err
		}
		one := field{kind: k, doc: oneLine(x.Doc, x.Comment)}
		tag := ""
		if x.Tag != nil {
			text, err := strconv.Unquote(x.Tag.Value)
			if err != nil {
				return nil, err
			}
			tag = reflect.StructTag(text).Get("json")
		}
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" {
			continue
		}
		one.optional = strings.Contains(options, "omit")
		if name != "" || len(x.Names) == 0 {
			one.name = name
			out = append(out, one)
			continue
		}
		for _, id := range x.Names {
			if id.IsExported() {
				one.name = id.Name
				out = append(out, one)
			}
		}
	}
	return out, nil
}

// foreign are types of others, as JSON has them.
var foreign = map[string]string{
	"netip.Addr": "address", "netip.Prefix": "prefix", "netip.AddrPort": "address with a port",
	"time.Time": "time as in RFC 3339", "time.Duration": "nanoseconds", "json.RawMessage": "anything",
}

// basic are Go's own.
var basic = map[string]string{"string": "text", "bool": "true or false", "any": "anything", "float64": "number", "float32": "number"}

// kindOf says what a Go type is in JSON, and documents the type of ours that it leads to.
func (a *api) kindOf(s *scan, f *ast.File, x ast.Expr) (kind, error) {
	switch x := x.(type) {
	case *ast.StarExpr:
		return a.kindOf(s, f, x.X)
	case *ast.ArrayType:
		if id, ok := x.Elt.(*ast.Ident); ok && id.Name == "byte" {
			return kind{words: "text in base64"}, nil
		}
		k, err := a.kindOf(s, f, x.Elt)
		k.before = "list of " + k.before
		return k, err
	case *ast.MapType:
		k, err := a.kindOf(s, f, x.Value)
		k.before = "object with values of " + k.before
		return k, err
	case *ast.Ident:
		if w := basic[x.Name]; w != "" {
			return kind{words: w}, nil
		}
		if strings.HasPrefix(strings.TrimPrefix(x.Name, "u"), "int") {
			return kind{words: "number"}, nil
		}
		return kind{name: x.Name}, a.addType(s, x.Name)
	case *ast.SelectorExpr:
		return a.selected(f, x)
	}
	return kind{}, fmt.Errorf("%s: this program does not know such a type", s.fset.Position(x.Pos()))
}

// selected is a type of another package.
func (a *api) selected(f *ast.File, x *ast.SelectorExpr) (kind, error) {
	pkg, ok := x.X.(*ast.Ident)
	if !ok {
		return kind{}, errors.New("a selector of no package")
	}
	if w := foreign[pkg.Name+"."+x.Sel.Name]; w != "" {
		return kind{words: w}, nil
	}
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil || path.Base(p) != pkg.Name || !strings.HasPrefix(p, module) {
			continue
		}
		s, err := a.scan(strings.TrimPrefix(p, module))
		if err != nil {
			return kind{}, err
		}
		return kind{name: x.Sel.Name}, a.addType(s, x.Sel.Name)
	}
	return kind{}, fmt.Errorf("this program does not know what %s.%s is in JSON: tell it in the table foreign", pkg.Name, x.Sel.Name)
}

// valuesOf are the constants of a type.
func valuesOf(s *scan, name string) (out []constant) {
	for _, f := range s.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				id, ok := v.Type.(*ast.Ident)
				if !ok || id.Name != name || len(v.Values) != 1 {
					continue
				}
				if lit, ok := v.Values[0].(*ast.BasicLit); ok {
					out = append(out, constant{v.Names[0].Name, strings.Trim(lit.Value, `"`), strings.TrimPrefix(oneLine(v.Doc, v.Comment), v.Names[0].Name+": ")})
				}
			}
		}
	}
	return out
}
