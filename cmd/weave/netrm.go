package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// A network that is removed is gone once all hosts have heard of it. goneIn is how long
// that is waited for, goneEvery how often it is looked.
const (
	goneIn    = 3 * time.Second
	goneEvery = 100 * time.Millisecond
)

func (a *app) netRemove() *cobra.Command {
	var force bool
	var h here
	c := &cobra.Command{
		Use:     "rm [--force] REF…",
		Aliases: []string{"remove"},
		Short:   "Remove networks",
		Long: `rm removes networks and prints what it removed. One with containers on it is refused,
unless --force detaches them, on every host. Those that another main plugin attached
with an address of weave-ipam --force does not detach: the network waits for their end.

From then on the network takes no more containers. It is gone once every host has
heard of it: that is waited for, and of hosts that are away it is said.`,
		Args: refs("weave net rm [--force] REF…"),
	}
	c.RunE = does(func(ctx context.Context, args []string) error {
		var errs []error
		for _, ref := range args {
			err := a.removeNet(ctx, c.ErrOrStderr(), &h, h.given(c.Flags()), ctl.NetRemoveRequest{Ref: ref, Force: force})
			errs = append(errs, err)
			if e := (exit{}); errors.As(err, &e) && e.code == exitNoRouter {
				break // nor will it answer for the next
			}
		}
		return errors.Join(errs...)
	})
	c.Flags().BoolVarP(&force, "force", "f", false, "detach the containers that are on it, on every host, but for those of other main plugins")
	h.register(c.Flags(), true)
	return c
}

// decidable asks, while something else is waited for, whether the cluster can decide
// anything now: nobody is to wait for podman, and then hear that there is no majority.
func (a *app) decidable(ctx context.Context, other <-chan struct{}) error {
	select {
	case <-other:
		return nil // nothing to gain: the order itself is answered
	default:
	}
	err := a.ask(ctx, ctl.PathNetChangeable, nil)
	var coded *ctl.Error
	if errors.As(err, &coded) && coded.Code == ctl.CodeNoMajority {
		return err
	}
	return nil // what else there is, and that a router is older than the question, the order tells
}

// removeNet removes one. Those of this host that do not run, and would not start without
// it, are in its way too; with force they are taken off it, once it is decided that it goes.
func (a *app) removeNet(ctx context.Context, stderr io.Writer, h *here, itself bool, in ctl.NetRemoveRequest) error {
	asked, giveUp := context.WithCancel(ctx)
	podmans, over := a.askPodman(asked, h)
	defer func() { giveUp(); <-over }()
	n, err := a.lookUp(ctx, in.Ref)
	if err != nil {
		return err
	}
	if err := a.decidable(ctx, over); err != nil {
		return advice(err, in.Ref)
	}
	idle := a.idlersOf(stderr, h, n, <-podmans)
	if err := idle.refusal(n); err != nil && !in.Force {
		return err
	}
	var out ctl.NetRemoved
	if err := a.tell(ctx, ctl.PathNetRemove, in, &out); err != nil {
		return advice(err, in.Ref)
	}
	if in.Force {
		if err := a.takeOff(ctx, h, itself, idle, n); err != nil {
			fmt.Fprintf(stderr, "weave: not all of this host are off %s: %v\n", n.Name, err)
		}
	}
	waiting := ""
	if len(out.Waiting) > 0 {
		waiting = a.awaitGone(ctx, out)
	}
	fmt.Fprintln(a.out, in.Ref)
	if waiting != "" {
		fmt.Fprintf(stderr, "weave: %s takes no more containers; what it still waits for: %s\n", in.Ref, waiting)
	}
	return nil
}

// awaitGone waits for the end of a network, and returns for what it waited in vain.
func (a *app) awaitGone(ctx context.Context, out ctl.NetRemoved) string {
	ctx, cancel := context.WithTimeout(ctx, goneIn)
	defer cancel()
	waiting := strings.Join(out.Waiting, ", ")
	for {
		var l ctl.NetList
		err := a.ask(ctx, ctl.PathNets, &l)
		i := slices.IndexFunc(l.Networks, func(n ctl.Net) bool { return n.ID == out.ID })
		switch {
		case err == nil && i < 0:
			return ""
		case err == nil:
			waiting = cmp.Or(l.Networks[i].Waiting, waiting)
		}
		select {
		case <-ctx.Done():
			return waiting
		case <-time.After(goneEvery):
		}
	}
}
