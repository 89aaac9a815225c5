package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// netRow is a network as people see it, and as --format has it.
type netRow struct {
	ID, Name, Driver, Scope, Host, Subnets, Labels, Containers string
	Internal, State, VNI, MTU, Bridge, Conflist                string
}

var netHead = netRow{
	ID: "NETWORK ID", Name: "NAME", Driver: "DRIVER", Scope: "SCOPE", Host: "HOST", Subnets: "SUBNETS", Labels: "LABELS", Containers: "CONTAINERS",
	Internal: "INTERNAL", State: "STATE", VNI: "VNI", MTU: "MTU", Bridge: "BRIDGE", Conflist: "CONFLIST",
}

func (a *app) netList() *cobra.Command {
	var noTrunc bool
	var format string
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "Show the networks",
		Long: `list shows every network of the cluster: who has it (SCOPE: all hosts, or the one that
made it), and the containers that are on it, on all hosts.

--format is "json", or a Go template for each network, with .ID .Name .Driver .Scope
.Host .Subnets .Labels .Containers .Internal .State .VNI .MTU .Bridge .Conflist; with
"table " before it, it has a head and columns.`,
		Example: "  weave net list --format '{{.Name}} {{.Subnets}}'\n" +
			"  weave net list --format 'table {{.Name}}\\t{{.Labels}}'",
		Args: cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			var show func([]ctl.Net) error
			switch format {
			case "":
				show = func(nets []ctl.Net) error { a.showNets(nets, noTrunc); return nil }
			case "json":
				show = func(nets []ctl.Net) error { return a.printJSON(nets) }
			default:
				f, err := parseFormat(format)
				if err != nil {
					return exit{exitUsage, err}
				}
				show = func(nets []ctl.Net) error { return f.write(a.out, nets, noTrunc) }
			}
			var l ctl.NetList
			if err := a.ask(ctx, ctl.PathNets, &l); err != nil {
				return err
			}
			return show(append([]ctl.Net{}, l.Networks...))
		}),
	}
	c.Flags().BoolVar(&noTrunc, "no-trunc", false, "show ids and lists of containers in full")
	c.Flags().StringVar(&format, "format", "", `"json", or a Go template`)
	return c
}

func (a *app) showNets(nets []ctl.Net, full bool) {
	line := func(r netRow) []string {
		return []string{r.ID, r.Name, r.Driver, r.Scope, orDash(r.Subnets), orDash(r.Labels), orDash(r.Containers)}
	}
	rows := [][]string{line(netHead)}
	for _, n := range nets {
		rows = append(rows, line(rowOf(n, full)))
	}
	table(a.out, rows)
	for _, n := range nets {
		switch n.State {
		case "starting":
			fmt.Fprintf(a.out, "\n%s is not ready on this host: %s\n", n.Name, n.Waiting)
		case "removing":
			fmt.Fprintf(a.out, "\n%s is being removed: %s\n", n.Name, cmp.Or(n.Waiting, "not all hosts have heard of it"))
		}
	}
}

func rowOf(n ctl.Net, full bool) netRow {
	r := netRow{
		ID: short(n.ID), Name: n.Name, Driver: n.Driver, Scope: "cluster", Host: n.Host,
		Subnets: join(n.Subnets), Labels: strings.Join(labels(n.Labels), ","), Containers: containersOf(n, full),
		Internal: fmt.Sprint(n.Internal), State: n.State, VNI: fmt.Sprint(n.VNI), MTU: fmt.Sprint(n.MTU), Bridge: n.Bridge, Conflist: n.Conflist,
	}
	if full {
		r.ID = n.ID
	}
	if n.Host != "" {
		r.Scope = "host " + n.Host
	}
	if strings.HasPrefix(n.Host, "host-") { // as hosts without a --name are called
		r.Scope = n.Host
	}
	return r
}

// containersOf names a network's containers, the first few of many.
func containersOf(n ctl.Net, full bool) string {
	const most = 3
	var names []string
	seen := map[[2]string]bool{}
	for _, e := range n.Endpoints {
		at := [2]string{e.Host, cmp.Or(e.ContainerID, strings.Join(e.Names, ","))} // of other hosts' containers only the names are known
		if at[1] != "" && seen[at] {
			continue // several endpoints of one
		}
		seen[at] = true
		names = append(names, containerName(e, full))
	}
	if more := len(names) - most; more > 0 && !full {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}

// containerName is the best that is known of the container behind an endpoint: of other
// hosts' often no id.
func containerName(e ctl.NetEndpoint, full bool) string {
	id := e.ContainerID
	if !full {
		id = short(id)
	}
	var names, addr string
	if len(e.Names) > 0 {
		names = e.Names[0]
	}
	if len(e.Addresses) > 0 {
		addr = e.Addresses[0].Addr().String()
	}
	if full && id != "" && names != "" {
		return names + " (" + id + ")"
	}
	return cmp.Or(names, id, addr, e.MAC)
}

// netFormat is a --format.
type netFormat struct {
	line  *template.Template
	table bool
}

// noField is how a template says that there is no such field.
var noField = regexp.MustCompile(`can't evaluate field (\w+)`)

func parseFormat(text string) (netFormat, error) {
	text, asTable := strings.CutPrefix(text, "table ")
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	if !strings.Contains(text, "{{") {
		return netFormat{}, fmt.Errorf("--format %q: want \"json\", or a Go template such as '{{.Name}} {{.Subnets}}'", text)
	}
	t, err := template.New("--format").Parse(text + "\n")
	if err == nil {
		err = t.Execute(io.Discard, netHead)
	}
	if err != nil {
		if m := noField.FindStringSubmatch(err.Error()); m != nil {
			err = fmt.Errorf("--format: a network has no .%s", m[1])
		}
		return netFormat{}, fmt.Errorf("%w\n--format is \"json\", or a Go template with the fields that `weave net list --help` names", err)
	}
	return netFormat{t, asTable}, nil
}

func (f netFormat) write(w io.Writer, nets []ctl.Net, full bool) error {
	var rows []netRow
	if f.table {
		rows = append(rows, netHead)
	}
	for _, n := range nets {
		rows = append(rows, rowOf(n, full))
	}
	var lines [][]string
	for _, r := range rows {
		var b strings.Builder
		if err := f.line.Execute(&b, r); err != nil {
			return err
		}
		if !f.table {
			fmt.Fprint(w, b.String())
			continue
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(b.String(), "\n"), "\t"))
	}
	table(w, lines)
	return nil
}
