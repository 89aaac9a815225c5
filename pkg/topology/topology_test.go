package topology

import (
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; write anew with -update):\n%s", file, d)
	}
}

func prefix(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

// six is a cluster in which something of each kind is the matter.
func six() ctl.Topology {
	at := netip.MustParseAddr
	return ctl.Topology{
		Self: "alpha",
		Hosts: []ctl.TopologyHost{
			{Name: "10.9.0.9:6783", Address: at("10.9.0.9"), State: ctl.HostUnknown},
			{Name: "alpha", Address: at("10.9.0.1"), State: ctl.HostHere},
			{Name: "beta", Address: at("10.9.0.2"), State: ctl.HostUp},
			{Name: "delta", Address: at("fd00::4"), State: ctl.HostUp, Silent: true},
			{Name: "gamma", Address: at("10.9.0.3"), State: ctl.HostAway},
			{Name: "zeta", State: ctl.HostUnknown},
		},
		Links: []ctl.TopologyLink{
			{A: "10.9.0.9:6783", B: "alpha", State: "dialling"},
			{A: "alpha", B: "beta", State: "connected"},
			{A: "alpha", B: "delta", State: "relayed"},
			{A: "alpha", B: "gamma", State: "dialling"},
			{A: "alpha", B: "zeta", State: "refused"},
			{A: "beta", B: "delta", State: "connected"},
		},
		Networks: []ctl.TopologyNetwork{
			{Name: "blue", ID: strings.Repeat("ab", 32), Driver: "weave", Subnets: prefix("10.48.0.0/20")},
			{Name: "weave", ID: strings.Repeat("cd", 32), Driver: "weave", Subnets: prefix("10.32.0.0/12"),
				Hosts: []ctl.HostEndpoints{{Host: "alpha", Endpoints: 2}, {Host: "beta", Endpoints: 1}}},
		},
	}
}

func TestThePicturesAreWhatTheyWere(t *testing.T) {
	golden(t, "six.svg", SVG(six()))
	golden(t, "six.dot", DOT(six()))
	one := ctl.Topology{Self: "a", Hosts: []ctl.TopologyHost{{Name: "a", State: ctl.HostHere}}}
	golden(t, "one.svg", SVG(one))
	golden(t, "one.dot", DOT(one))
}

// wellFormed reads all of a document, and gives its elements with their attributes.
func wellFormed(t testing.TB, svg string) (elements []xml.StartElement) {
	t.Helper()
	for dec := xml.NewDecoder(strings.NewReader(svg)); ; {
		tok, err := dec.Token()
		if err == io.EOF {
			return elements
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := tok.(xml.StartElement); ok {
			elements = append(elements, e.Copy())
		}
	}
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func TestEveryHostAndLinkIsInThePictureOnce(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 30, 200} {
		top := ctl.Topology{Self: "h0"}
		for i := range n {
			top.Hosts = append(top.Hosts, ctl.TopologyHost{Name: fmt.Sprint("h", i), State: ctl.HostUp})
			if i > 0 {
				top.Links = append(top.Links, ctl.TopologyLink{A: "h0", B: fmt.Sprint("h", i), State: "connected"})
			}
		}
		boxes, lines, places := 0, 0, map[string]bool{}
		for _, e := range wellFormed(t, SVG(top)) {
			switch {
			case strings.HasPrefix(attr(e, "class"), "box"):
				boxes++
				places[attr(e, "x")+" "+attr(e, "y")] = true
			case e.Name.Local == "line" && attr(e, "class") == "connected":
				lines++
			}
		}
		if boxes != n || lines != n || len(places) != n { // a line more: the legend's
			t.Errorf("%d hosts: %d boxes at %d places, %d lines", n, boxes, len(places), lines)
		}
	}
}

func TestBoxesDoNotCoverEachOther(t *testing.T) {
	for _, n := range []int{2, 3, 4, 5, 8, 13, 40} {
		top := ctl.Topology{}
		for i := range n {
			top.Hosts = append(top.Hosts, ctl.TopologyHost{Name: fmt.Sprintf("a-rather-long-host-name-%d.example", i), State: ctl.HostUp})
		}
		p := layOut(top)
		for i, a := range top.Hosts {
			for _, b := range top.Hosts[i+1:] {
				x, y := p.at[a.Name], p.at[b.Name]
				if abs(x.x-y.x) < p.boxWide && abs(x.y-y.y) < boxHigh {
					t.Errorf("of %d hosts %s and %s cover each other", n, a.Name, b.Name)
				}
			}
			if at := p.at[a.Name]; at.x-p.boxWide/2 < 0 || at.x+p.boxWide/2 > p.wide || at.y-boxHigh/2 < 0 || at.y+boxHigh/2 > p.below {
				t.Errorf("of %d hosts %s is not on the page", n, a.Name)
			}
		}
	}
}

func abs(f float64) float64 { return max(f, -f) }

func TestALinkIsAsTheBetterOfItsEndsSays(t *testing.T) {
	up := map[string]bool{"a": true, "b": true, "gone": false}
	got := Merge(up, map[string][]Told{
		"a":    {{"b", "dialling"}, {"c", "refused"}, {"a", "connected"}, {"d", "nonsense"}},
		"b":    {{"a", "relayed"}, {"c", "connected"}},
		"gone": {{"a", "connected"}, {"b", "connected"}},
	})
	want := []ctl.TopologyLink{
		{A: "a", B: "b", State: "relayed"}, {A: "a", B: "c", State: "refused"}, {A: "a", B: "d", State: "nonsense"}, {A: "b", B: "c", State: "connected"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// hostile is a name that would leave the quotes of DOT and the text of XML.
const hostile = "a\"]; evil -- b [x=\"<script>&\x1b[31m\\\x00\n\xff"

func TestNoNameEndsItsQuotes(t *testing.T) {
	top := ctl.Topology{Self: hostile,
		Hosts:    []ctl.TopologyHost{{Name: hostile, State: hostile}, {Name: "b", State: ctl.HostUp}},
		Links:    []ctl.TopologyLink{{A: hostile, B: "b", State: hostile}},
		Networks: []ctl.TopologyNetwork{{Name: hostile, Hosts: []ctl.HostEndpoints{{Host: hostile, Endpoints: 1}}}}}
	for _, e := range wellFormed(t, SVG(top)) {
		if e.Name.Local == "script" {
			t.Error("a name became an element")
		}
	}
	checkDOT(t, DOT(top))
}

// checkDOT reads what DOT wrote: outside of quotes, labels and comments nothing may
// stand but what this package writes.
func checkDOT(t testing.TB, dot string) {
	t.Helper()
	var outside strings.Builder
	in := false
	for _, line := range strings.Split(dot, "\n") {
		if strings.HasPrefix(line, "  // ") {
			continue
		}
		for i := 0; i < len(line); i++ {
			switch {
			case in && line[i] == '\\':
				i++
			case line[i] == '"':
				in = !in
				outside.WriteByte('"')
			case !in:
				outside.WriteByte(line[i])
			}
		}
		if in {
			t.Fatalf("a quote is open at the end of %q", line)
		}
		outside.WriteByte('\n')
	}
	if strings.ContainsAny(outside.String(), "<>&\x1b\x00\\") || strings.Contains(outside.String(), "evil") {
		t.Errorf("outside of quotes: %q", outside.String())
	}
}

func FuzzNames(f *testing.F) {
	f.Add(hostile, "b", "connected")
	f.Add("", "\\", "\"")
	f.Fuzz(func(t *testing.T, a, b, state string) {
		top := ctl.Topology{Self: a,
			Hosts:    []ctl.TopologyHost{{Name: a, State: state}, {Name: b, State: ctl.HostUp}},
			Links:    Merge(map[string]bool{a: true}, map[string][]Told{a: {{b, state}}}),
			Networks: []ctl.TopologyNetwork{{Name: b, Hosts: []ctl.HostEndpoints{{Host: a, Endpoints: 1}}}}}
		wellFormed(t, SVG(top))
		if !strings.Contains(a+b+state, "evil") {
			checkDOT(t, DOT(top))
		}
	})
}

func TestThePicturesAreTheSameEachTime(t *testing.T) {
	first := SVG(six()) + DOT(six())
	for range 50 {
		if SVG(six())+DOT(six()) != first {
			t.Fatal("another picture of the same cluster")
		}
	}
}

func TestManyNetworksAreCounted(t *testing.T) {
	top := six()
	for i := range 300 {
		top.Networks = append(top.Networks, ctl.TopologyNetwork{Name: fmt.Sprint("net", i)})
	}
	if c := captions(top); len(c) != mostNetworks+1 || !slices.Contains(c, "and 262 networks more") {
		t.Errorf("%d captions, the last %q", len(c), c[len(c)-1])
	}
}
