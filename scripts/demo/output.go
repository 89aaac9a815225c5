package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// colour is the parameter of an SGR sequence; "" leaves the text as it is.
type colour string

const (
	bold  colour = "1"
	dim   colour = "2"
	red   colour = "31"
	green colour = "32"
)

const (
	indent    = "    "
	columnGap = 3
)

// printer writes for a person: in colours on a terminal, plain otherwise.
type printer struct {
	w        io.Writer
	coloured bool
}

// newPrinter colours a terminal unless its user does not want it.
func newPrinter(f *os.File, env func(string) string) *printer {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &printer{f, err == nil && env("NO_COLOR") == "" && env("TERM") != "dumb"}
}

func (p *printer) in(c colour, text string) string {
	if !p.coloured || c == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// step begins a step.
func (p *printer) step(n int, title string) {
	fmt.Fprintf(p.w, "\n%s\n", p.in(bold, fmt.Sprintf("%2d  %s", n, title)))
}

// line is one of a step's lines.
func (p *printer) line(format string, args ...any) {
	fmt.Fprintln(p.w, indent+fmt.Sprintf(format, args...))
}

// command is what one would type to have the same done.
func (p *printer) command(format string, args ...any) {
	fmt.Fprintln(p.w, indent+p.in(dim, "$ "+fmt.Sprintf(format, args...)))
}

func (p *printer) done(format string, args ...any) {
	fmt.Fprintf(p.w, "\n%s\n", p.in(green, fmt.Sprintf(format, args...)))
}

func (p *printer) failed(format string, args ...any) {
	fmt.Fprintf(p.w, "\n%s\n", p.in(red, fmt.Sprintf(format, args...)))
}

// cell is one field of a table. It may have parts in different colours.
type cell struct {
	parts []part
	right bool // to the right of its column
}

type part struct {
	text string
	colour
}

func text(s string) cell               { return cell{parts: []part{{text: s}}} }
func coloured(s string, c colour) cell { return cell{parts: []part{{s, c}}} }
func number[N int | uint64](n N) cell {
	return cell{parts: []part{{text: grouped(uint64(n))}}, right: true}
}
func toTheRight(s string) cell { return cell{parts: []part{{text: s}}, right: true} }

func (c cell) width() (n int) {
	for _, p := range c.parts {
		n += utf8.RuneCountInString(p.text)
	}
	return n
}

// table writes rows in aligned columns, without blanks at the ends of lines.
func (p *printer) table(rows [][]cell) {
	var widths []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], c.width())
		}
	}
	for _, r := range rows {
		fmt.Fprintln(p.w, indent+p.row(r, widths))
	}
}

func (p *printer) row(cells []cell, widths []int) string {
	var b strings.Builder
	gap := 0 // blanks that are owed before the next text
	for i, c := range cells {
		fill := widths[i] - c.width()
		if c.right {
			gap, fill = gap+fill, 0
		}
		if c.width() > 0 {
			b.WriteString(strings.Repeat(" ", gap))
			gap = 0
			for _, t := range c.parts {
				b.WriteString(p.in(t.colour, t.text))
			}
		}
		gap += fill + columnGap
	}
	return b.String()
}

// grouped is a number with its digits in threes: 15 012.
func grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// header is the first row of a table; a name that begins with ">" stands to the right.
func header(names ...string) (row []cell) {
	for _, n := range names {
		n, right := strings.CutPrefix(n, ">")
		row = append(row, cell{parts: []part{{n, dim}}, right: right})
	}
	return row
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func millis(d time.Duration) string {
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}

// tail is the end of a text, at most so many lines of it.
func tail(s string, lines int) []string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return all[max(0, len(all)-lines):]
}
