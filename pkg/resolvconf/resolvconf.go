// Package resolvconf puts a network's resolver into the text of a resolv.conf, and takes
// it out again without a trace.
//
// What is put in stands in a block of its own in front. Lines that it takes the place of,
// the other name servers and search domains, stay where they are, behind a mark that
// makes them comments; options are not touched. So the text alone says how it was before:
// Take(Put(text)) is Take(text), whatever the text.
//
// The package is pure: no I/O, no clock, no log.
package resolvconf

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
)

// The marks. Only a whole line is begin, beginMade or endMark.
const (
	begin     = "# weavedns: these lines are its own, and those behind '#weavedns#' come back when the container leaves the network"
	beginMade = "# weavedns: this file is its own, and goes when the container leaves the network"
	endMark   = "# weavedns end"
	asideMark = "#weavedns# "
)

// Conf is what a resolver reads in a text.
type Conf struct {
	Servers []string // as they stand there, in order
	Search  []string // of the last line that says any; none for "."
	Options []string
}

// Parse reads a text as resolvers do: what is no line of theirs is passed over.
func Parse(text []byte) Conf {
	var c Conf
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			c.Servers = append(c.Servers, f[1])
		case "domain":
			c.Search = f[1:2]
		case "search":
			c.Search = f[1:]
		case "options":
			c.Options = append(c.Options, f[1:]...)
		}
	}
	c.Search = slices.DeleteFunc(slices.Clone(c.Search), func(d string) bool { return d == "." })
	return c
}

// maxServers is how many servers of its own one container may have.
const maxServers = 8

// Askable are those of a container's own servers that its host can ask in its place, each
// once. One on a loopback, or of one link, would be another one there.
func Askable(servers []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, s := range servers {
		if s = s.Unmap(); s.IsGlobalUnicast() && s.Zone() == "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out[:min(len(out), maxServers)]
}

// Ours is what is put into a text.
type Ours struct {
	Servers []netip.Addr // the only ones that are asked: some resolvers ask all at once and believe the first
	Search  []string     // before those that stand there
	Made    bool         // the whole file is ours: it was not there before
}

// Put gives the text with ours in front, in the place of what was put in before.
func Put(text []byte, o Ours) []byte {
	text = Take(text)
	search := distinct(append(slices.Clone(o.Search), Parse(text).Search...))
	var out bytes.Buffer
	if o.Made {
		out.WriteString(beginMade + "\n")
	} else {
		out.WriteString(begin + "\n")
	}
	for _, s := range o.Servers {
		out.WriteString("nameserver " + s.String() + "\n")
	}
	if len(search) > 0 {
		out.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	out.WriteString(endMark + "\n")
	for line := range bytes.Lines(text) {
		if replaced(line) {
			out.WriteString(asideMark)
		}
		out.Write(line)
	}
	return out.Bytes()
}

// replaced reports whether a line says what ours say.
func replaced(line []byte) bool {
	f := bytes.Fields(line)
	return len(f) > 0 && slices.Contains([]string{"nameserver", "search", "domain"}, string(f[0]))
}

// Take gives the text as it was before Put. Of a block in which others have written, all
// stays that Put does not write there.
func Take(text []byte) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	for i, l := range lines {
		for bytes.HasPrefix(l, []byte(asideMark)) {
			l = l[len(asideMark):]
		}
		lines[i] = l
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(lines); i++ {
		if !begins(lines[i]) {
			out = append(out, lines[i]...)
			continue
		}
		if end := slices.IndexFunc(lines[i:], ends); end > 0 {
			for _, l := range theirs(lines[i+1 : i+end]) {
				out = append(out, l...)
			}
			i += end
		}
	}
	return out
}

// theirs gives the lines of a block that are not ours. Put writes servers, one below the
// other, and behind them one line of search domains: the first such lines are ours.
func theirs(block [][]byte) [][]byte {
	var out [][]byte
	var server, servers, search bool // seen: one of ours, all of ours, our line of domains
	for _, l := range block {
		switch {
		case ourServer(l) && !servers:
			server = true
		case bytes.HasPrefix(l, []byte("search ")) && !search:
			servers, search = true, true
		case begins(l):
		default:
			servers = servers || server
			out = append(out, l)
		}
	}
	return out
}

// ourServer reports whether a line is as Put writes a server.
func ourServer(line []byte) bool {
	text, ok := strings.CutPrefix(string(bytes.TrimSuffix(line, []byte("\n"))), "nameserver ")
	a, err := netip.ParseAddr(text)
	return ok && err == nil && a.String() == text
}

// Made reports whether a text says that the whole file is ours.
func Made(text []byte) bool {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	return string(first) == beginMade
}

func begins(line []byte) bool { return is(line, begin) || is(line, beginMade) }

func ends(line []byte) bool { return is(line, endMark) }

func is(line []byte, mark string) bool { return string(bytes.TrimSuffix(line, []byte("\n"))) == mark }

func distinct(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
