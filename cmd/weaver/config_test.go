package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/weave-cni/weave-cni/pkg/identity"
	"github.com/weave-cni/weave-cni/pkg/router"
)

func TestAFlagWinsOverTheEnvironmentThatOverTheFileAndThatOverTheDefault(t *testing.T) {
	const file = "name: file\nport: 7001\nmtu: 1401\nmesh-port: 7003\npeers: [file1, file2]\ndns-upstream:\n- 192.0.2.1\n- 192.0.2.2\n"
	env := map[string]string{"WEAVE_PORT": "7002", "WEAVE_MTU": "1402"}
	got, err := gather([]string{"--mtu", "1403"}, env, file)
	if err != nil {
		t.Fatal(err)
	}
	c := got.config
	if c.Name != "file" || c.Port != 7002 || c.MTU != 1403 || c.MeshPort != 7003 || c.VXLANPort != 6784 ||
		!slices.Equal(c.Peers, []string{"file1", "file2"}) || !slices.Equal(c.DNSUpstream, []string{"192.0.2.1", "192.0.2.2"}) {
		t.Errorf("got %+v", c)
	}
	for flag, want := range map[string]string{
		"name": defaultFile + ":1", "port": "WEAVE_PORT", "mtu": "command line", "vxlan-port": "default", "dns-upstream": defaultFile + ":6",
		router.PeersFlag: defaultFile + ":5",
	} {
		if o := got.origins[flag].String(); o != want {
			t.Errorf("%s comes from %q, want %q", flag, o, want)
		}
	}
	if got, err := gather([]string{"argument"}, nil, file); err != nil || !slices.Equal(got.config.Peers, []string{"argument"}) {
		t.Errorf("PEERs %v, %v", got.config.Peers, err)
	}
	if got, err := gather(nil, nil, "mtu: 1400\n"); err != nil || !slices.Equal(got.config.Asked, []string{"--mtu"}) {
		t.Errorf("what the file has of founding is not known as given: %v, %v", got.config.Asked, err)
	}
}

func TestAllThatIsWrongIsToldAtOnceWithItsLine(t *testing.T) {
	const file = `name: ok
mtu: 500
prot: 7000
port: many
no-dns: perhaps
bootstrap: a,b
range: garbage
dns-upstream: [192.0.2.1, one]
log-level: loud
config: /elsewhere
run-dir: run
name: again
vxlan-port:
range6: [fd77:1::/64]
log_level: info
peers: host-b
mesh-port: {a: 1}
`
	_, err := gather([]string{"--state-dir", "state"}, map[string]string{"WEAVE_DNS_DOMAIN": "a b", "WEAVE_FORCE_RANGE": "maybe"}, file)
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	want := []string{
		`weaver.yaml:2: mtu: 500, want 1280 to 65465`,
		`weaver.yaml:3: prot: no such key, did you mean port?`,
		`weaver.yaml:4: port: "many", want a number from 0 to 65535`,
		`weaver.yaml:5: no-dns: "perhaps", want true or false`,
		`weaver.yaml:6: bootstrap: want a list, such as [host-a, host-b]`,
		`weaver.yaml:7: range "garbage": want a prefix like 10.32.0.0/12`,
		`weaver.yaml:8: dns-upstream: "one" is no address`,
		`weaver.yaml:9: log-level "loud": want debug`,
		`weaver.yaml:10: config: is for the command line only`,
		`weaver.yaml:11: run-dir: "run": want an absolute path`,
		`weaver.yaml:12: name: given on line 1 already`,
		`weaver.yaml:13: vxlan-port: has no value`,
		`weaver.yaml:14: range6: want one value, not a list`,
		`weaver.yaml:15: log_level: no such key, did you mean log-level?`,
		`weaver.yaml:16: peers: want a list`,
		`weaver.yaml:17: mesh-port: want one value, or a list of values`,
		`WEAVE_DNS_DOMAIN: --dns-domain: "a b" is no domain name`,
		`WEAVE_FORCE_RANGE: --force-range "maybe": want true or false`,
		`--state-dir: "state": want an absolute path`,
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range max(len(lines), len(want)) {
		switch {
		case i >= len(want):
			t.Errorf("also %q", lines[i])
		case i >= len(lines) || !strings.Contains(lines[i], want[i]):
			t.Errorf("line %d: want %q in\n%v", i+1, want[i], err)
		}
	}
}

// What cannot start is not called well: a look at the configuration looks at what it names, too.
func TestTheCheckReadsTheSecretAndLooksForTheAddress(t *testing.T) {
	dir := t.TempDir()
	good, err := identity.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		secret, advertise string
		want              []string
	}{
		{write("good", good, 0o600), "127.0.0.1", nil},
		{write("wrong", "wrongsecret", 0o600), "127.0.0.1", []string{`weaver.yaml:1: secret-file: read the cluster secret`, `not a secret of "weave secret new"`}},
		{write("open", good, 0o644), "127.0.0.1", []string{"chmod 600"}},
		{filepath.Join(dir, "none"), "198.51.100.99", []string{"none: no such file", "weaver.yaml:2: advertise: no interface of this host has 198.51.100.99"}},
	} {
		file := fmt.Sprintf("secret-file: %s\nadvertise: %s\n", c.secret, c.advertise)
		if _, err := gather(nil, nil, file); err != nil {
			t.Errorf("the start reads it itself: %v", err)
		}
		_, err := gather([]string{"--check-config"}, nil, file)
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v", file, err)
		}
		for _, w := range c.want {
			if err != nil && !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got %v, want %q", file, err, w)
			}
		}
	}
	_, err = gather([]string{"--check-config"}, nil, "secret-file: "+filepath.Join(dir, "wrong")+"\nmtuu: 1\n")
	if err == nil || !strings.Contains(err.Error(), "weaver.yaml:1: ") || !strings.Contains(err.Error(), "weaver.yaml:2: ") {
		t.Errorf("not all at once: %v", err)
	}
}

