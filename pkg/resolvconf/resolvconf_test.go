package resolvconf

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

var ours = Ours{Servers: []netip.Addr{netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("fd00::1")}, Search: []string{"weave.local"}}

func TestOursStandInFrontAndTheOthersAside(t *testing.T) {
	text := "# by hand\nnameserver 9.9.9.9\nsearch corp example.org\noptions ndots:3 timeout:1\nnameserver 1.1.1.1"
	want := begin + `
nameserver 10.32.0.1
nameserver fd00::1
search weave.local corp example.org
# weavedns end
# by hand
#weavedns# nameserver 9.9.9.9
#weavedns# search corp example.org
options ndots:3 timeout:1
#weavedns# nameserver 1.1.1.1`
	got := Put([]byte(text), ours)
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
	c := Parse(got)
	if !slices.Equal(c.Servers, []string{"10.32.0.1", "fd00::1"}) || !slices.Equal(c.Search, []string{"weave.local", "corp", "example.org"}) || !slices.Equal(c.Options, []string{"ndots:3", "timeout:1"}) {
		t.Errorf("a resolver reads %+v", c)
	}
	if got := Take(got); string(got) != text {
		t.Errorf("taken out:\n%s", got)
	}
}

func TestPutTwiceIsPutOnce(t *testing.T) {
	text := []byte("nameserver 9.9.9.9\n")
	other := Ours{Servers: []netip.Addr{netip.MustParseAddr("10.48.0.1")}, Search: []string{"b"}}
	if got, want := Put(Put(text, other), ours), Put(text, ours); !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTheLastSearchLineCounts(t *testing.T) {
	for text, want := range map[string]string{
		"search a b\ndomain c\n": "c",
		"domain c\nsearch a b\n": "a b",
		"search .\n":             "",
		"domain\n":               "",
		"search a\nsearch\n":     "a",
		"; search x\n":           "",
	} {
		if got := strings.Join(Parse([]byte(text)).Search, " "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestOnlyAFileThatWeMadeSaysSo(t *testing.T) {
	o := ours
	o.Made = true
	if made := Put(nil, o); !Made(made) || len(Take(made)) != 0 {
		t.Errorf("%q", made)
	}
	if Made(Put(nil, ours)) || Made(nil) || Made([]byte("\n"+beginMade)) {
		t.Error("taken for ours")
	}
}

func TestMarksOfOthersHandsAreTakenOut(t *testing.T) {
	for text, want := range map[string]string{
		begin + "\na\n": "a\n", // a block without an end
		asideMark + asideMark + "nameserver 1.1.1.1\n":            "nameserver 1.1.1.1\n",
		asideMark + begin + "\nnameserver ::1\n" + endMark + "\n": "",
		begin + "\nnameserver 1.1.1.1\n" + endMark:                "",
	} {
		if got := string(Take([]byte(text))); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestLinesOfTheUsersBetweenOurMarksStay(t *testing.T) {
	for _, text := range []string{
		"nameserver 9.9.9.9\n# weavedns: note to self\nsearch corp\n# weavedns end\noptions ndots:2\n",
		"# weavedns end\nsearch corp\n",
		begin + " \nsearch corp\n" + endMark,
	} {
		if got := string(Take(Put([]byte(text), ours))); got != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
	const block = begin + "\n%snameserver 10.32.0.1\nnameserver fd00::1\n%ssearch weave.local\n%s" + endMark + "\nsortlist 10.0.0.0\n"
	for _, x := range []struct{ top, middle, end string }{
		{top: "# mine\noptions edns0\n"},
		{end: "nameserver 9.9.9.9\nsearch corp\n"},
		{middle: "# mine\noptions edns0\nnameserver 9.9.9.9\n"},
		{top: "\n", end: "domain corp\n"},
		{top: "nameserver  9.9.9.9\n", end: "options rotate\n"},
	} {
		got := string(Take(fmt.Appendf(nil, block, x.top, x.middle, x.end)))
		if want := x.top + x.middle + x.end + "sortlist 10.0.0.0\n"; got != want {
			t.Errorf("%+v: got %q, want %q", x, got, want)
		}
	}
}

func FuzzPutAndTake(f *testing.F) {
	f.Add([]byte("nameserver 9.9.9.9\nsearch corp\noptions ndots:3"), false)
	f.Add([]byte(begin+"\nnameserver 1.1.1.1\n"+endMark+"\n"+asideMark+"search x\n"), true)
	f.Add([]byte(asideMark+asideMark+begin), false)
	f.Add([]byte("# weavedns: x\nsearch corp\n"+endMark+"\n"+begin+"\noptions x\n"+begin+"\n"+endMark+"\n"+endMark), false)
	f.Add([]byte("search \xff\x00 .\r\ndomain \t\n"), false)
	f.Fuzz(func(t *testing.T, text []byte, made bool) {
		o := ours
		o.Made = made
		before := bytes.Clone(text)
		base := Take(text)
		if again := Take(base); !bytes.Equal(again, base) {
			t.Fatalf("Take of %q: %q, and again %q", text, base, again)
		}
		put := Put(text, o)
		if got := Take(put); !bytes.Equal(got, base) {
			t.Fatalf("%q comes back as %q", base, got)
		}
		if !bytes.Equal(Put(put, o), put) || Made(put) != made {
			t.Fatalf("%q put twice", text)
		}
		c, was := Parse(put), Parse(base)
		if !slices.Equal(c.Servers, []string{"10.32.0.1", "fd00::1"}) || c.Search[0] != "weave.local" || !slices.Equal(c.Options, was.Options) {
			t.Fatalf("of %q a resolver reads %+v", text, c)
		}
		for _, d := range was.Search {
			if !slices.Contains(c.Search, d) {
				t.Fatalf("%q: search %q is lost", text, d)
			}
		}
		if !bytes.Equal(text, before) {
			t.Fatal("the text was changed")
		}
	})
}
