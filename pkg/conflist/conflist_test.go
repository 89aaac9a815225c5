package conflist

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

func shipped(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../conflist/*.conflist")
	if err != nil || len(files) < 2 {
		t.Fatalf("shipped lists: %v, %v", files, err)
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t *testing.T, text string) *List {
	t.Helper()
	l, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestShippedListsAreReadByLibcni(t *testing.T) {
	for _, file := range shipped(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			l, err := libcni.NetworkConfFromFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// Below the newest: the plugins chained after ours may be a distribution's old ones.
			if l.CNIVersion != "1.0.0" {
				t.Errorf("a new runtime uses it at %s", l.CNIVersion)
			}
			// Several runtimes share a host's networks, and each would collect the others' containers.
			if !l.DisableGC {
				t.Error("GC is on")
			}
			if want := strings.TrimSuffix(filepath.Base(file)[3:], ".conflist"); l.Name != want {
				t.Errorf("network %q, want %q after the file's name", l.Name, want)
			}
			for _, p := range l.Plugins {
				if len(p.Network.Capabilities) == 0 {
					t.Errorf("plugin %s has no capabilities", p.Network.Type)
				}
			}
		})
	}
}

func TestShippedListsAreWrittenAsTheyWouldBeInstalled(t *testing.T) {
	for _, file := range shipped(t) {
		text := read(t, file)
		if got := parse(t, string(text)).Encode(); string(got) != string(text) {
			t.Errorf("%s: encodes as\n%s", file, got)
		}
	}
}

func TestFitTakesWhatEveryPluginSpeaks(t *testing.T) {
	const old, now = "0.3.1 0.4.0 1.0.0", "0.3.1 0.4.0 1.0.0 1.1.0"
	for _, c := range []struct {
		name, list     string
		a, b, ipam     string
		versions, base string
	}{
		{"all new: the newest is added", `"cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0"]`, now, now, now, "0.4.0 1.0.0 1.1.0", "0.4.0"},
		{"an old chained plugin", `"cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0","1.1.0"]`, now, old, now, "0.4.0 1.0.0", "0.4.0"},
		{"an old IPAM plugin", `"cniVersion":"0.4.0","cniVersions":["1.0.0","0.4.0"]`, now, now, old, "0.4.0 1.0.0", "0.4.0"},
		{"one that dropped the lowest", `"cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0"]`, now, "1.0.0 1.1.0", now, "1.0.0 1.1.0", "1.0.0"},
		{"no cniVersions", `"cniVersion":"1.0.0"`, now, now, now, "1.0.0 1.1.0", "1.0.0"},
		{"no cniVersion", `"cniVersions":["1.0.0"]`, now, old, now, "1.0.0", "1.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := parse(t, `{`+c.list+`,"name":"n","plugins":[{"type":"a","ipam":{"type":"i"}},{"type":"b"}]}`)
			err := l.Fit(Spoken{"a": strings.Fields(c.a), "b": strings.Fields(c.b), "i": strings.Fields(c.ipam)})
			if err != nil {
				t.Fatal(err)
			}
			again := parse(t, string(l.Encode()))
			if got := strings.Join(again.Versions(), " "); got != c.versions {
				t.Errorf("versions %s, want %s", got, c.versions)
			}
			if got := again.text("cniVersion"); got != c.base {
				t.Errorf("cniVersion %s, want %s", got, c.base)
			}
		})
	}
}

func TestFitWithNothingInCommonSaysWhoSpeaksWhat(t *testing.T) {
	l := parse(t, `{"cniVersion":"0.4.0","name":"n","plugins":[{"type":"a"},{"type":"b"}]}`)
	err := l.Fit(Spoken{"a": {"0.4.0"}, "b": {"1.1.0"}})
	if err == nil || !strings.Contains(err.Error(), "a: 0.4.0; b: 1.1.0") {
		t.Errorf("got %v", err)
	}
}

func TestUnknownKeysStayInTheirOrder(t *testing.T) {
	l := parse(t, `{"zebra":[1,2],"name":"n","cniVersion":"1.0.0","apple":{"b":1,"a":2},"plugins":[{"type":"p","x":1}]}`)
	if err := l.SetName("m"); err != nil {
		t.Fatal(err)
	}
	if l.SetName("../m") == nil || l.SetName("") == nil {
		t.Error("a name that no runtime takes was taken")
	}
	if err := l.Fit(Spoken{"p": {"1.0.0", "1.1.0"}}); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(string(l.Encode())), "")
	want := `{"zebra":[1,2],"name":"m","cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"apple":{"b":1,"a":2},"plugins":[{"type":"p","x":1}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestBadListsAreRefused(t *testing.T) {
	for _, text := range []string{
		``, `[]`, `{}`, `{"name":"n"}`, `{"name":"n","plugins":[]}`, `{"name":"n","plugins":[{}]}`, `{"name":"a/b","plugins":[{"type":"p"}]}`, `{"name":3,"plugins":[{"type":"p"}]}`,
		`{"name":"n","plugins":[{"type":"p"}]} x`, `{"name":"n","plugins":[{"type":"p"}]`, `{"name":"n","name":"m","plugins":[{"type":"p"}]}`,
		`{"name":"n","cniVersion":"one","plugins":[{"type":"p"}]}`,
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: want an error", text)
		}
	}
}

func TestVersionsSortByNumber(t *testing.T) {
	got := sortVersions([]string{"1.0.0", "0.10.0", "0.3.1", "1.0.0", "0.9.0"})
	if want := []string{"0.3.1", "0.9.0", "0.10.0", "1.0.0"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"0.4.0","name":"n","plugins":[{"type":"a","ipam":{"type":"i"}}]}`))
	f.Add([]byte(`{"name":"n","plugins":[{"type":"a"}],"cniVersions":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(l.Encode())
		if err != nil || again.Name() != l.Name() || !slices.Equal(again.Plugins(), l.Plugins()) || !slices.Equal(again.Versions(), l.Versions()) {
			t.Errorf("%q encodes as %q: %v", text, l.Encode(), err)
		}
	})
}
