package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func (a *app) rmpeer() *cobra.Command {
	var destroyed bool
	var in ctl.RetireRequest
	c := &cobra.Command{
		Use:   "rmpeer --destroyed NAME",
		Short: "Say that another host is destroyed, and free its addresses",
		Long: `rmpeer --destroyed says that a host will never use its addresses again: it is
broken, wiped or sold. What it owned goes back to the pool, and other hosts give
it to their containers.

Nothing proves that to the cluster: it is your word. If the host lives after all,
its containers keep their addresses until they end, and others may have the same.
A host that can still be reached is refused: run "weave reset" there.

When so many hosts are destroyed that the ledger has no majority,
--majority-lost makes this host's copy of the ledger the cluster's. Run it on the
host whose copy is the newest ("weave status ipam" shows the entry); it refuses
when a host that it reaches has a newer one. What only the lost hosts had decided
is forgotten: if one of them lives, two hosts may own one address.`,
		Example: "  weave rmpeer --destroyed host-b",
		Args:    cobra.ExactArgs(1),
		RunE: does(func(ctx context.Context, args []string) error {
			if !destroyed {
				return exit{exitUsage, fmt.Errorf("rmpeer needs --destroyed: your word that %s will never use its addresses again", args[0])}
			}
			in.Name = args[0]
			var out ctl.Retired
			if err := a.tell(ctx, ctl.PathRetire, in, &out); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is retired: its addresses are in the pool since entry %d of the ledger\n", in.Name, out.Index)
			if out.Forced {
				fmt.Fprintln(a.out, "this host's copy of the ledger is the cluster's now; hosts that were lost and live must not be started again with their state")
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&destroyed, "destroyed", false, "the host will never use its addresses again")
	c.Flags().BoolVar(&in.MajorityLost, "majority-lost", false, "go on with this host's copy of the ledger")
	return c
}

func (a *app) reset() *cobra.Command {
	var in ctl.ResetRequest
	c := &cobra.Command{
		Use:   "reset",
		Short: "Leave the cluster and forget it",
		Long: `reset has this host leave its cluster: its addresses go back to the pool, its
bridge and its state directory are removed, and its router begins anew: it joins
the cluster of the PEERs that it was started with, or founds one when it has none.

It is refused while containers are attached, and when the cluster cannot decide;
--abandon does it all the same in the second case.`,
		Args: cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			if err := a.tell(ctx, ctl.PathReset, in, nil); err != nil {
				return err
			}
			fmt.Fprintln(a.out, "this host has left its cluster; its router begins anew")
			return nil
		}),
	}
	c.Flags().BoolVar(&in.Abandon, "abandon", false, "leave although the cluster cannot be told")
	return c
}
