package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func (a *app) connect() *cobra.Command {
	return &cobra.Command{
		Use:   "connect HOST…",
		Short: "Have the running router dial more hosts",
		Long: `connect names more PEERs to the running router, HOST or HOST:PORT each: it dials
them from now on, and after a restart too, until "weave forget" or "weave reset". So a
host that waits to join a cluster joins one, and two parts of a cluster that have lost
sight of each other find each other.

A host that cannot be looked up, or that is this one, is refused, and then none is
named. Whether somebody answers there "weave status peers" shows.`,
		Example: "  weave connect host-b 192.0.2.12:6783",
		Args:    someHosts,
		RunE: does(func(ctx context.Context, args []string) error {
			var out ctl.PeersReply
			if err := a.tell(ctx, ctl.PathConnect, ctl.PeersRequest{Peers: args}, &out); err != nil {
				return err
			}
			for _, p := range out.Peers {
				switch {
				case p.Unchanged:
					fmt.Fprintf(a.out, "%s was named before\n", p.Peer)
				case p.AtStart:
					fmt.Fprintf(a.out, "%s is dialled again\n", p.Peer)
				default:
					fmt.Fprintf(a.out, "%s is dialled from now on\n", p.Peer)
				}
			}
			return nil
		}),
	}
}

func (a *app) forget() *cobra.Command {
	return &cobra.Command{
		Use:   "forget HOST…",
		Short: "Have the running router dial some hosts no more",
		Long: `forget takes PEERs away from the running router: HOST or HOST:PORT each, as "weave
status peers" shows them. One that "weave connect" named is gone for good; one that the
router was started with comes back at its next start, unless it is taken out of its
flags or its configuration file too.

A connection that stands stays, and the hosts of the cluster are dialled whether they
are PEERs or not: a host is taken out by "weave reset --stop" there.`,
		Example: "  weave forget host-b",
		Args:    someHosts,
		RunE: does(func(ctx context.Context, args []string) error {
			var out ctl.PeersReply
			if err := a.tell(ctx, ctl.PathForgetPeer, ctl.PeersRequest{Peers: args}, &out); err != nil {
				return err
			}
			for _, p := range out.Peers {
				if p.AtStart {
					fmt.Fprintf(a.out, "%s is forgotten until the router's next start: take it out of its PEERs too\n", p.Peer)
				} else {
					fmt.Fprintf(a.out, "%s is forgotten\n", p.Peer)
				}
			}
			return nil
		}),
	}
}

// someHosts wants at least one.
func someHosts(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%s wants at least one HOST or HOST:PORT: weave %s", c.Name(), c.Use)
	}
	return nil
}

// targetsLine is whom the router was told to dial, "" for nobody.
func targetsLine(targets []ctl.Target) string {
	var out []string
	for _, t := range targets {
		switch {
		case t.Forgotten:
			out = append(out, t.Peer+" (forgotten until the next start)")
		case !t.AtStart:
			out = append(out, t.Peer+" (weave connect)")
		default:
			out = append(out, t.Peer)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return "PEERs: " + strings.Join(out, ", ")
}
