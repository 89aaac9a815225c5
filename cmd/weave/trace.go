package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// latest is how many calls are listed of all containers.
const latest = 20

func (a *app) trace() *cobra.Command {
	var asJSON bool
	var in ctl.TraceRequest
	c := &cobra.Command{
		Use:   "trace [CONTAINER]",
		Short: "Show the calls about a container, with their steps, times and errors",
		Long: `Show what the runtime's plugins asked of this host's router about one container, by
its id or a beginning of it: when, with what outcome, and how long each step took.
Without CONTAINER the latest calls about all of them are listed.

The router keeps some thousands of calls in memory, from its start on. It sees a
plugin by its calls only: what must have happened between them is said in words.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if in.Last < 0 {
				return errors.New("--last: want a number above 0")
			}
			return does(func(ctx context.Context, args []string) error {
				if len(args) == 1 {
					in.Container = args[0]
				} else if in.Last == 0 {
					in.Last = latest
				}
				var t ctl.Trace
				if err := a.tell(ctx, ctl.PathTrace, in, &t); err != nil {
					return err
				}
				switch {
				case asJSON:
					return a.printJSON(t)
				case in.Container == "":
					a.listCalls(t)
				default:
					a.showCalls(t)
				}
				return nil
			})(c, args)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	c.Flags().IntVar(&in.Last, "last", 0, fmt.Sprintf("only the latest calls, so many; 0: all of one container, %d of all", latest))
	return c
}

// atFormat is when, as people compare it with a runtime's log.
const atFormat = "2006-01-02 15:04:05.000"

// listCalls is a line for each call about whatever container.
func (a *app) listCalls(t ctl.Trace) {
	if len(t.Calls) == 0 {
		fmt.Fprintln(a.out, "no calls about containers since "+t.Since.Format(time.DateTime))
		return
	}
	rows := [][]string{{"AT", "CONTAINER", "NETWORK", "INTERFACE", "CALL", "TOOK", "OUTCOME"}}
	for _, c := range t.Calls {
		outcome := outcomeOf(c)
		if c.Remark != "" {
			outcome += " (" + c.Remark + ")"
		}
		rows = append(rows, []string{c.At.Format(atFormat), orDash(short(c.Key.ContainerID)), orDash(c.Key.Network), orDash(c.Key.IfName), c.Call, took(c.Took), outcome})
	}
	table(a.out, rows)
}

// showCalls is all that is known of one container.
func (a *app) showCalls(t ctl.Trace) {
	if len(t.Calls) > 0 {
		fmt.Fprintln(a.out, "container "+t.Calls[0].Key.ContainerID)
	}
	for _, c := range t.Claims {
		fmt.Fprintf(a.out, "now %s: %s on %s, %s\n", c.State, orDash(c.Key.IfName), orDash(c.Key.Network), orDash(join(c.Addresses)))
	}
	if len(t.Claims) == 0 {
		fmt.Fprintln(a.out, "now without an interface or an address of this host's router")
	}
	for _, c := range t.Calls {
		fmt.Fprintf(a.out, "\n%s  %s %s on %s, %s\n", c.At.Format(atFormat), c.Call, orDash(c.Key.IfName), orDash(c.Key.Network), took(c.Took))
		a.showSteps(c)
	}
	if len(t.Calls) == 0 {
		fmt.Fprintln(a.out, "\nno call about it since "+t.Since.Format(time.DateTime)+": it was attached before that")
	}
}

func (a *app) showSteps(c ctl.TracedCall) {
	colour := green
	if c.Code != 0 {
		colour = red
	}
	for _, s := range c.Steps {
		times := ""
		if s.Times > 1 {
			times = fmt.Sprintf(" (%d times)", s.Times)
		}
		fmt.Fprintf(a.out, "  %10s  %s%s\n", took(s.Took), s.What, times)
	}
	fmt.Fprintln(a.out, "  "+a.paint.in(colour, outcomeOf(c)))
	if c.Remark != "" {
		fmt.Fprintln(a.out, "  "+a.paint.in(amber, c.Remark))
	}
	if c.TraceID != "" {
		fmt.Fprintln(a.out, "  trace "+c.TraceID)
	}
}

func outcomeOf(c ctl.TracedCall) string {
	detail := ""
	if c.Detail != "" {
		detail = ": " + c.Detail
	}
	switch {
	case c.Running:
		return "not ended yet" + detail
	case c.Code != 0:
		return strings.TrimPrefix(detail+": ", ": ") + fmt.Sprintf("code %d: %s", c.Code, c.Error)
	}
	return "done" + detail
}

// took is a duration as one compares it with others: in milliseconds, or in seconds.
func took(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
