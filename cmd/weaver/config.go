package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/weave-cni/weave-cni/pkg/router"
)

// defaultFile is read where it is there; one that is named must be.
const defaultFile = "/etc/weave/weaver.yaml"

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// noKeys are the flags that a configuration file cannot give: they are about the file.
var noKeys = []string{"config", "check-config", "help", "version"}

// source says what gave a flag its value; the higher one wins.
type source int

const (
	byDefault source = iota
	byFile
	byEnvironment
	byCommandLine
)

// origin is where the value of a flag comes from; the zero one is its default.
type origin struct {
	source source
	where  string // "weaver.yaml:7", "WEAVE_MTU"; "" for the others
	line   int    // in the file
}

func (o origin) String() string {
	switch o.source {
	case byDefault:
		return "default"
	case byCommandLine:
		return "command line"
	}
	return o.where
}

// problem is what is wrong with a value, and where that stands.
type problem struct {
	origin
	flag string // "" where it is about no single one
	text string
}

// String begins with the place to mend. A flag in a file has no dashes.
func (p problem) String() string {
	switch p.source {
	case byFile:
		return p.where + ": " + strings.TrimPrefix(p.text, "--")
	case byEnvironment:
		return p.where + ": " + p.text
	}
	return p.text
}

// checked is a configuration that counts, with where its values come from.
type checked struct {
	config  router.Config
	level   slog.Level
	origins map[string]origin // by flag, router.PeersFlag for the PEERs
}

// gatherer collects values, and everything that is wrong with them.
type gatherer struct {
	*flags
	origins  map[string]origin
	peers    []string
	problems []problem
}

// gather takes the flags that were not given from the environment, else from the file,
// and returns all that is wrong with any of them at once: first with the file, line by line.
func (f *flags) gather(args []string, env func(string) (string, bool), read func(string) ([]byte, error)) (checked, error) {
	g := gatherer{flags: f, origins: map[string]origin{}, peers: args}
	f.set.Visit(func(given *pflag.Flag) { g.origins[given.Name] = origin{source: byCommandLine} })
	if len(args) > 0 {
		g.origins[router.PeersFlag] = origin{source: byCommandLine}
	}
	g.environment(env)
	text, err := readConfig(f.file, f.set.Changed("config"), read)
	if err != nil {
		return checked{}, err
	}
	g.takeFile(text)
	c, errs := f.parse(g.peers)
	if f.check {
		errs = append(errs, flatten(c.ValidateHere())...)
	}
	var level slog.Level
	if level.UnmarshalText([]byte(f.logLevel)) != nil {
		errs = append(errs, &router.FlagError{Flag: "log-level", Text: fmt.Sprintf("--log-level %q: want debug, info, warn or error", f.logLevel)})
	}
	g.judge(errs)
	return checked{c, level, g.origins}, g.err()
}

// variable is the environment's name of a flag.
func variable(flag string) string {
	return "WEAVE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func (g *gatherer) environment(env func(string) (string, bool)) {
	g.set.VisitAll(func(f *pflag.Flag) {
		value, ok := env(variable(f.Name))
		if !ok || g.origins[f.Name].source == byCommandLine {
			return
		}
		g.origins[f.Name] = origin{source: byEnvironment, where: variable(f.Name)}
		if err := g.set.Set(f.Name, value); err == nil {
			return
		} else if _, isList := f.Value.(pflag.SliceValue); isList {
			g.wrong(f.Name, err.Error())
		} else {
			g.wrong(f.Name, fmt.Sprintf("--%s %q: want %s", f.Name, value, wanted(f.Value.Type())))
		}
	})
}

// readConfig reads the file; text is nil where there is none and none was named.
func readConfig(path string, named bool, read func(string) ([]byte, error)) (text []byte, err error) {
	if path == "" {
		return nil, nil
	}
	text, err = read(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && !named:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the configuration: %w", err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("read the configuration: %s has more than %d bytes", path, maxFile)
	}
	return text, nil
}

// takeFile takes what stands in the file and was given nowhere else. What was is looked
// at all the same: it would count some day.
func (g *gatherer) takeFile(text []byte) {
	at := func(line int) origin { return origin{byFile, fmt.Sprintf("%s:%d", g.file, line), line} }
	settings, faults := parseConfig(text)
	for _, f := range faults {
		g.problems = append(g.problems, problem{at(f.line), f.key, f.text})
	}
	for _, s := range settings {
		overridden := g.origins[s.key].source != byDefault
		fault := g.checkSetting(s)
		switch {
		case fault != "":
			g.problems = append(g.problems, problem{at(s.line), s.key, fault})
		case overridden:
		case s.key == router.PeersFlag:
			g.peers = s.values
		default:
			_ = assign(g.set, s) // it was taken by another set of the same flags
		}
		if !overridden {
			g.origins[s.key] = at(s.line) // of one that does not exist too: nobody asks for it
		}
	}
}

// checkSetting says what is wrong with a setting by itself, "" for nothing.
func (g *gatherer) checkSetting(s setting) string {
	if s.key == router.PeersFlag {
		if !s.list {
			return wantList(s.key)
		}
		return ""
	}
	if slices.Contains(noKeys, s.key) {
		return fmt.Sprintf("%s: is for the command line only", s.key)
	}
	if g.set.Lookup(s.key) == nil {
		return noSuchKey(s.key, keys(g.set))
	}
	scratch := flags{config: router.Defaults()}
	scratch.register(pflag.NewFlagSet("weaver", pflag.ContinueOnError))
	if err := assign(scratch.set, s); err != nil {
		return err.Error()
	}
	return ""
}

