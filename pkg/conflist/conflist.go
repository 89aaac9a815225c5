// Package conflist fits a shipped CNI network list to the plugins of a host, makes
// the lists of other networks from one that was fitted, and puts them in place.
//
// A list names the spec versions it may be used at, and a runtime takes the
// highest it knows without asking the plugins. A plugin that does not know that
// version then refuses every container. So the versions are not chosen when the
// list is written but when it is installed: of every plugin of the list, in the
// directory it will be run from, VERSION is asked, and what all of them speak
// is what the list says.
package conflist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Newest is the spec version that a list gets beyond those it was shipped with,
// once all its plugins speak it.
const Newest = "1.1.0"

// List is a network list, decoded as far as this package has to and otherwise
// kept as it was read, in its order.
type List struct{ object }

// Parse reads a network list; what it does not know it keeps.
func Parse(text []byte) (*List, error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	l := &List{o}
	return l, l.check()
}

func (l *List) check() error {
	if err := validName(l.Name()); err != nil {
		return err
	}
	if len(l.Plugins()) == 0 {
		return errors.New(`no "plugins", or one without a "type"`)
	}
	for _, v := range l.Versions() {
		if _, err := parseVersion(v); err != nil {
			return err
		}
	}
	return nil
}

// Name is the network's name as runtimes know it.
func (l *List) Name() string { return l.text("name") }

// SetName gives the network another name.
func (l *List) SetName(name string) error {
	if err := validName(name); err != nil {
		return err
	}
	l.set("name", "cniVersions", name)
	return nil
}

// validName is the rule of libcni, which refuses any other name when it is used.
func validName(name string) error {
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return fmt.Errorf("network name %q: want letters, digits, '_', '.', '-', first a letter or digit", name)
		}
	}
	if name == "" {
		return errors.New(`no "name"`)
	}
	return nil
}

// Versions are the spec versions that the list may be used at, lowest first.
func (l *List) Versions() []string {
	var vs []string
	if json.Unmarshal(l.get("cniVersions"), &vs) != nil {
		vs = nil
	}
	if v := l.text("cniVersion"); v != "" {
		vs = append(vs, v)
	}
	return sortVersions(vs)
}

// Version is the one of Versions that runtimes take which do not know cniVersions, podman 4
// among them; "" where the list does not say.
func (l *List) Version() string { return l.text("cniVersion") }

// Plugins are the types of all plugins that a call to the network starts, in
// order, each once: the chained ones, and the IPAM plugin each delegates to.
// Nil when one has no type.
func (l *List) Plugins() []string {
	var plugins []struct {
		Type string `json:"type"`
		IPAM struct {
			Type string `json:"type"`
		} `json:"ipam"`
	}
	if json.Unmarshal(l.get("plugins"), &plugins) != nil {
		return nil
	}
	var types []string
	for _, p := range plugins {
		if p.Type == "" {
			return nil
		}
		for _, t := range []string{p.Type, p.IPAM.Type} {
			if t != "" && !slices.Contains(types, t) {
				types = append(types, t)
			}
		}
	}
	return types
}

// Spoken says which versions each plugin of a list speaks, by its type.
type Spoken map[string][]string

// Fit sets cniVersions to those of the list's, and Newest, that every plugin
// speaks. cniVersion, which is all that an old runtime looks at, stays if it is
// one of them and else becomes the lowest of them.
func (l *List) Fit(spoken Spoken) error {
	var all []string
	for _, v := range sortVersions(append(l.Versions(), Newest)) {
		if !slices.ContainsFunc(l.Plugins(), func(p string) bool { return !slices.Contains(spoken[p], v) }) {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("network %q: its plugins have no CNI version in common (%s)", l.Name(), l.explain(spoken))
	}
	if !slices.Contains(all, l.text("cniVersion")) {
		l.set("cniVersion", "", all[0])
	}
	l.set("cniVersions", "cniVersion", all)
	return nil
}

func (l *List) explain(spoken Spoken) string {
	var parts []string
	for _, p := range l.Plugins() {
		parts = append(parts, p+": "+strings.Join(spoken[p], " "))
	}
	return strings.Join(parts, "; ")
}

// Encode gives the list as text for people: indented, in the order it was read.
func (l *List) Encode() []byte {
	var b bytes.Buffer
	b.WriteString("{\n")
	for i, f := range l.fields {
		key, _ := json.Marshal(f.key) // a string always encodes
		b.WriteString("  " + string(key) + ": ")
		if f.key == "cniVersions" {
			b.WriteString(oneLine(f.value))
		} else if err := json.Indent(&b, f.value, "  ", "  "); err != nil {
			b.Write(f.value) // Parse has decoded it: it is JSON
		}
		if i < len(l.fields)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// oneLine writes a list of short strings as one would by hand.
func oneLine(raw json.RawMessage) string {
	var vs []string
	if json.Unmarshal(raw, &vs) != nil {
		return string(raw)
	}
	for i, v := range vs {
		vs[i] = strconv.Quote(v)
	}
	return "[" + strings.Join(vs, ", ") + "]"
}

// sortVersions sorts, lowest first, and drops repeats. What is no version sorts first.
func sortVersions(vs []string) []string {
	vs = slices.Clone(vs)
	slices.SortFunc(vs, func(a, b string) int {
		x, _ := parseVersion(a)
		y, _ := parseVersion(b)
		return slices.Compare(x[:], y[:])
	})
	return slices.Compact(vs)
}

func parseVersion(s string) (v [3]int, err error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return v, fmt.Errorf("%q is not a CNI version", s)
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return v, fmt.Errorf("%q is not a CNI version", s)
		}
		v[i] = int(n)
	}
	return v, nil
}