func TestWhatIsOverriddenIsCheckedAllTheSame(t *testing.T) {
	_, err := gather([]string{"--port", "7000"}, nil, "port: many\n")
	if err == nil || !strings.Contains(err.Error(), defaultFile+":1: port") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTheFileThatNobodyNamedMayBeMissing(t *testing.T) {
	if _, err := gather(nil, nil, ""); err != nil {
		t.Error(err)
	}
	if _, err := gather([]string{"--config", ""}, nil, "mtu: many"); err != nil {
		t.Errorf("a file is read though none is to be: %v", err)
	}
	for _, c := range []struct {
		args []string
		env  map[string]string
	}{{[]string{"--config", "/missing"}, nil}, {nil, map[string]string{"WEAVE_CONFIG": "/missing"}}, {[]string{"--config", defaultFile}, nil}} {
		if _, err := gather(c.args, c.env, ""); err == nil || !strings.Contains(err.Error(), "no such file") && !strings.Contains(err.Error(), "not exist") {
			t.Errorf("%v %v: %v", c.args, c.env, err)
		}
	}
}

func TestWhatIsNoConfigurationIsRefused(t *testing.T) {
	for file, want := range map[string]string{
		"":                             "",
		"# nothing\n":                  "",
		"---\n":                        "",
		"mtu: [":                       "weaver.yaml:1: ",
		"mtu: 1400\n\tport: 1\n":       "weaver.yaml:2: ",
		"mtu: 1400\nport: \t@1\n":      "indent with blanks, not with a tab",
		"bogus: 1\n":                   "bogus: no such key; a key is a flag",
		"dns-upstream: 192.0.2.1\n":    `such as [192.0.2.1, "192.0.2.2:53"]`,
		"dns-rebind-ok: corp\n":        "such as [corp.example, example.net]",
		"dns-rebind-ok: [.corp]\n":     "is no domain name in lower case",
		"mtu: 1400\n---\nmtu: 1400\n":  "a second document",
		"- mtu\n":                      "want lines such as",
		"a: &a [x]\nbootstrap: *a\n":   "anchors and aliases",
		"<<: {mtu: 1400}\n":            "weaver.yaml:1: <<",
		"bootstrap: [a, [b]]\n":        "want one value, or a list",
		"bootstrap: [a, null]\n":       "has no value",
		"name: !!binary aGk=\n":        "tags such as !!binary",
		"[a]: b\n":                     "want the name of a flag",
		"name: \"\"\nrange6: \"\"\n":   "",
		"name: 007\n":                  "",
		"mtu: 1400\nmtu: 1400\n":       "given on line 1",
		strings.Repeat("#\n", maxFile): "more than",
	} {
		got, err := gather(nil, nil, file)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", file, err, want)
		}
		if file == "name: 007\n" && got.config.Name != "007" {
			t.Errorf("name %q", got.config.Name)
		}
	}
}

