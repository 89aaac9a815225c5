package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func (a *app) net() *cobra.Command {
	c := &cobra.Command{
		Use:   "net",
		Short: "Make, show and remove networks, plug containers into them",
		Long: `net makes networks, shows them and removes them. A network of driver weave is the
whole cluster's: every host has it within a second, and runtimes see it by the network
list that the router writes for them. One of driver simplebridge is a bridge of the
host on which it was made, and of that host only.

REF names a network: its name, its id, or a beginning of its id that no other has, of
4 digits or more.

What is made or removed is decided by a majority of the cluster's voters; without one
it is refused at once, and everything that is there goes on.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.netCreate(), a.netList(), a.netInspect(), a.netRemove(), a.netLabel())
	c.AddCommand(a.plugCommands()...)
	return c
}

// refs wants one REF at least.
func refs(usage string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("no network is named; want: %s (`weave net list` shows them)", usage)
		}
		return nil
	}
}

// advice is what to do about a network's coded error, beyond what the router says.
func advice(err error, ref string) error {
	var coded *ctl.Error
	if err == nil || !errors.As(err, &coded) {
		return err
	}
	do := ""
	switch coded.Code {
	case ctl.CodeNoMajority:
		do = "who is missing: weave status peers"
	case ctl.CodeInUse:
		do = "all that are on it: weave net inspect " + ref
	default:
		return err
	}
	return exit{exitFailed, fmt.Errorf("%w\n%s", err, do)}
}

func (a *app) netInspect() *cobra.Command {
	const usage = "weave net inspect REF…"
	return &cobra.Command{
		Use:   "inspect REF…",
		Short: "Show all that is known of networks, as JSON",
		Long: `inspect prints a JSON list with an object for each REF: its subnets, labels and state,
its bridge and network list on this host, and its endpoints on all hosts. Of containers
on other hosts it has what these tell.`,
		Args: refs(usage),
		RunE: does(func(ctx context.Context, args []string) error {
			found := []ctl.Net{}
			var errs []error
			for _, ref := range args {
				n, err := a.lookUp(ctx, ref)
				if err != nil {
					errs = append(errs, err)
					if exitCode(err) == exitNoRouter {
						break // nor will it answer for the next
					}
					continue
				}
				found = append(found, n)
			}
			if len(found) == 0 {
				return errors.Join(errs...)
			}
			return errors.Join(append(errs, a.printJSON(found))...)
		}),
	}
}

// lookUp asks for one network.
func (a *app) lookUp(ctx context.Context, ref string) (n ctl.Net, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	err = advice(a.call(ctx, ctl.PathNetInspect, ctl.NetRef{Ref: ref}, &n), ref)
	if n.Endpoints == nil {
		n.Endpoints = []ctl.NetEndpoint{} // a list for who reads the JSON
	}
	return n, err
}

func (a *app) netLabel() *cobra.Command {
	const usage = "weave net label REF KEY=VALUE… KEY-…"
	return &cobra.Command{
		Use:     "label REF KEY=VALUE… KEY-…",
		Short:   "Set labels of a network, and take them away",
		Long:    "label sets labels (KEY=VALUE) and takes them away (KEY-), and prints those that the\nnetwork has then.",
		Example: "  weave net label blue tier=db owner-",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				return fmt.Errorf("no label is given; want: %s", usage)
			}
			return refs(usage)(c, args)
		},
		RunE: does(func(ctx context.Context, args []string) error {
			in, err := labelRequest(args[0], args[1:])
			if err != nil {
				return exit{exitUsage, err}
			}
			var n ctl.Net
			if err := a.tell(ctx, ctl.PathNetLabel, in, &n); err != nil {
				return advice(err, args[0])
			}
			for _, l := range labels(n.Labels) {
				fmt.Fprintln(a.out, l)
			}
			return nil
		}),
	}
}

// labelRequest reads KEY=VALUE and KEY-.
func labelRequest(ref string, args []string) (ctl.NetLabelRequest, error) {
	in := ctl.NetLabelRequest{Ref: ref, Set: map[string]string{}}
	for _, arg := range args {
		key, value, sets := strings.Cut(arg, "=")
		key, drops := strings.CutSuffix(key, "-")
		switch {
		case key == "" || !sets && !drops:
			return in, fmt.Errorf("label %q: want KEY=VALUE, or KEY- to take it away", arg)
		case sets:
			key, _, _ = strings.Cut(arg, "=")
			if _, twice := in.Set[key]; twice {
				return in, fmt.Errorf("label %q is to be set twice: to which of the two?", key)
			}
			in.Set[key] = value
		default:
			in.Drop = append(in.Drop, key)
		}
	}
	for _, key := range in.Drop {
		if _, both := in.Set[key]; both {
			return in, fmt.Errorf("label %q is to be set and taken away: which of the two?", key)
		}
	}
	return in, nil
}

// labels are KEY=VALUE, by key.
func labels(of map[string]string) []string {
	var out []string
	for k, v := range of {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}
