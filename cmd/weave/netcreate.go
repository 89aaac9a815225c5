package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// createFlags are the texts behind a ctl.NetCreateRequest.
type createFlags struct {
	in      ctl.NetCreateRequest
	subnets []string
	labels  []string
}

func (a *app) netCreate() *cobra.Command {
	var f createFlags
	c := &cobra.Command{
		Use:   "create [flags] [NAME]",
		Short: "Make a network, and print its id",
		Long: `create makes a network and prints its id. Without NAME it gets a readable one.

Each network has a subnet of IPv4: a free one, unless a --subnet is one. With --ipv6,
or a --subnet of IPv6, it has IPv6 too; none has IPv6 alone. Each container gets one
address of each family. Of several subnets of one family one is given out from after the
other, or as an address in one is asked for.`,
		Example: "  weave net create blue\n" +
			"  weave net create --subnet 10.60.0.0/16 --label tier=db --internal store",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("net create makes one network, and %d names are given (%s)", len(args), strings.Join(args, " "))
			}
			return nil
		},
	}
	c.RunE = does(func(ctx context.Context, args []string) error {
		in, err := f.parse(args)
		if err != nil {
			return exit{exitUsage, err}
		}
		var n ctl.Net
		if err := a.tell(ctx, ctl.PathNetCreate, in, &n); err != nil {
			return advice(err, in.Name)
		}
		fmt.Fprintln(a.out, n.ID)
		if n.Waiting != "" {
			fmt.Fprintf(c.ErrOrStderr(), "weave: network %s is there, and not ready on this host: %s\n", n.Name, n.Waiting)
		}
		return nil
	})
	c.Flags().StringVar(&f.in.Driver, "driver", ctl.DriverWeave, `"weave": of the whole cluster; "simplebridge": of this host`)
	c.Flags().StringArrayVar(&f.subnets, "subnet", nil, "a subnet, such as 10.60.0.0/16; may be repeated")
	c.Flags().BoolVar(&f.in.IPv6, "ipv6", false, "choose a subnet of IPv6 too")
	c.Flags().BoolVar(&f.in.Internal, "internal", false, "no way out of the network: no default route, and nothing forwarded beyond it")
	c.Flags().StringArrayVar(&f.labels, "label", nil, "a label, KEY=VALUE; may be repeated")
	return c
}

// parse returns everything that is wrong, joined.
func (f *createFlags) parse(args []string) (ctl.NetCreateRequest, error) {
	in := f.in
	var errs []error
	if len(args) > 0 {
		if in.Name = args[0]; in.Name == "" {
			errs = append(errs, errors.New("NAME is empty: leave it out for a network with a name at random"))
		}
	}
	if !slices.Contains([]string{ctl.DriverWeave, ctl.DriverSimpleBridge}, in.Driver) {
		errs = append(errs, fmt.Errorf("--driver %q: want %s or %s", in.Driver, ctl.DriverWeave, ctl.DriverSimpleBridge))
	}
	for _, s := range f.subnets {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("--subnet %q: want a prefix, such as 10.60.0.0/16", s))
		case p != p.Masked():
			errs = append(errs, fmt.Errorf("--subnet %s: has host bits set, did you mean %s?", s, p.Masked()))
		}
		in.Subnets = append(in.Subnets, p)
	}
	for _, l := range f.labels {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			errs = append(errs, fmt.Errorf("--label %q: want KEY=VALUE", l))
			continue
		}
		if in.Labels == nil {
			in.Labels = map[string]string{}
		}
		if _, twice := in.Labels[key]; twice {
			errs = append(errs, fmt.Errorf("--label %s is given twice", key))
		}
		in.Labels[key] = value
	}
	return in, errors.Join(errs...)
}
