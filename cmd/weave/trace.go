package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// latest is how many calls are listed of all containers.
const latest = 20

func (a *app) trace() *cobra.Command {
	var asJSON bool
	var state string
	var in ctl.TraceRequest
	c := &cobra.Command{
		Use:   "trace [CONTAINER]",
		Short: "Show the calls about a container, with their steps, times and errors",
		Long: `Show what the runtime's plugins asked of this host's router about one container: when,
with what outcome, and how long each step took. CONTAINER is its id or a beginning of
it, a name that it has on a network, or had last, the path of its network namespace or
pid:N, or what weave net plug called it. Without it the latest calls about all
containers are listed.

The router keeps some thousands of calls in memory, from its start on. It sees a
plugin by its calls only: what must have happened between them is said in words.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if in.Last < 0 {
				return errors.New("--last: want a number above 0")
			}
			return does(func(ctx context.Context, args []string) error {
				var t ctl.Trace
				var err error
				if len(args) == 1 {
					t, err = a.tracedOf(ctx, in, args[0], state)
				} else {
					in.Last = cmp.Or(in.Last, latest)
					err = a.tell(ctx, ctl.PathTrace, in, &t)
				}
				switch {
				case err != nil:
					return err
				case asJSON:
					return a.printJSON(t)
				case len(args) == 0:
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
	c.Flags().StringVar(&state, "state-dir", "", "the directory whose plugs has what is plugged (default: the router's)")
	c.Flags().Lookup("state-dir").Hidden = true
	return c
}

// tracedOf asks about the container that a text means: by a namespace, by what the router
// knows it by, or, where it knows none, as it was plugged.
func (a *app) tracedOf(ctx context.Context, in ctl.TraceRequest, text, state string) (t ctl.Trace, err error) {
	if strings.HasPrefix(text, "/") || strings.HasPrefix(text, runtimes.NamePID+":") {
		in.NetNS, err = namespaceOf(ctx, text)
	} else {
		in.Container = text
	}
	if err == nil {
		err = a.tell(ctx, ctl.PathTrace, in, &t)
	}
	var coded *ctl.Error
	if !errors.As(err, &coded) || coded.Code != ctl.CodeUnknownContainer {
		return t, err
	}
	i, is := plugOf(a.plugsOfHost(ctx, state), text)
	if !is {
		return t, err
	}
	err = a.tell(ctx, ctl.PathTrace, ctl.TraceRequest{Container: i.Key.ContainerID, Last: in.Last}, &t)
	return t, err
}

// namespaceOf is the network namespace at a path, or of pid:N.
func namespaceOf(ctx context.Context, text string) (attachment.NSID, error) {
	c, err := (runtimes.Finder{}).Find(ctx, text) // which asks no runtime for these
	if err != nil {
		return attachment.NSID{}, err
	}
	ns, err := netdev.OpenNS(c.NetNS)
	if err != nil {
		return attachment.NSID{}, fmt.Errorf("%s: %w", text, err)
	}
	defer ns.Close()
	return ns.ID(), nil
}

// plugOf is a plug of the one container that a text means, whole.
func plugOf(plugs attach.Intents, text string) (of attach.Intent, is bool) {
	all, _ := plugs.All() // of one that cannot be read the id is still taken
	for _, i := range all {
		whole, _ := i.Means(text)
		switch {
		case !whole:
		case is && i.Key.ContainerID != of.Key.ContainerID:
			return attach.Intent{}, false
		default:
			of, is = i, true
		}
	}
	return of, is
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