func TestWhatCountsIsPrintedAsAConfigurationWithItsOrigins(t *testing.T) {
	f := flags{config: router.Defaults()}
	f.register(pflag.NewFlagSet("weaver", pflag.ContinueOnError))
	if err := f.set.Parse([]string{"--name", "null", "host b", "host-c:7000"}); err != nil {
		t.Fatal(err)
	}
	first, err := f.gather(f.set.Args(), func(string) (string, bool) { return "", false }, func(string) ([]byte, error) {
		return []byte("dns-upstream: [\"[2001:db8::1]:53\"]\nmtu: 1400\n"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	printed := first.effective(f.set)
	for _, want := range []string{`name: "null" +# command line`, `mtu: 1400 +# /etc/weave/weaver.yaml:2`, `port: 6783 +# default`, `peers: \["host b", host-c:7000\] +# command line`} {
		if !regexp.MustCompile(want).MatchString(printed) {
			t.Errorf("no %q in\n%s", want, printed)
		}
	}
	second, err := gather(nil, nil, printed)
	first.config.Asked, second.config.Asked = nil, nil
	if err != nil || fmt.Sprintf("%+v", first.config) != fmt.Sprintf("%+v", second.config) { // an empty list is none
		t.Errorf("read again it is %+v, %v, and was %+v", second.config, err, first.config)
	}
}

// flagSet has all flags, at their defaults.
func flagSet() *pflag.FlagSet {
	f := flags{config: router.Defaults()}
	f.register(pflag.NewFlagSet("weaver", pflag.ContinueOnError))
	return f.set
}

func TestEveryFlagHasItsKeyAndEveryKeyItsFlag(t *testing.T) {
	set := flagSet()
	for _, key := range keys(set) {
		if key != router.PeersFlag && set.Lookup(key) == nil {
			t.Errorf("key %s has no flag", key)
		}
	}
	set.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(keys(set), f.Name) == slices.Contains(noKeys, f.Name) {
			t.Errorf("--%s has no key", f.Name)
		}
		value := scalar(f.DefValue)
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = flowList(list.GetSlice())
		}
		if slices.Contains(noKeys, f.Name) {
			return
		}
		if _, err := gather(nil, nil, f.Name+": "+value+"\n"); err != nil {
			t.Errorf("the default of --%s is refused: %v", f.Name, err)
		}
	})
}

func TestTheExampleHasEveryKeyOnceWithItsDefault(t *testing.T) {
	b, err := os.ReadFile("../../docs/weaver.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if settings, faults := parseConfig(b); len(settings)+len(faults) != 0 {
		t.Errorf("as it is it does something: %v %v", settings, faults)
	}
	all := regexp.MustCompile(`(?m)^#([a-z0-9-]+:)`).ReplaceAllString(string(b), "$1")
	settings, faults := parseConfig([]byte(all))
	var have []string
	for _, s := range settings {
		have = append(have, s.key)
	}
	slices.Sort(have)
	if want := keys(flagSet()); len(faults) != 0 || !slices.Equal(have, want) {
		t.Errorf("docs/weaver.yaml has the keys\n%v, and there are\n%v: %v\n(a line is like \"#mtu: 1430\", the default without the # would do the same)", have, want, faults)
	}
	got, err := gather(nil, nil, all)
	want, errDefault := gather(nil, nil, "")
	got.config.Asked = nil
	if err != nil || errDefault != nil || fmt.Sprintf("%+v", got.config) != fmt.Sprintf("%+v", want.config) || got.level != want.level {
		t.Errorf("docs/weaver.yaml says\n%+v, %v, and the defaults are\n%+v, %v", got.config, err, want.config, errDefault)
	}
}

func TestTheNearestKeyIsNamed(t *testing.T) {
	all := keys(flagSet())
	for word, want := range map[string]string{
		"prt": "port", "PORT": "port", "dns_domain": "dns-domain", "peer": "peers", "secret": "secret-file", "vxlanport": "vxlan-port", "loglevel": "log-level",
	} {
		if got := nearest(word, all); got != want {
			t.Errorf("%s: %s, want %s", word, got, want)
		}
	}
}

// FuzzConfig looks that no text makes a panic, and that each fault has a line of the text.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		"mtu: 1400\n", "peers: [a, b]\n", "a: &x [*x]\n", "mtu: [", "---\n---\n", "? [a]\n: b\n", "{mtu: 1, port: 2}", "name: |\n  a\n", "<<: *a\n", "\t", "\xff",
		"bootstrap:\n- a\n-\n", "!!map {a: b}", "%YAML 1.2\n---\n", "mtu: 1400 # x\nmtu: 0x10\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		settings, faults := parseConfig(text)
		lines := strings.Count(strings.NewReplacer("\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(string(text)), "\n") + 1
		if utf16(text) {
			lines = len(text) + 1
		}
		for _, s := range settings {
			if s.line < 1 || s.line > lines || !s.list && len(s.values) != 1 {
				t.Errorf("%+v of %d lines", s, lines)
			}
		}
		for _, w := range faults {
			if w.line < 1 || w.line > lines+1 || w.text == "" {
				t.Errorf("%+v of %d lines", w, lines)
			}
		}
		c, err := gather(nil, nil, string(text))
		if err == nil && c.config.Validate() != nil {
			t.Errorf("taken, and wrong: %v", c.config.Validate())
		}
	})
}

// utf16 reports whether YAML takes a text for UTF-16, whose ends of lines are other bytes.
func utf16(b []byte) bool {
	return len(b) > 1 && (b[0] == 0xff && b[1] == 0xfe || b[0] == 0xfe && b[1] == 0xff)
}