// keys are all that a configuration file may give, sorted.
func keys(s *pflag.FlagSet) []string {
	out := []string{router.PeersFlag}
	s.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(noKeys, f.Name) {
			out = append(out, f.Name)
		}
	})
	slices.Sort(out)
	return out
}

// assign sets the flag of a setting.
func assign(s *pflag.FlagSet, in setting) error {
	f := s.Lookup(in.key)
	list, isList := f.Value.(pflag.SliceValue)
	switch {
	case isList && !in.list:
		return errors.New(wantList(in.key))
	case isList:
		f.Changed = true
		return list.Replace(in.values)
	case in.list:
		return fmt.Errorf("%s: want one value, not a list", in.key)
	case s.Set(in.key, in.values[0]) != nil:
		return fmt.Errorf("%s: %q, want %s", in.key, in.values[0], wanted(f.Value.Type()))
	}
	return nil
}

// wantList shows a list of what the key is about.
func wantList(key string) string {
	like := "host-a, host-b"
	switch key {
	case "dns-upstream":
		like = "192.0.2.1, \"192.0.2.2:53\""
	case "dns-rebind-ok":
		like = "corp.example, example.net"
	}
	return fmt.Sprintf("%s: want a list, such as [%s]", key, like)
}

// wanted is what a flag of a type takes, in words.
func wanted(kind string) string {
	switch kind {
	case "bool":
		return "true or false"
	case "uint16":
		return "a number from 0 to 65535"
	case "int":
		return "a number"
	}
	return "a " + kind
}

// wrong notes what is wrong with a flag's value, where that stands.
func (g *gatherer) wrong(flag, text string) {
	g.problems = append(g.problems, problem{g.origins[flag], flag, text})
}

// judge notes what is wrong with the values that count. A flag whose value could not
// even be read has its default here, and is not accused once more.
func (g *gatherer) judge(errs []error) {
	unread := map[string]bool{}
	for _, p := range g.problems {
		unread[p.flag] = true
	}
	for _, err := range errs {
		var bad *router.FlagError
		if !errors.As(err, &bad) {
			g.problems = append(g.problems, problem{text: err.Error()})
		} else if !unread[bad.Flag] || g.origins[bad.Flag].source == byCommandLine {
			g.wrong(bad.Flag, bad.Text)
		}
	}
}

// err is everything that is wrong, a line each.
func (g *gatherer) err() error {
	slices.SortStableFunc(g.problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.line, b.line), cmp.Compare(a.where, b.where))
	})
	var errs []error
	for _, p := range g.problems {
		errs = append(errs, errors.New(p.String()))
	}
	return errors.Join(errs...)
}

// parse makes the configuration of the flags, and lists what is wrong with it.
func (f *flags) parse(peers []string) (c router.Config, errs []error) {
	c = f.config
	c.Peers, c.DNS, c.Version = peers, !f.noDNS, version
	if f.noLists {
		c.ConflistDir = ""
	}
	bad := func(flag, format string, args ...any) {
		errs = append(errs, &router.FlagError{Flag: flag, Text: fmt.Sprintf("--"+flag+format, args...)})
	}
	if f.advertise != "" {
		a, err := netip.ParseAddr(f.advertise)
		if err != nil {
			bad("advertise", " %q: want an address of this host, such as 192.0.2.1", f.advertise)
		}
		c.Advertise = a.Unmap()
	}
	c.Ranges = nil
	for _, r := range []struct {
		flag, text, like string
		is4              bool
	}{{"range", f.ranges, router.DefaultRange, true}, {"range6", f.range6, "fd77:1::/64", false}} {
		if r.text == "" {
			continue
		}
		p, err := netip.ParsePrefix(r.text)
		switch {
		case err != nil:
			bad(r.flag, " %q: want a prefix like %s", r.text, r.like)
			continue
		case p.Addr().Is4() != r.is4:
			bad(r.flag, ": %s is of the other family, want a prefix like %s", r.text, r.like)
			continue
		}
		c.Ranges = append(c.Ranges, p)
	}
	for _, name := range []string{"range", "range6", "mtu"} {
		if f.set.Changed(name) {
			c.Asked = append(c.Asked, "--"+name)
		}
	}
	return c, append(errs, f.validate(c, errs)...)
}

// validate is what the router finds wrong, without what is known to be wrong already: a
// range that could not be read is missing, and that it is missing is no news.
func (f *flags) validate(c router.Config, known []error) (out []error) {
	unread := func(flag string) bool {
		return slices.ContainsFunc(known, func(k error) bool { return k.(*router.FlagError).Flag == flag })
	}
	for _, err := range flatten(c.Validate()) {
		var bad *router.FlagError
		if errors.As(err, &bad) && (unread(bad.Flag) || bad.Flag == "range" && unread("range6")) {
			continue
		}
		out = append(out, err)
	}
	return out
}

// flatten takes joined errors apart.
func flatten(err error) (out []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok:
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}
