package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page is one document.
type page struct {
	path   string   // from the top of the tree
	prose  []string // its lines; those of fenced blocks are empty
	blocks []block
	raw    []string
}

// block is what stands between two fences.
type block struct {
	where string // "docs/operating.md:12"
	lang  string // "sh"
	tag   string // what the fence says after the language: "run"
	text  string
}

// pages reads every document.
func pages(t *testing.T) []page {
	t.Helper()
	var out []page
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "plugins/*/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no documents at %s: %v", pattern, err)
		}
		for _, f := range files {
			out = append(out, readPage(t, f))
		}
	}
	return out
}

func readPage(t *testing.T, file string) page {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Rel(top, file)
	if err != nil {
		t.Fatal(err)
	}
	p := page{path: path, raw: strings.Split(string(text), "\n")}
	var open *block
	for i, line := range p.raw {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			lang, tag, _ := strings.Cut(fence, " ")
			open = &block{where: fmt.Sprintf("%s:%d", path, i+1), lang: lang, tag: strings.TrimSpace(tag)}
		case isFence:
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		default:
			p.prose = append(p.prose, line)
			continue
		}
		p.prose = append(p.prose, "")
	}
	if open != nil {
		t.Fatalf("%s: the block is not closed", open.where)
	}
	return p
}

// find gives the page of that path.
func find(t *testing.T, path string) page {
	t.Helper()
	return readPage(t, filepath.Join(top, path))
}

// table gives the rows, without the head, of the first table below a heading.
func (p page) table(t *testing.T, heading string) [][]string {
	t.Helper()
	var rows [][]string
	below := false
	for _, line := range p.prose {
		switch {
		case strings.HasPrefix(line, "#"):
			below = strings.TrimLeft(line, "# ") == heading
		case below && strings.HasPrefix(line, "|"):
			rows = append(rows, cells(line))
			continue
		}
		if len(rows) > 0 {
			break
		}
	}
	if len(rows) < 3 {
		t.Fatalf("%s: no table below %q", p.path, heading)
	}
	return rows[2:]
}

// tableOf gives the rows, without the head, of the table whose first column has that head.
func (p page) tableOf(t *testing.T, head string) [][]string {
	t.Helper()
	var rows [][]string
	for _, line := range p.prose {
		switch isRow := strings.HasPrefix(line, "|"); {
		case isRow && (len(rows) > 0 || cells(line)[0] == head):
			rows = append(rows, cells(line))
		case !isRow && len(rows) > 0:
			return rows[2:]
		}
	}
	t.Fatalf("%s: no table with the head %q", p.path, head)
	return nil
}

// cells splits a row; `\|` is a bar inside a cell.
func cells(row string) []string {
	const bar = "\x00"
	row = strings.ReplaceAll(strings.Trim(strings.TrimSpace(row), "|"), `\|`, bar)
	var out []string
	for c := range strings.SplitSeq(row, "|") {
		out = append(out, strings.TrimSpace(strings.ReplaceAll(c, bar, "|")))
	}
	return out
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// code lists what stands between backquotes.
func code(text string) []string {
	var out []string
	for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}
