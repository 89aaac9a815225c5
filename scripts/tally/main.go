// Command tally reads what `go test -json` prints and tells it to people: a
// line for each package as it ends, the whole output of each test that failed,
// every skip with its reason. It ends with 1 if a test failed or a package did
// not build, and with -no-skips also if a test was skipped.
//
// With -counts FILE it appends "passed failed skipped" to a file, so that
// several runs can be added up.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// event is one line of test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a package that does not build
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// tally counts tests, a parent and its subtests each, as go test itself does;
// a package counts when it failed without any test of it having failed.
type tally struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[string]*strings.Builder // by package and test, until it ends
	blamed                  map[string]bool             // packages of which a test failed
}

func main() {
	counts := flag.String("counts", "", "append the three numbers to this file")
	noSkips := flag.Bool("no-skips", false, "a skipped test is a failure")
	flag.Parse()
	t := newTally(os.Stdout)
	if err := t.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
	if *counts != "" {
		if err := t.append(*counts); err != nil {
			fmt.Fprintln(os.Stderr, "tally:", err)
			os.Exit(1)
		}
	}
	if t.failed > 0 || *noSkips && t.skipped > 0 {
		os.Exit(1)
	}
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, output: map[string]*strings.Builder{}, blamed: map[string]bool{}}
}

func (t *tally) append(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, t.passed, t.failed, t.skipped)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (t *tally) read(r io.Reader) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				t.take(e)
			} else {
				fmt.Fprintf(t.out, "%s", line) // go itself speaking, not a test
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) take(e event) {
	key := e.Package + e.ImportPath + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if t.output[key] == nil {
			t.output[key] = &strings.Builder{}
		}
		t.output[key].WriteString(e.Output)
	case "build-fail":
		t.say(key)
	case "pass", "fail", "skip":
		t.end(e, key)
		delete(t.output, key)
	}
}

// end counts a test, or tells of a package, that has ended.
func (t *tally) end(e event, key string) {
	switch {
	case e.Test == "" && e.Action == "skip": // has no tests
	case e.Test == "" && e.Action == "pass":
		fmt.Fprintf(t.out, "    ok    %6.1f s  %s\n", e.Elapsed, e.Package)
	case e.Test == "":
		// The tests that failed have been told; what is left is a crash, a leak, or a build.
		t.say(key)
		fmt.Fprintf(t.out, "    FAIL  %6.1f s  %s\n", e.Elapsed, e.Package)
		if !t.blamed[e.Package] {
			t.failed++
		}
	case e.Action == "pass":
		t.passed++
	case e.Action == "fail":
		t.failed++
		t.blamed[e.Package] = true
		t.say(key)
	default:
		t.skipped++
		t.say(key)
	}
}

func (t *tally) say(key string) {
	if o := t.output[key]; o != nil {
		fmt.Fprint(t.out, o.String())
	}
}
