package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attach"
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
Of a host that can still be reached only what its former lives owned is freed: the
blocks of a state directory that it has lost ("former life" in "weave status ipam"),
once no container there has an address of them. Where there is none it is refused:
run "weave reset" there.

When so many hosts are destroyed that the ledger has no majority,
--majority-lost makes this host's copy of the ledger the cluster's. Run it on the
host whose copy is the newest ("weave status ipam" shows the entry); it refuses
when a host that it reaches has a newer one. What only the lost hosts had decided
is forgotten: if one of them lives, two hosts may own one address. Give it once: for
the other lost hosts run rmpeer again, without it.`,
		Example: "  weave rmpeer --destroyed host-b\n\n" +
			"  two of three hosts are lost, host-b and host-c:\n" +
			"  weave rmpeer --destroyed --majority-lost host-b\n" +
			"  weave rmpeer --destroyed host-c",
		Args: oneHost,
		RunE: does(func(ctx context.Context, args []string) error {
			if !destroyed {
				if err := a.knowsHost(ctx, args[0]); err != nil {
					return err
				}
				return exit{exitUsage, fmt.Errorf("rmpeer needs --destroyed: your word that %s will never use its addresses again", args[0])}
			}
			in.Name = args[0]
			var out ctl.Retired
			if err := a.tell(ctx, ctl.PathRetire, in, &out); err != nil {
				return err
			}
			if out.Former {
				fmt.Fprintf(a.out, "%s lives and stays as it is; what its former life owned is in the pool since entry %d of the ledger\n", in.Name, out.Index)
			} else {
				fmt.Fprintf(a.out, "%s is retired: its addresses are in the pool since entry %d of the ledger\n", in.Name, out.Index)
			}
			if out.Forced {
				fmt.Fprintln(a.out, "this host's copy of the ledger is the cluster's now; a lost host that comes back and had more of it, or was retired, joins anew by itself.\n"+
					"Each other host that is lost for good: weave rmpeer --destroyed NAME, now without --majority-lost")
			}
			return nil
		}),
	}
	c.Flags().BoolVar(&destroyed, "destroyed", false, "the host will never use its addresses again")
	c.Flags().BoolVar(&in.MajorityLost, "majority-lost", false, "go on with this host's copy of the ledger")
	return c
}

// knowsHost says that no host is called so, where the router answers: a name that is
// misspelt is told before a word is asked for.
func (a *app) knowsHost(ctx context.Context, name string) error {
	var s ctl.Status
	if a.ask(ctx, ctl.PathStatus, &s) != nil {
		return nil
	}
	known := map[string]bool{}
	for _, p := range s.Peers {
		known[p.Name] = true
	}
	for _, u := range s.IPAM.Subnets {
		for _, h := range u.Hosts {
			known[h.Host] = true
		}
	}
	for _, v := range s.IPAM.Voters {
		known[v] = true
	}
	delete(known, "")
	if known[name] {
		return nil
	}
	return exit{exitFailed, fmt.Errorf("no host %q is known here: there are %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))}
}

// oneHost wants the one name that rmpeer is about.
func oneHost(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return errors.New("rmpeer wants the NAME of the host that is destroyed, as `weave status peers` and `weave status ipam` show it: weave rmpeer --destroyed NAME")
	case 1:
		return nil
	}
	return fmt.Errorf("rmpeer takes one host, and %d are given (%s): run it once for each", len(args), strings.Join(args, " "))
}

func (a *app) reset() *cobra.Command {
	var in ctl.ResetRequest
	c := &cobra.Command{
		Use:   "reset",
		Short: "Leave the cluster and forget it",
		Long: `reset has this host leave its cluster: its addresses go back to the pool, its
bridge and the state of its router are removed, and its router begins anew: it joins
the cluster of the PEERs that it was started with, or founds one when it has none.
With --stop it ends instead, with an exit code by which weaver.service does not
start it again: so a host is taken out of its cluster. In the state directory
what was set aside before (*.old) stays, of no use but to look into. What was plugged
into containers that do not run stays plugged; reset says what that is.

It is refused while containers are attached, and when the cluster cannot decide.
In the second case the host stays, but gives no address until the cluster has
taken back what it had; --abandon forgets the cluster all the same.`,
		Args: cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			if err := a.answers(ctx); err != nil {
				return err // at once, not after the wait for a report
			}
			report := a.reported(ctx)
			if err := a.order(ctx, ctl.PathReset, in, nil); err != nil {
				return err
			}
			says := "its router begins anew, and answers again in some seconds"
			if in.Stop {
				if err := routerEnds(ctx); err != nil {
					return err
				}
				says = "its router ends and does not start again"
			}
			fmt.Fprintln(a.out, "this host has left its cluster; "+says)
			a.sayPlugged(plugsOf(report))
			return nil
		}),
	}
	c.Flags().BoolVar(&in.Stop, "stop", false, "end the router then, do not begin anew")
	c.Flags().BoolVar(&in.Abandon, "abandon", false, "leave although the cluster cannot be told")
	return c
}

// sayPlugged names what reset does not touch: what was plugged into containers that do not
// run now is to come back when they do.
func (a *app) sayPlugged(s attach.Intents) {
	all, err := s.All()
	if err != nil {
		fmt.Fprintf(a.err, "weave: %s: %v\n", s.Dir, err)
	}
	if len(all) == 0 {
		return
	}
	stays := "stay"
	if len(all) == 1 {
		stays = "stays"
	}
	fmt.Fprintf(a.err, "weave: %s %s plugged (%s), and a container with a hook does not start without this program:\n", count(len(all), "endpoint"), stays, s.Dir)
	const most = 20
	for _, i := range all[:min(len(all), most)] {
		fmt.Fprintf(a.err, "  weave net unplug %s %s\n", calledOf(i), short(i.ID))
	}
	if len(all) > most {
		fmt.Fprintf(a.err, "  and %d more\n", len(all)-most)
	}
}

// endsIn bounds the end of a router that has left its cluster.
const endsIn = 10 * time.Second

// routerEnds waits for the end of this network namespace's router: it has files and links
// to remove.
func routerEnds(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endsIn)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", ctl.RouterLock)
		if errors.Is(err, unix.ECONNREFUSED) {
			return nil
		}
		if err == nil {
			conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("this host has left its cluster, and its router has not ended within %v: see its log", endsIn)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
