package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/doctor"
)

// Bounds of looking over the host, which begin together: with what doctor adds to the second
// one 1.7 s in all, whatever hangs. What the router knows it has to say before the paths to
// other hosts can be tried.
const (
	routerIn = 800 * time.Millisecond
	lookIn   = 1500 * time.Millisecond
)

func (a *app) doctor() *cobra.Command {
	var asJSON bool
	var o doctor.Options
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look over this host for what keeps containers from the network",
		Long: `doctor looks over this host: what each runtime would load, plugins that are
missing or too old, sizes of packets, ports, sysctls, other firewalls, other
managers of links. It works without a router and changes nothing. Each finding is
ok, a warning or a problem, the last two with the command that cures it where one
surely does no harm, else with what there is to decide.

It ends with 1 when there is a problem.`,
		Args: cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			var waiting []doctor.Finding
			var asked sync.WaitGroup
			asked.Go(func() { waiting = a.attachdFinding(ctx) })
			findings := doctor.Judge(a.look(ctx, o))
			asked.Wait()
			findings = append(findings, waiting...)
			if asJSON {
				if err := a.printJSON(findings); err != nil {
					return err
				}
			} else {
				a.showFindings(findings)
			}
			if doctor.Worst(findings) == doctor.Problem {
				return exit{code: exitFailed}
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	c.Flags().StringArrayVar(&o.ConfDirs, "conf-dir", nil, "look at this directory of network lists, not at those of the runtimes found; may be repeated")
	c.Flags().StringArrayVar(&o.PluginDirs, "plugin-dir", nil, "a directory of plugins, not those of the runtimes found; may be repeated, in the runtime's order")
	return c
}

// look gathers what is to be known of the host.
func (a *app) look(ctx context.Context, o doctor.Options) doctor.Snapshot {
	o.Ask = a.routerState
	ctx, cancel := context.WithTimeout(ctx, lookIn)
	defer cancel()
	return doctor.Gather(ctx, o)
}

// routerState asks the router, and says why it does not answer.
func (a *app) routerState(ctx context.Context) doctor.Router {
	ctx, cancel := context.WithTimeout(ctx, routerIn)
	defer cancel()
	var s ctl.Status
	var t ctl.Topology
	var noStatus, noTopology error
	var all sync.WaitGroup
	all.Go(func() { noStatus = a.call(ctx, ctl.PathStatus, nil, &s) })
	all.Go(func() { noTopology = a.call(ctx, ctl.PathTopology, nil, &t) })
	var r doctor.Router
	all.Go(func() { r.PID, _ = ctl.New(a.socket, 0).PID(ctx) })
	all.Wait()
	if noStatus == nil {
		r.Status = &s
	} else {
		r.Why, _, _ = strings.Cut(noStatus.Error(), "\n")
		r.Hangs = strings.Contains(r.Why, hangs)
	}
	if noTopology == nil {
		r.Topology = &t
	}
	return r
}

func (a *app) showFindings(all []doctor.Finding) {
	colours := map[doctor.Level]string{doctor.OK: green, doctor.Warning: amber, doctor.Problem: red}
	counts := map[doctor.Level]int{}
	for _, f := range all {
		counts[f.Level]++
		fmt.Fprintf(a.out, "%s  %s: %s\n", a.paint.in(colours[f.Level], fmt.Sprintf("%-7s", f.Level)), f.Check, f.What)
		if f.Cure != "" {
			fmt.Fprintf(a.out, "         → %s\n", f.Cure)
		}
		if f.Advice != "" {
			fmt.Fprintf(a.out, "         %s\n", f.Advice)
		}
	}
	fmt.Fprintf(a.out, "\n%s, %s\n", count(counts[doctor.Problem], "problem"), count(counts[doctor.Warning], "warning"))
}
