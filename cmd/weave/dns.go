package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

func (a *app) dns() *cobra.Command {
	c := &cobra.Command{
		Use:   "dns",
		Short: "Add names by hand, and see what containers are answered",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.dnsAdd(), a.dnsRemove(), a.dnsLookup(), a.dnsTrace())
	return c
}

// addressArgs are the arguments NAME and addresses, of which there are at least so many.
func addressArgs(args []string, least int) (name string, addrs []netip.Addr, err error) {
	if len(args) < 1+least {
		return "", nil, errors.New("want a NAME, and addresses behind it, as in: weave dns add db 192.0.2.7")
	}
	for _, s := range args[1:] {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return "", nil, fmt.Errorf("%q is no address: want NAME ADDRESS…", s)
		}
		addrs = append(addrs, a)
	}
	return args[0], addrs, nil
}

// handCommand is a command that changes a name by hand.
func (a *app) handCommand(c *cobra.Command, path string, least int, said func(ctl.HandName) string) *cobra.Command {
	var in ctl.HandName
	c.Args = func(_ *cobra.Command, args []string) (err error) {
		in.Name, in.Addresses, err = addressArgs(args, least)
		return err
	}
	c.RunE = does(func(ctx context.Context, _ []string) error {
		var out ctl.HandName
		if err := a.tell(ctx, path, in, &out); err != nil {
			return err
		}
		for _, r := range out.Remarks {
			fmt.Fprintln(a.err, "weave: "+r)
		}
		_, err := fmt.Fprintln(a.out, said(out))
		return err
	})
	networkFlag(c, &in.Network)
	return c
}

func networkFlag(c *cobra.Command, network *string) {
	c.Flags().StringVar(network, "network", "", "the network whose containers may ask, by its name or id (default: weave)")
}

func (a *app) dnsAdd() *cobra.Command {
	return a.handCommand(&cobra.Command{
		Use:   "add NAME ADDRESS…",
		Short: "Give addresses, of whomever they are, a name",
		Long: `add gives addresses a name that the containers of a network can ask for on every host:
of a database outside, say. It has all addresses that were added, on any host, beside
those of the containers that are called so.

The name is this host's, like the names of its containers: it is there again when the
router is, also after a restart, and goes with "weave dns remove" here, with its network
and with "weave reset".`,
		Example: "  weave dns add db 192.0.2.7 2001:db8::7\n  weave dns add --network blue db.prod 192.0.2.8",
	}, ctl.PathDNSAdd, 1, func(h ctl.HandName) string {
		return fmt.Sprintf("%s on network %s: %s", h.Name, h.Network, join(h.Addresses))
	})
}

func (a *app) dnsRemove() *cobra.Command {
	return a.handCommand(&cobra.Command{
		Use:     "remove NAME [ADDRESS…]",
		Aliases: []string{"rm"},
		Short:   "Take a name away that was added on this host",
		Long: `remove takes addresses away from a name that "weave dns add" gave them on this host, or
all of them. What else is called so stays.`,
		Example: "  weave dns remove db",
	}, ctl.PathDNSRemove, 0, func(h ctl.HandName) string {
		if len(h.Addresses) == 0 {
			return fmt.Sprintf("%s on network %s: removed", h.Name, h.Network)
		}
		return fmt.Sprintf("%s on network %s: %s", h.Name, h.Network, join(h.Addresses))
	})
}

// oneOf wants exactly one argument, and says which.
func oneOf(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("want %s", what)
		}
		return nil
	}
}

