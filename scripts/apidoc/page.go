package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// width is the longest line of a page, in characters.
const width = 138

// page is what follows the head.
func (a *api) page() string {
	var out strings.Builder
	for i, g := range a.groups {
		if i == 0 {
			out.WriteString("\n## Calls\n")
		} else {
			fmt.Fprintf(&out, "\n## Calls: %s\n", g.file)
		}
		a.paragraph(&out, g.doc)
		for _, c := range g.calls {
			fmt.Fprintf(&out, "\n### %s %s\n", c.method, c.path)
			out.WriteString("\n" + wrapped(c.words(a), ""))
		}
	}
	out.WriteString("\n## Codes\n")
	a.paragraph(&out, "Those below 100 are CNI's: a plugin hands them on as they are.")
	out.WriteString("\n")
	for _, c := range a.codes {
		text := strings.TrimPrefix(c.name, "Code")
		if c.doc != "" {
			text += ": " + a.plain(c.doc)
		}
		out.WriteString(wrapped(fmt.Sprintf("- `%s` %s", c.value, text), "  "))
	}
	out.WriteString("\n## Types\n")
	a.paragraph(&out, "Addresses are texts such as \"10.32.0.5\" or \"fd77::5\", prefixes such as \"10.32.0.5/12\". A field that may be "+
		"left out counts as empty, 0 or false when it is.")
	for _, name := range slices.Sorted(maps.Keys(a.types)) {
		a.writeType(&out, a.types[name])
	}
	return out.String()
}

// words say what a call takes and answers.
func (c call) words(a *api) string {
	take := ""
	switch {
	case c.method == "POST":
		take = "Takes " + link(c.request) + " and answers with "
	case c.query != "":
		take = "With " + c.query + "; answers with "
	default:
		take = "Answers with "
	}
	reply := c.reply
	switch {
	case isType(reply):
		reply = link(reply)
	case reply == "{}":
		reply = "`{}`"
	}
	text := take + reply + "."
	if c.note != "" {
		text += " " + capital(a.plain(c.note)) + "."
	}
	return text
}

func (a *api) writeType(out *strings.Builder, t typeDoc) {
	fmt.Fprintf(out, "\n### %s\n", t.name)
	a.paragraph(out, t.doc)
	out.WriteString("\n")
	if len(t.fields) == 0 && t.kind != "" {
		fmt.Fprintf(out, "A %s.\n", t.kind)
		if len(t.values) > 0 {
			out.WriteString("\n")
		}
	}
	for _, v := range t.values {
		out.WriteString(wrapped(fmt.Sprintf("- `%s`: %s", v.value, a.plain(v.doc)), "  "))
	}
	if len(t.fields) == 0 && t.kind == "" {
		out.WriteString("It has no fields.\n")
	}
	for _, f := range t.fields {
		out.WriteString(wrapped(a.fieldLine(f), "  "))
	}
}

func (a *api) fieldLine(f field) string {
	what := f.kind.before + f.kind.words
	if f.kind.name != "" {
		what += link(f.kind.name)
	}
	if f.name == "" {
		return "- and all fields of " + what
	}
	if f.optional {
		what += ", may be left out"
	}
	line := fmt.Sprintf("- `%s`, %s", f.name, what)
	if f.doc != "" {
		line += " — " + a.plain(ownName.ReplaceAllString(f.doc, ""))
	}
	return line
}

// link leads to a type's heading.
func link(name string) string { return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name)) }

func (a *api) paragraph(out *strings.Builder, text string) {
	for p := range strings.SplitSeq(text, "\n\n") {
		if p != "" {
			out.WriteString("\n" + wrapped(a.plain(p), ""))
		}
	}
}

var (
	codeName = regexp.MustCompile(`\bCode[A-Z]\w+`)
	pathName = regexp.MustCompile(`\bPath[A-Z]\w+`)
	ownName  = regexp.MustCompile(`^[A-Z]\w+: `) // of a field, before what its comment says
)

// plain is a Go comment as a page has it: with numbers for codes, and paths for calls.
func (a *api) plain(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\n\n", " "), "<", "\\<")
	text = pathName.ReplaceAllStringFunc(text, func(name string) string {
		for _, g := range a.groups {
			for _, c := range g.calls {
				if c.constant == name {
					return c.path
				}
			}
		}
		return name
	})
	return codeName.ReplaceAllStringFunc(text, func(name string) string {
		for _, c := range a.codes {
			if c.name == name {
				return "code " + c.value
			}
		}
		return name
	})
}

func capital(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + s[n:]
}

// marks would begin a list or a heading at the begin of a line.
var marks = regexp.MustCompile(`^([-+*>|]|#+|\d+[.)])$`)

// wrapped breaks a line where it gets too long; what follows begins with indent.
func wrapped(text, indent string) string {
	var out strings.Builder
	length := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case length+1+n > width && !marks.MatchString(word):
			out.WriteString("\n" + indent)
			length = utf8.RuneCountInString(indent)
		default:
			out.WriteString(" ")
			length++
		}
		out.WriteString(word)
		length += n
	}
	out.WriteString("\n")
	return out.String()
}
