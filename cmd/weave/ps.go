package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
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
			a.showAttachments(s.Name, containers(s))
			return nil
		}),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

// containers are the attachments of containers: not the host's own addresses on
// its bridges, whose keys no container can have. By container, interface and address.
func containers(s ctl.Status) []ctl.Attachment {
	all := slices.DeleteFunc(slices.Clone(s.Attachments), func(t ctl.Attachment) bool { return strings.HasPrefix(t.Key.ContainerID, ".") })
	slices.SortStableFunc(all, func(x, y ctl.Attachment) int {
		return cmp.Or(cmp.Compare(x.Key.ContainerID, y.Key.ContainerID), cmp.Compare(x.Key.IfName, y.Key.IfName),
			slices.CompareFunc(x.Addresses, y.Addresses, netip.Prefix.Compare))
	})
	return all
}

func (a *app) showAttachments(host string, all []ctl.Attachment) {
	rows := [][]string{{"CONTAINER", "NETWORK", "INTERFACE", "ADDRESS", "MAC", "NAMES", "HOST END", "STATE"}}
	for _, t := range all {
		rows = append(rows, []string{
			orDash(short(t.Key.ContainerID)), orDash(t.Key.Network), orDash(t.Key.IfName),
			orDash(join(t.Addresses)), orDash(t.MAC), orDash(strings.Join(t.Names, ",")), orDash(t.Veth), t.State + notOursAlone(host, t),
		})
	}
	table(a.out, rows)
	a.sayLost(all)
}

// notOursAlone marks the addresses of an attachment that another host has, or may have.
func notOursAlone(host string, t ctl.Attachment) string {
	var b strings.Builder
	for _, at := range t.Contested {
		var is []string
		switch at.Owner {
		case "":
		case host:
			is = append(is, "in a block of a former life of this host")
		default:
			is = append(is, "in a block of "+at.Owner)
		}
		if at.UsedBy != "" {
			is = append(is, "in use on "+at.UsedBy+" too")
		}
		fmt.Fprintf(&b, "; %s is %s", at.Address, strings.Join(is, ", "))
	}
	return b.String()
}

// sayLost explains the attachments whose claim files were lost.
func (a *app) sayLost(all []ctl.Attachment) {
	var kernelOnly, nameless int
	for _, t := range all {
		if t.Key.ContainerID == "" {
			kernelOnly++
		}
		if t.NamesLost {
			nameless++
		}
	}
	if kernelOnly == 0 {
		return
	}
	fmt.Fprintf(a.out, "\n%s known from the kernel only: without a container id until DEL and ADD, which nothing here needs\n", count(kernelOnly, "attachment"))
	if nameless > 0 {
		fmt.Fprintf(a.out, "%s of these may have lost names: another host's router that remembers them, or DEL and ADD, gives them back\n", number(uint64(nameless)))
	}
}
