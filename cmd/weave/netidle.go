package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// idlers are those of this host that will want a network at their next start, of which
// the router knows nothing while they do not run: what is plugged, and podman's containers.
type idlers struct {
	plugs  []attach.Intent
	podman []runtimes.Container
}

// podmans are the containers that podman has, or why that is not known.
type podmans struct {
	list []runtimes.Container
	err  error
}

// askPodman asks for its containers: no process where it was never here, or surely has none.
// over is closed when the question has ended, with its answer to be had.
func (a *app) askPodman(ctx context.Context, h *here) (answer <-chan podmans, over <-chan struct{}) {
	said, done := make(chan podmans, 1), make(chan struct{})
	p := runtimes.Podman{}
	if !p.Looked(h.conflists) || p.Empty() {
		said <- podmans{}
		close(done)
		return said, done
	}
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(ctx, runtimes.Patience)
		defer cancel()
		list, err := p.List(ctx)
		said <- podmans{list, err}
	}()
	return said, done
}

// idlersOf finds them. A podman that has not answered in time is told on stderr.
func (a *app) idlersOf(stderr io.Writer, h *here, n ctl.Net, has podmans) (out idlers) {
	all, err := h.intents().All()
	if err != nil {
		fmt.Fprintf(stderr, "weave: what is plugged is not known whole: %v\n", err)
	}
	for _, i := range all {
		if i.Network() == n.Name && (i.Net.ID == "" || i.Net.ID == n.ID) {
			out.plugs = append(out.plugs, i)
		}
	}
	if has.err != nil && !errors.Is(has.err, runtimes.ErrAbsent) {
		fmt.Fprintf(stderr, "weave: whether podman has containers on %s is not known: %v\n", n.Name, has.err)
	}
	for _, c := range has.list {
		plugged := slices.ContainsFunc(out.plugs, func(i attach.Intent) bool { return i.Road == attach.ByRuntime && i.Container.ID == c.ID })
		if slices.Contains(c.Networks, n.Name) && !plugged {
			out.podman = append(out.podman, c)
		}
	}
	return out
}

// refusal names those that do not run, with what takes each away; nil when there are none.
// Of those that run the router knows.
func (l idlers) refusal(n ctl.Net) error {
	var who, do []string
	for _, i := range l.plugs {
		if slices.ContainsFunc(n.Endpoints, func(e ctl.NetEndpoint) bool { return e.ID == i.ID }) {
			continue
		}
		if is := fmt.Sprintf("%s, which is plugged and does not run", named(calledOf(i), i.Container.ID)); !slices.Contains(who, is) {
			who = append(who, is)
		}
		do = append(do, fmt.Sprintf("weave net unplug %s %s", calledOf(i), short(i.ID)))
	}
	for _, c := range l.podman {
		if c.State != runtimes.Running {
			name := cmp.Or(c.Name(), short(c.ID))
			who = append(who, fmt.Sprintf("podman's container %s, which is %s", named(name, c.ID), c.State))
			do = append(do, fmt.Sprintf("podman network disconnect %s %s", n.Name, name))
		}
	}
	if len(who) == 0 {
		return nil
	}
	return exit{exitFailed, fmt.Errorf("network %s is in use on this host: %s\nwithout it they cannot start; take them off it: %s\nor all of this host at once: weave net rm --force %s",
		n.Name, strings.Join(who, "; "), strings.Join(do, "; "), n.Name)}
}

// named is a container's name with what ps shows of its id, where that says more.
func named(name, id string) string {
	if strings.Contains(name, short(id)) {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, short(id))
}

// calledOf is what a person calls the container of a plug, and unplug takes.
func calledOf(i attach.Intent) string {
	c := i.Container
	switch {
	case c.Name != "":
		return c.Name
	case c.Runtime == runtimes.NamePath:
		return c.ID
	case c.Runtime == runtimes.NamePID:
		return c.Runtime + ":" + c.ID
	case c.Namespace != "":
		return c.Namespace + "/" + c.ID
	}
	return short(c.ID)
}

// takeOff ends what they have on the network, which is being removed: with its list gone
// podman would not start them.
func (a *app) takeOff(ctx context.Context, h *here, itself bool, l idlers, n ctl.Net) error {
	var errs []error
	for _, i := range l.plugs {
		err := a.doUnplug(ctx, h, itself, ctl.DetachRequest{EndpointID: i.ID})
		var coded *ctl.Error
		if errors.As(err, &coded) && coded.Code == ctl.CodeUnknownContainer {
			err = nil // gone meanwhile
		}
		errs = append(errs, err)
	}
	for _, c := range l.podman {
		errs = append(errs, runtimes.Podman{}.Disconnect(ctx, c, n.Name))
	}
	return errors.Join(errs...)
}
