package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/weave-cni/weave-cni/pkg/router"
)

// setting is one key of a configuration file. Values are the texts that stand there.
type setting struct {
	key    string
	values []string // one, unless it is a list
	list   bool
	line   int
}

// fault is what is wrong with a line of the file, counted from 1.
type fault struct {
	line int
	key  string // "" where it is about none
	text string
}

// parseConfig reads a configuration file: keys with one value or a flat list each. All
// that is wrong is told at once, but for bad YAML, behind which nothing can be read.
func parseConfig(text []byte) (settings []setting, faults []fault) {
	bad := func(line int, key, text string) { faults = append(faults, fault{max(line, 1), key, text}) }
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		line, words := syntaxError(err)
		bad(line, "", words)
		return nil, faults
	}
	if err := dec.Decode(&more); err == nil {
		bad(more.Line, "", "a second document begins here: want one")
	} else if !errors.Is(err, io.EOF) {
		line, words := syntaxError(err)
		bad(line, "", words)
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil, faults
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		bad(top.Line, "", "want lines such as \"mtu: 1400\"")
		return nil, faults
	}
	first := map[string]int{} // line of a key
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		s := setting{key: key.Value, line: key.Line}
		if key.Kind != yaml.ScalarNode || key.Value == "" {
			bad(key.Line, "", "want the name of a flag as key, without its dashes")
			continue
		}
		if first[s.key] != 0 {
			bad(s.line, s.key, fmt.Sprintf("%s: given on line %d already", s.key, first[s.key]))
			continue
		}
		first[s.key] = s.line
		if wrong := s.take(value); wrong != "" {
			bad(s.line, s.key, s.key+": "+wrong)
			continue
		}
		settings = append(settings, s)
	}
	return settings, faults
}

// take reads a setting's value, or says what is wrong with it.
func (s *setting) take(value *yaml.Node) (wrong string) {
	items := []*yaml.Node{value}
	if s.list = value.Kind == yaml.SequenceNode; s.list {
		items = value.Content
	}
	s.values = []string{}
	for _, n := range items {
		switch {
		case n.Kind == yaml.AliasNode || n.Anchor != "":
			return "anchors and aliases are not read: write it out"
		case n.Kind != yaml.ScalarNode:
			return "want one value, or a list of values"
		case isNull(n):
			return "has no value: leave the key out for the default, or write \"\" for none"
		case n.Style&yaml.TaggedStyle != 0:
			return fmt.Sprintf("tags such as %s are not read", n.Tag)
		}
		s.values = append(s.values, n.Value)
	}
	return ""
}

// isNull reports whether nothing stands there, or a word for it.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

var syntaxLine = regexp.MustCompile(`(?s)^(?:yaml: )?(?:line (\d+): )?(.*)$`)

// syntaxError is what the library says, and of which line.
func syntaxError(err error) (line int, text string) {
	m := syntaxLine.FindStringSubmatch(err.Error())
	line, _ = strconv.Atoi(m[1])
	if text = m[2]; strings.Contains(text, "cannot start any token") {
		text += ": indent with blanks, not with a tab, and put into quotes what begins with @ or `"
	}
	return line, text
}

// noSuchKey names the key that may be meant, where one is like it.
func noSuchKey(key string, all []string) string {
	like := nearest(key, all)
	if distance(key, like) > len(key)/2 && !strings.HasPrefix(like, key) {
		return fmt.Sprintf("%s: no such key; a key is a flag of `weaver --help` without its dashes", key)
	}
	return fmt.Sprintf("%s: no such key, did you mean %s?", key, like)
}

// nearest is the one of some words that is like a word most, or the first that begins
// with it.
func nearest(word string, words []string) string {
	if i := slices.IndexFunc(words, func(w string) bool { return len(word) > 2 && strings.HasPrefix(w, word) }); i >= 0 {
		return words[i]
	}
	return slices.MinFunc(words, func(a, b string) int { return distance(word, a) - distance(word, b) })
}

// distance counts the letters to change, to add and to leave out that make a out of b.
func distance(a, b string) int {
	a = strings.ReplaceAll(strings.ToLower(a[:min(len(a), 64)]), "_", "-")
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// effective is what counts, as a configuration file that says where it comes from.
func (c checked) effective(set *pflag.FlagSet) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# weaver %s: nothing is wrong with this\n", version)
	line := func(key, value string) {
		fmt.Fprintf(&out, "%-40s # %s\n", key+": "+value, c.origins[key])
	}
	for _, key := range keys(set) {
		if key == router.PeersFlag {
			line(key, flowList(c.config.Peers))
			continue
		}
		f := set.Lookup(key)
		if list, ok := f.Value.(pflag.SliceValue); ok {
			line(key, flowList(list.GetSlice()))
		} else {
			line(key, scalar(f.Value.String()))
		}
	}
	return out.String()
}

func flowList(items []string) string {
	var out []string
	for _, i := range items {
		out = append(out, scalar(i))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// plainText needs no quotes, wherever it stands in YAML.
var plainText = regexp.MustCompile(`^[A-Za-z0-9/]([A-Za-z0-9./:_-]*[A-Za-z0-9])?$`)

// scalar writes a text so that it is read as it is. What Go quotes, YAML reads.
func scalar(s string) string {
	if plainText.MatchString(s) && !strings.EqualFold(s, "null") {
		return s
	}
	return strconv.Quote(s)
}
