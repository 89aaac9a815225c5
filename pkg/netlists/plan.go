package netlists

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/conflist"
)

// file is one that runtimes read.
type file struct {
	text    string
	regular bool
	err     string // why it cannot be read
	missing bool   // that is why

	said  *said // what the text says
	stamp stamp
}

// same reports whether there is the same in two files.
func (f file) same(g file) bool {
	return f.text == g.text && f.regular == g.regular && f.err == g.err && f.missing == g.missing
}

// said is what a file says.
type said struct {
	network string // see file.network
	list    *conflist.List
	err     error          // why it is no list
	subnets []netip.Prefix // see file.subnets
}

// sight is what is in the directory.
type sight struct {
	pattern file
	files   map[string]file // the others, by name

	derived map[string]derived // by network; carried from one sight to the next
}

// derived is a network's list, and what it was made from.
type derived struct {
	pattern *conflist.List
	network conflist.Network
	text    string
	err     error
}

func (s sight) equal(t sight) bool {
	return s.pattern.same(t.pattern) && maps.EqualFunc(s.files, t.files, file.same)
}

// plan is what is to be done, and why some networks have no list.
type plan struct {
	write  map[string]string // text by file name
	remove []string
	have   map[string]string // file names by network, of what is there or is about to be

	without    []string // networks that have no list for want of a pattern
	badPattern error    // what is wrong with it
	foreign    []string // what is wrong with somebody's file, a sentence each
	namesakes  []namesake
}

// decide compares the directory with the networks that are wanted.
func decide(s sight, want []Network) plan {
	p := plan{write: map[string]string{}, have: map[string]string{}}
	pattern, err := s.pattern.said.list, s.pattern.said.err
	p.badPattern = err
	if err == nil {
		p.have[pattern.Name()] = Pattern
	}
	keep, called := map[string]bool{}, s.called()
	for _, n := range want {
		name := conflist.FileName(n.Name)
		keep[name] = true
		f, there := s.files[name]
		if there {
			if mine, l := f.owner(name); !mine {
				p.others(name, n.Name, l)
				continue
			}
			p.have[n.Name] = name // also where it stays as it was: the network's containers need it
		}
		if p.shared(n.Name, called[n.Name], there) && !there {
			continue
		}
		if err == nil {
			p.derive(s.derive(pattern, n.Network), n, f.text)
		} else if n.Ready && !there {
			p.without = append(p.without, n.Name)
		}
	}
	for name, f := range s.files {
		if keep[name] {
			continue
		}
		if mine, _ := f.owner(name); mine {
			p.remove = append(p.remove, name)
		}
	}
	maps.DeleteFunc(s.derived, func(network string, _ derived) bool { return !keep[conflist.FileName(network)] })
	slices.Sort(p.remove)
	return p
}

// derive makes the list of a network, unless it did before.
func (s sight) derive(pattern *conflist.List, n conflist.Network) derived {
	if d, ok := s.derived[n.Name]; ok && d.pattern == pattern && reflect.DeepEqual(d.network, n) {
		return d
	}
	d := derived{pattern: pattern, network: n}
	var l *conflist.List
	if l, d.err = pattern.Derive(n); d.err == nil {
		d.text = string(l.Encode())
	}
	s.derived[n.Name] = d
	return d
}

// derive plans the list of a network, of which the router may have written this text.
func (p *plan) derive(d derived, n Network, text string) {
	switch {
	case !n.Ready:
	case d.err != nil && text == "":
		p.badPattern = d.err
		p.without = append(p.without, n.Name)
	case d.err == nil && d.text != text:
		p.write[conflist.FileName(n.Name)] = d.text
		p.have[n.Name] = conflist.FileName(n.Name)
	}
}

// others notes a file that somebody else put there. If it is a list of the network, that
// is what runtimes go by; the operator wanted it so.
func (p *plan) others(name, network string, l *conflist.List) {
	switch {
	case l == nil:
		p.foreign = append(p.foreign, fmt.Sprintf("%s is not the router's, and no network list: runtimes do not see network %q; move it away", name, network))
	case l.Name() != network:
		p.foreign = append(p.foreign, fmt.Sprintf("%s is not the router's, and the list of %q: runtimes do not see network %q; rename it", name, l.Name(), network))
	default:
		p.have[network] = name
	}
}

