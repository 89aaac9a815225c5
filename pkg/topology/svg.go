package topology

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Measures of the picture, in its own units.
const (
	boxHigh    = 76.0
	lineHigh   = 17.0
	letterWide = 7.4
	margin     = 28.0
	legendHigh = 34.0
	narrowest  = 560.0

	mostNetworks = 40 // that are listed; more are counted
)

const style = `
  .page { fill: #ffffff } .box { fill: #f3f6fa; stroke: #7b8794; stroke-width: 1.2 }
  .here { stroke: #1f5fbf; stroke-width: 2.4 } .away { stroke-dasharray: 6 4 } .unknown { stroke-dasharray: 2 3 }
  text { font: 13px system-ui, sans-serif; fill: #1f2933 } .name { font-weight: 600 } .dim { fill: #5a6673; font-size: 12px }
  line { fill: none; stroke: #7b8794 } .connected { stroke: #2e9e5b; stroke-width: 2.4 }
  .relayed { stroke: #3d7fd6; stroke-width: 1.6; stroke-dasharray: 7 5 }
  .refused { stroke: #d64545; stroke-width: 2.4 } .dialling { stroke: #c77d0a; stroke-width: 1.8; stroke-dasharray: 2 4 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #12161c } .box { fill: #1d242d; stroke: #8b98a5 } .here { stroke: #6aa5ff }
    text { fill: #e4e9ef } .dim { fill: #a3afbb }
  }
`

// SVG is the picture for people: the hosts on a circle, the links between them coloured
// by state, and the networks below. It needs no font and no other file, and is as
// readable on a dark page as on a light one.
func SVG(t ctl.Topology) string {
	p := layOut(t)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%s" height="%s" role="img" aria-label="%s">`+"\n",
		num(p.wide), num(p.high), num(p.wide), num(p.high), text(fmt.Sprintf("%s and %s of a weave cluster", plural(len(t.Hosts), "host"), plural(len(t.Networks), "network"))))
	fmt.Fprintf(&b, "<style>%s</style>\n<rect class=\"page\" width=\"100%%\" height=\"100%%\"/>\n", style)
	p.links(&b, t)
	p.hosts(&b, t)
	p.legend(&b)
	p.networks(&b, t)
	b.WriteString("</svg>\n")
	return b.String()
}

type point struct{ x, y float64 }

// plan is where everything goes.
type plan struct {
	wide, high float64
	boxWide    float64
	below      float64 // the top of the legend
	at         map[string]point
	captions   []string
}

// layOut puts the hosts on a circle that is wide enough for their boxes, the first one
// at the top (of two: on the left).
func layOut(t ctl.Topology) plan {
	p := plan{boxWide: 120, at: map[string]point{}, captions: captions(t)}
	for _, h := range t.Hosts {
		for _, l := range hostLines(t, h) {
			p.boxWide = max(p.boxWide, wide(l)+24)
		}
	}
	n := float64(len(t.Hosts))
	var rx, ry float64
	if n > 1 {
		around := math.Hypot(p.boxWide+36, boxHigh+36) * n / (2 * math.Pi)
		rx, ry = max(around, p.boxWide*0.85+40), max(around, 110)
	}
	start := -math.Pi / 2
	if len(t.Hosts) == 2 {
		start, ry = -math.Pi, 0
	}
	p.wide = max(narrowest, 2*(rx+margin)+p.boxWide)
	for _, c := range p.captions {
		p.wide = max(p.wide, wide(c)+2*margin)
	}
	centre := point{p.wide / 2, margin + boxHigh/2 + ry}
	for i, h := range t.Hosts {
		angle := start + 2*math.Pi*float64(i)/n
		p.at[h.Name] = point{centre.x + rx*math.Cos(angle), centre.y + ry*math.Sin(angle)}
	}
	p.below = centre.y + ry + boxHigh/2 + margin
	p.high = p.below + legendHigh + float64(len(p.captions))*(lineHigh+5) + margin
	return p
}

func captions(t ctl.Topology) (out []string) {
	for i, n := range t.Networks {
		if i == mostNetworks {
			return append(out, fmt.Sprintf("and %s more", plural(len(t.Networks)-i, "network")))
		}
		out = append(out, clip(Caption(n)))
	}
	return out
}

// clip keeps one line of a network on many hosts from making the picture endless.
func clip(s string) string {
	const most = 160
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

func (p plan) links(b *strings.Builder, t ctl.Topology) {
	for _, l := range t.Links {
		from, ok := p.at[l.A]
		to, ok2 := p.at[l.B]
		if !ok || !ok2 {
			continue
		}
		fmt.Fprintf(b, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"><title>%s</title></line>`+"\n",
			class(l.State), num(from.x), num(from.y), num(to.x), num(to.y), text(l.A+" – "+l.B+": "+l.State))
	}
}

func (p plan) hosts(b *strings.Builder, t ctl.Topology) {
	for _, h := range t.Hosts {
		at, lines := p.at[h.Name], hostLines(t, h)
		fmt.Fprintf(b, `<g><rect class="box %s" x="%s" y="%s" width="%s" height="%s" rx="9"/>`+"\n",
			class(h.State), num(at.x-p.boxWide/2), num(at.y-boxHigh/2), num(p.boxWide), num(boxHigh))
		top := at.y - float64(len(lines)-1)*lineHigh/2 + 5
		for i, line := range lines {
			look := "dim"
			if i == 0 {
				look = "name"
			}
			fmt.Fprintf(b, `<text class="%s" text-anchor="middle" x="%s" y="%s">%s</text>`+"\n", look, num(at.x), num(top+float64(i)*lineHigh), text(line))
		}
		b.WriteString("</g>\n")
	}
}

func (p plan) legend(b *strings.Builder) {
	const each = 118.0
	x, y := (p.wide-each*float64(len(states)))/2, p.below+8
	for i, s := range states {
		left := x + each*float64(i)
		fmt.Fprintf(b, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/><text class="dim" x="%s" y="%s">%s</text>`+"\n",
			s, num(left), num(y), num(left+30), num(y), num(left+37), num(y+4), s)
	}
}

func (p plan) networks(b *strings.Builder, _ ctl.Topology) {
	for i, c := range p.captions {
		fmt.Fprintf(b, `<text x="%s" y="%s">%s</text>`+"\n", num(margin), num(p.below+legendHigh+float64(i)*(lineHigh+5)+12), text(c))
	}
}

// class makes a state a name of a style, whatever it is.
func class(state string) string {
	for _, s := range append(states, ctl.HostHere, ctl.HostUp, ctl.HostAway, ctl.HostUnknown) {
		if s == state {
			return s
		}
	}
	return "unknown"
}

func wide(s string) float64 { return float64(utf8.RuneCountInString(s)) * letterWide }

// num writes a measure with one digit behind the point, at most.
func num(f float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0")
}

// text is s as XML has it; what XML cannot have is replaced.
func text(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder takes everything
	return b.String()
}
