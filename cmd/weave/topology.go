package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/topology"
)

func (a *app) topology() *cobra.Command {
	var asDOT, asSVG, asJSON bool
	c := &cobra.Command{
		Use:   "topology",
		Short: "Show the hosts, the links between them, and the networks",
		Long: `topology shows the cluster as this host knows it: its own links as they are now,
and those between other hosts as these last told, at most some seconds ago.

As a picture: --svg for a page or a browser, --dot for graphviz.`,
		Example: "  weave status topology --svg > weave.svg",
		Args:    cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			var t ctl.Topology
			if err := a.ask(ctx, ctl.PathTopology, &t); err != nil {
				return err
			}
			switch {
			case asJSON:
				return a.printJSON(t)
			case asDOT:
				_, err := fmt.Fprint(a.out, topology.DOT(t))
				return err
			case asSVG:
				_, err := fmt.Fprint(a.out, topology.SVG(t))
				return err
			}
			a.showTopology(t)
			return nil
		}),
	}
	c.Flags().BoolVar(&asDOT, "dot", false, "print it for graphviz")
	c.Flags().BoolVar(&asSVG, "svg", false, "print it as a picture")
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	c.MarkFlagsMutuallyExclusive("dot", "svg", "json")
	return c
}

// hostColours say at a glance who is missing.
var hostColours = map[string]string{ctl.HostHere: green, ctl.HostUp: green, ctl.HostAway: amber, ctl.HostUnknown: red}

func (a *app) showTopology(t ctl.Topology) {
	rows := [][]string{{"HOST", a.paint.in(plain, "STATE"), "ADDRESS", "ENDPOINTS", "LINKS"}}
	for _, h := range t.Hosts {
		endpoints, _ := topology.Endpoints(t, h.Name)
		address := "-"
		if h.Address.IsValid() {
			address = h.Address.String()
		}
		rows = append(rows, []string{h.Name, a.paint.in(orPlain(hostColours[h.State]), h.State), address, fmt.Sprint(endpoints), linksOf(t, h)})
	}
	table(a.out, rows)
	fmt.Fprintln(a.out)
	rows = [][]string{{"NETWORK", "SUBNETS", "ENDPOINTS"}}
	for _, n := range t.Networks {
		var on []string
		for _, h := range n.Hosts {
			on = append(on, fmt.Sprintf("%s %d", h.Host, h.Endpoints))
		}
		rows = append(rows, []string{n.Name, orDash(join(n.Subnets)), orDash(strings.Join(on, ", "))})
	}
	table(a.out, rows)
}

func orPlain(colour string) string {
	if colour == "" {
		return plain
	}
	return colour
}

// linksOf names a host's links, those of each state together.
func linksOf(t ctl.Topology, h ctl.TopologyHost) string {
	by := map[string][]string{}
	var order []string
	for _, l := range t.Links {
		other := l.B
		switch h.Name {
		case l.A:
		case l.B:
			other = l.A
		default:
			continue
		}
		if by[l.State] == nil {
			order = append(order, l.State)
		}
		by[l.State] = append(by[l.State], other)
	}
	var parts []string
	for _, state := range order {
		parts = append(parts, state+" "+strings.Join(by[state], ", "))
	}
	if h.Silent {
		parts = append(parts, "(does not tell: upgrade it)")
	}
	return orDash(strings.Join(parts, "; "))
}