// called are the names of the files by the network that each calls its own, sorted.
func (s sight) called() map[string][]string {
	out := map[string][]string{}
	for name, f := range s.files {
		out[f.said.network] = append(out[f.said.network], name)
	}
	out[s.pattern.said.network] = append(out[s.pattern.said.network], Pattern)
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

// namesake is somebody's file that calls its network as one of the cluster's is called.
type namesake struct {
	network, file string
	ours          bool // the router's list of the network is there all the same, from before
}

// shared notes the files that call their network like one of the cluster's, but for the
// one in which the router's list stands, or would. One more by that name might come before
// theirs, and their network would turn into ours unasked. A list that is there stays: the
// network's containers need it.
func (p *plan) shared(network string, files []string, ours bool) (some bool) {
	for _, name := range files {
		if name != conflist.FileName(network) {
			p.namesakes = append(p.namesakes, namesake{network, name, ours})
			some = true
		}
	}
	if some && !ours {
		delete(p.have, network) // where the pattern has that name
	}
	return some
}

func (n namesake) problem(dir string) string {
	path, list := filepath.Join(dir, n.file), conflist.FileName(n.network)
	what := "the router writes no " + list + ", and runtimes take that file for it"
	if n.ours {
		what = "runtimes differ in which they take, that or the router's " + list
	}
	cure := "give the network in it another name, or remove it"
	if n.file == Pattern {
		cure = fmt.Sprintf("run: weave conflist --name %s --out %s %s", defaultName, dir, path)
	}
	return fmt.Sprintf("%s is not the router's, and has the name of network %q: %s; %s", path, n.network, what, cure)
}

// network is the name by which runtimes know what is in the file, whatever else is wrong
// with it; "" for none. Those of single plugins have their keys in any case of letters.
func (f file) network(name string) string {
	if filepath.Ext(name) == ".conflist" {
		var list map[string]any
		_ = json.Unmarshal([]byte(f.text), &list)
		called, _ := list["name"].(string)
		return called
	}
	var single struct{ Name string }
	_ = json.Unmarshal([]byte(f.text), &single)
	return single.Name
}

// owner reports whether the router wrote the file, and gives the list that is in it, if any.
func (f file) owner(name string) (mine bool, l *conflist.List) {
	if !f.regular {
		return false, nil
	}
	l = f.said.list
	return l != nil && l.ManagedID() != "" && conflist.FileName(l.Name()) == name, l
}

// understood is the file with what it says; one that was read before is not read again.
func (f file) understood(name string, was file) file {
	if f.said = was.said; f.said == nil || !f.same(was) {
		f.said = &said{network: f.network(name), subnets: f.subnets()}
		f.said.list, f.said.err = f.parse()
	}
	return f
}

func (f file) parse() (*conflist.List, error) {
	switch {
	case f.missing:
		return nil, fs.ErrNotExist
	case f.err != "":
		return nil, errors.New(f.err)
	}
	return conflist.Parse([]byte(f.text))
}

// problems are those that are known before anything is done.
func (p *plan) problems(dir string) []string {
	var out []string
	pattern := filepath.Join(dir, Pattern)
	switch run := fmt.Sprintf("weave conflist --out %s conflist/%s", dir, Pattern); {
	case len(p.without) == 0:
	case errors.Is(p.badPattern, fs.ErrNotExist):
		out = append(out, fmt.Sprintf("runtimes do not see %s: there is no %s to make %s from; run: %s, or start weaver with --no-conflists",
			networks(p.without), pattern, lists(p.without), run))
	default:
		out = append(out, fmt.Sprintf("runtimes do not see %s: no list can be made from %s: %v; put it right, or run: %s", networks(p.without), pattern, p.badPattern, run))
	}
	for _, f := range p.foreign {
		out = append(out, filepath.Join(dir, f))
	}
	for _, n := range p.namesakes {
		out = append(out, n.problem(dir))
	}
	return out
}

// networks names some of them.
func networks(names []string) string {
	const most = 3
	if len(names) == 1 {
		return "network " + names[0]
	}
	some := names
	if len(names) > most {
		some = append(slices.Clone(names[:most]), "…")
	}
	return fmt.Sprintf("%d networks (%s)", len(names), strings.Join(some, ", "))
}

func lists(names []string) string {
	if len(names) == 1 {
		return "its list"
	}
	return "their lists"
}
