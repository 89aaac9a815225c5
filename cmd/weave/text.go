package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// palette writes words in colour, or leaves them as they are.
type palette bool

// Every colour's code has the same length, and a column is coloured in every
// row or in none: then the codes widen all its cells alike and it stays aligned.
const (
	plain = "39"
	red   = "31"
	green = "32"
	amber = "33"
)

func (p palette) in(colour, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// paletteFor colours a terminal, unless its user does not want it.
func paletteFor(f *os.File, env func(string) string) palette {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && env("NO_COLOR") == "" && env("TERM") != "dumb"
}

// table writes rows in aligned columns, without blanks at the ends of lines.
func table(w io.Writer, rows [][]string) {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	tw.Flush() // into memory: cannot fail
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// count is "1 peer", "3 peers".
func count[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if strings.HasSuffix(thing, "s") {
		return number(uint64(n)) + " " + thing + "es"
	}
	return number(uint64(n)) + " " + thing + "s"
}

// number groups digits by threes: 1 048 576.
func number(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// span is a duration in the two units that matter.
func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// orDash keeps a column that is empty in one row from looking forgotten.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short is an id as people write it.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
