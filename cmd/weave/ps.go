package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

func (a *app) ps() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ps",
		Short: "Show the container interfaces of this host",
		Args:  cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			var s ctl.Status
			if err := a.ask(ctx, ctl.PathStatus, &s); err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(containers(s))
			}
			a.showAttachments(containers(s))
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

// containers are the attachments of containers: not the host's own addresses on
// its bridges, whose keys no container can have.
func containers(s ctl.Status) []ctl.Attachment {
	return slices.DeleteFunc(slices.Clone(s.Attachments), func(t ctl.Attachment) bool { return strings.HasPrefix(t.Key.ContainerID, ".") })
}

func (a *app) showAttachments(all []ctl.Attachment) {
	rows := [][]string{{"CONTAINER", "NETWORK", "INTERFACE", "ADDRESS", "MAC", "NAMES", "HOST END", "STATE"}}
	for _, t := range all {
		rows = append(rows, []string{
			orDash(short(t.Key.ContainerID)), orDash(t.Key.Network), orDash(t.Key.IfName),
			orDash(join(t.Addresses)), orDash(t.MAC), orDash(strings.Join(t.Names, ",")), t.Veth, t.State,
		})
	}
	table(a.out, rows)
	if n := kernelOnly(all); n > 0 {
		verb := "are"
		if n == 1 {
			verb = "is"
		}
		fmt.Fprintf(a.out, "\n%s %s known from the kernel only: container ids are unknown until DEL and ADD give them back,\n"+
			"names until then or until another host's router comes that remembers them\n", count(n, "attachment"), verb)
	}
}

// kernelOnly counts the attachments whose claim files were lost.
func kernelOnly(all []ctl.Attachment) (n int) {
	for _, t := range all {
		if t.Key.ContainerID == "" {
			n++
		}
	}
	return n
}

func (a *app) report() *cobra.Command {
	return &cobra.Command{
		Use:   "report",
		Short: "Print the state of every part of the router as JSON",
		Args:  cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			var r json.RawMessage
			if err := a.ask(ctx, ctl.PathReport, &r); err != nil {
				return err
			}
			if err := a.printJSON(r); err != nil {
				return fmt.Errorf("report: %w", err)
			}
			return nil
		}),
	}
}