func (a *app) dnsLookup() *cobra.Command {
	var in ctl.LookupRequest
	var asJSON bool
	c := &cobra.Command{
		Use:   "lookup NAME",
		Short: "Ask what a container of a network would be answered",
		Long: `lookup asks this host's name server what it answers a container of a network: a name, or
an address for its names. A name with dots is asked for as it is, so where it is not of
our domain the upstream servers answer; where they have nothing, once more with the
domain behind it, as by a resolver with that search domain. It ends with 1 where there
is no such name, or nothing of that type.`,
		Example: "  weave dns lookup web\n  weave dns lookup --network blue web\n  weave dns lookup _http._tcp.web\n  weave dns lookup 10.32.0.7",
		Args:    oneOf("a NAME, or an address, as in: weave dns lookup web"),
		RunE: does(func(ctx context.Context, args []string) error {
			in.Name = args[0]
			var out ctl.LookupReply
			if err := a.tell(ctx, ctl.PathDNSLookup, in, &out); err != nil {
				return err
			}
			if asJSON {
				if err := a.printJSON(out); err != nil {
					return err
				}
			} else {
				a.showLookup(out)
			}
			if out.Unserved {
				fmt.Fprintln(a.err, "weave: this host serves no names (--no-dns): containers are answered so on the others only")
			}
			if len(out.Records) == 0 {
				return exit{code: exitFailed} // which has been said
			}
			return nil
		}),
	}
	networkFlag(c, &in.Network)
	c.Flags().StringVar(&in.Type, "type", "", "the records' type, as in AAAA, SRV or TXT (default: what fits the name)")
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

func (a *app) showLookup(out ctl.LookupReply) {
	var rows [][]string
	for _, r := range out.Records {
		rows = append(rows, []string{strings.TrimSuffix(r.Name, "."), r.Type, r.Data})
	}
	table(a.out, rows)
	if len(rows) > 0 {
		return
	}
	fmt.Fprintln(a.err, "weave: "+nothingFor(out))
}

// nothingFor says why a lookup has no records.
func nothingFor(out ctl.LookupReply) string {
	switch {
	case out.Source == "none":
		return fmt.Sprintf("network %s is internal: its containers hear of no other names than its own, and %s is none", out.Network, out.Asked)
	case out.Status == "NOERROR":
		return fmt.Sprintf("%s is there and has no record of that type", out.Asked)
	case out.Status == "NXDOMAIN" && out.Source == "weave":
		return fmt.Sprintf("no %s on network %s; `weave status dns` lists the names", out.Asked, out.Network)
	case out.Status == "NXDOMAIN":
		return fmt.Sprintf("no %s, say the upstream servers", out.Asked)
	}
	return fmt.Sprintf("%s: %s; `weave status dns` shows the upstream servers", out.Asked, out.Status)
}

// pollEvery is how often queries are asked for that were noted.
const pollEvery = 300 * time.Millisecond

func (a *app) dnsTrace() *cobra.Command {
	var asJSON bool
	var during time.Duration
	c := &cobra.Command{
		Use:   "trace CONTAINER",
		Short: "Show a container's queries as they come, until it is interrupted",
		Long: `trace shows what a container of this host asks its name server, as it does: when, for
what, with what outcome and how long that took. CONTAINER is its id or a beginning of
it, a name that it has on a network, or the path of its network namespace or pid:N.

Outcomes: answered (ours), nodata (the name is there, the type is not), nxdomain (there
is no such name of ours), forwarded, cached, failed (nobody who was asked had an
answer), and those that "weave report" counts.`,
		Example: "  weave dns trace web",
		Args:    oneOf("a CONTAINER, as in: weave dns trace web"),
		RunE: does(func(ctx context.Context, args []string) error {
			in := ctl.QueriesRequest{Container: args[0]}
			if strings.HasPrefix(args[0], "/") || strings.HasPrefix(args[0], runtimes.NamePID+":") {
				ns, err := namespaceOf(ctx, args[0])
				if err != nil {
					return err
				}
				in.Container, in.NetNS = "", ns
			}
			var over <-chan time.Time
			if during > 0 { // no deadline: a call under way would meet it first, and not tell whether the router answers
				over = time.After(during)
			}
			return a.followQueries(ctx, in, over, asJSON)
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print each as a line of JSON")
	c.Flags().DurationVar(&during, "for", 0, "end after this time, as in 30s (default: when interrupted)")
	return c
}

// followQueries shows queries until ctx ends, or until those have been shown that came
// before time was over.
func (a *app) followQueries(ctx context.Context, in ctl.QueriesRequest, over <-chan time.Time, asJSON bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := false
	for first := true; ; first = false {
		var out ctl.Queries
		if err := a.askAbout(ctx, ctl.PathDNSTrace, in, &out); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if in.After = out.Last; first {
			out.Queries, out.Missed = nil, 0 // of somebody who looked before
			fmt.Fprintf(a.err, "queries of %s, from %s:\n", out.Container, join(out.Addresses))
		}
		if out.Missed > 0 {
			fmt.Fprintf(a.err, "%s more came than are kept\n", number(out.Missed))
		}
		for _, q := range out.Queries {
			if err := a.showQuery(q, asJSON); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-over:
			last = true
		case <-tick.C:
		}
	}
}

// askAbout is ask with a request.
func (a *app) askAbout(ctx context.Context, path string, in, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	return a.call(ctx, path, in, answer)
}

func (a *app) showQuery(q ctl.Query, asJSON bool) (err error) {
	if asJSON {
		return json.NewEncoder(a.out).Encode(q)
	}
	_, err = fmt.Fprintf(a.out, "%s  %-5s %-10s %8s  %s\n", q.At.Local().Format("15:04:05.000"), q.Type, q.Outcome, took(q.Took), visible(q.Name))
	return err
}

// visible is a name without what a terminal would take for its own: a container chose it.
func visible(name string) string {
	if name == "" {
		return "."
	}
	return strings.Trim(fmt.Sprintf("%q", name), `"`)
}
