package topology

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// how the links and hosts of each state look in graphviz.
var (
	dotLinks = map[string]string{
		"connected": `color="#2e9e5b", penwidth=2`, "relayed": `color="#3d7fd6", style=dashed`,
		"refused": `color="#d64545", penwidth=2`, "dialling": `color="#c77d0a", style=dotted`,
	}
	dotHosts = map[string]string{
		ctl.HostHere: ", penwidth=2", ctl.HostUp: "", ctl.HostAway: ", style=dashed", ctl.HostUnknown: ", style=dotted",
	}
)

// DOT is the picture in the language of graphviz.
func DOT(t ctl.Topology) string {
	var b strings.Builder
	b.WriteString("graph weave {\n  layout=circo;\n  node [shape=box, fontname=\"sans-serif\"];\n")
	for _, n := range t.Networks {
		fmt.Fprintf(&b, "  // network %s\n", strings.ReplaceAll(strings.Map(printable, Caption(n)), "\n", " "))
	}
	for _, h := range t.Hosts {
		fmt.Fprintf(&b, "  %s [label=%s%s];\n", quote(h.Name), quote(strings.Join(hostLines(t, h), "\n")), dotHosts[h.State])
	}
	for _, l := range t.Links {
		fmt.Fprintf(&b, "  %s -- %s [%s, tooltip=%s];\n", quote(l.A), quote(l.B), orElse(dotLinks[l.State], "style=dotted"), quote(l.State))
	}
	b.WriteString("}\n")
	return b.String()
}

// hostLines are what stands in a host's box.
func hostLines(t ctl.Topology, h ctl.TopologyHost) []string {
	lines := []string{h.Name}
	if a := h.Address; a.IsValid() && a.String() != h.Name {
		lines = append(lines, a.String())
	}
	switch h.State {
	case ctl.HostAway:
		lines = append(lines, "router away")
	case ctl.HostUnknown:
		lines = append(lines, "not in the cluster")
	}
	endpoints, networks := Endpoints(t, h.Name)
	if endpoints > 0 {
		lines = append(lines, plural(endpoints, "endpoint")+" on "+plural(networks, "network"))
	}
	return lines
}

// quote makes a text an ID of DOT that means itself, also where it is a label: there
// a backslash begins an escape. A line's end becomes the escape for one.
func quote(s string) string {
	s = strings.Map(printable, s)
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// printable drops what is no text; what is sent by peers is in names.
func printable(r rune) rune {
	if r != '\n' && !strconv.IsPrint(r) {
		return -1
	}
	return r
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprint(n, " ", thing, "s")
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
