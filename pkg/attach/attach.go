// Package attach gives containers endpoints beside those that their runtime
// gives them: `weave net plug`. It finds the container, does what the runtime
// would do (ADD and DEL, by libcni and the plugins), or has the runtime do it,
// and keeps the intent, so that the endpoint comes back with the container.
//
// Order: the intent is written before anything is made and removed after all is
// gone, so that whatever happens between can be finished or taken back. All
// changes of one container's endpoints are made under one lock, also between
// processes: attachd, weave and the hooks that runtimes run.
package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// Bounds. Together they stay below what a caller of the local API waits for an answer.
const (
	addIn = 18 * time.Second
	delIn = 8 * time.Second
)

// Finder finds containers: runtimes.Finder.
type Finder interface {
	Find(ctx context.Context, text string) (runtimes.Container, error)
	Again(ctx context.Context, c runtimes.Container) (runtimes.Container, error)
}

// Connector is a runtime that attaches its containers itself, told at any time: runtimes.Podman.
type Connector interface {
	Knows(ctx context.Context, network string) bool
	Connect(ctx context.Context, c runtimes.Container, network string, w runtimes.Wish) error
	Disconnect(ctx context.Context, c runtimes.Container, network string) error
	Joined(ctx context.Context, c runtimes.Container, network string) (runtimes.Joined, error)
}

// Hooker is a runtime that runs a program of ours when it starts a container: runtimes.Containerd.
type Hooker interface {
	AddHook(ctx context.Context, c runtimes.Container, h runtimes.Hook) error
	DropHook(ctx context.Context, c runtimes.Container, last string) error
}

// Router answers about networks: ctl.Client. It may be away.
type Router interface {
	Call(ctx context.Context, path string, in, out any) error
}

// Attacher does the work. Its methods may be called from several goroutines.
type Attacher struct {
	CNI     CNI
	Intents Intents
	Finder  Finder
	Podman  Connector
	Hooks   Hooker
	Router  Router
	Hook    []string // the command that a hook is, to which the endpoint's id is added; absolute
	Log     *slog.Logger
}

// Plug gives a container an endpoint. A container that does not run gets it when
// it starts, before its first process; the answer has no address then.
func (a *Attacher) Plug(ctx context.Context, req ctl.AttachRequest) (ctl.Attached, error) {
	c, err := a.container(ctx, req)
	if err != nil {
		return ctl.Attached{}, err
	}
	if c.HostNet {
		return ctl.Attached{}, ctl.Errorf(ctl.CodeInvalidConfig, "container %s uses the host's network and has no interfaces of its own", c)
	}
	network, wish, err := a.wish(ctx, req, c)
	if err != nil {
		return ctl.Attached{}, err
	}
	if _, err := a.CNI.list(network); err != nil {
		return ctl.Attached{}, err
	}
	unlock, err := a.Intents.lock(ctx.Done(), c.CNI)
	if err != nil {
		return ctl.Attached{}, ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	defer unlock()
	i, err := a.plan(ctx, c, network, req.IfName, wish)
	if err != nil {
		return ctl.Attached{}, err
	}
	if err := i.Key.Validate(); err != nil {
		return ctl.Attached{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	if err := a.Intents.Put(i); err != nil {
		return ctl.Attached{}, err
	}
	out, err := a.make(ctx, c, i)
	if err != nil {
		return ctl.Attached{}, errors.Join(err, a.Intents.Drop(i.ID))
	}
	a.Log.Info("endpoint plugged", "endpoint", i.ID, "container", c.String(), "network", network, "interface", i.Key.IfName, "by", i.Road)
	return out, nil
}

// container finds the one that a request means. With a namespace given it is not
// looked for: then the id is the caller's own.
func (a *Attacher) container(ctx context.Context, req ctl.AttachRequest) (runtimes.Container, error) {
	if req.NetNS == "" {
		if req.ContainerID == "" {
			return runtimes.Container{}, ctl.Errorf(ctl.CodeInvalidConfig, "which container? ContainerID is empty")
		}
		return a.Finder.Find(ctx, req.ContainerID)
	}
	if !strings.HasPrefix(req.NetNS, "/") {
		return runtimes.Container{}, ctl.Errorf(ctl.CodeInvalidConfig, "NetNS %q: want the path of a network namespace", req.NetNS)
	}
	c, err := a.Finder.Find(ctx, req.NetNS)
	if err == nil && req.ContainerID != "" {
		c.CNI = req.ContainerID
	}
	return c, err
}

// make does what the intent says, now or at the container's start.
func (a *Attacher) make(ctx context.Context, c runtimes.Container, i Intent) (ctl.Attached, error) {
	switch {
	case i.Road == ByRuntime:
		return a.connect(ctx, c, i)
	case c.State != runtimes.Running:
		return a.attached(ctx, i, nil), a.Hooks.AddHook(ctx, c, a.hook(i))
	}
	r, err := a.addNow(ctx, c, &i)
	if err != nil {
		return ctl.Attached{}, err
	}
	if i.Road == ByHook {
		if err := a.Hooks.AddHook(ctx, c, a.hook(i)); err != nil {
			return ctl.Attached{}, errors.Join(err, a.CNI.del(context.WithoutCancel(ctx), i, c.NetNS))
		}
	}
	return a.attached(ctx, i, r), nil
}

// addNow is ADD into a running container, and notes its life.
func (a *Attacher) addNow(ctx context.Context, c runtimes.Container, i *Intent) (*types100.Result, error) {
	r, err := a.CNI.add(ctx, *i, c.NetNS)
	if err != nil {
		return nil, err
	}
	i.Life = lifeOf(c)
	if err := a.Intents.Put(*i); err != nil {
		return nil, errors.Join(err, a.CNI.del(context.WithoutCancel(ctx), *i, c.NetNS))
	}
	return r, nil
}

func (a *Attacher) hook(i Intent) runtimes.Hook {
	return runtimes.Hook{
		Path: a.Hook[0], Args: append(slices.Clone(a.Hook), i.ID),
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
}

// connect has podman do it.
func (a *Attacher) connect(ctx context.Context, c runtimes.Container, i Intent) (ctl.Attached, error) {
	w := runtimes.Wish{IP: i.Wish.IP, MAC: i.Wish.MAC, Aliases: i.Wish.Names}
	if err := a.Podman.Connect(ctx, c, i.Key.Network, w); err != nil {
		return ctl.Attached{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	out := a.attached(ctx, i, nil)
	if c.State != runtimes.Running {
		return out, nil
	}
	if has, err := hasLink(c.NetNS, i.Key.IfName); err != nil || !has {
		undo := a.Podman.Disconnect(context.WithoutCancel(ctx), c, i.Key.Network)
		return ctl.Attached{}, errors.Join(fmt.Errorf("podman connected container %s, and not by %s: %w", c, i.Key.IfName, err), undo)
	}
	i.Life = lifeOf(c)
	if err := a.Intents.Put(i); err != nil {
		return ctl.Attached{}, errors.Join(err, a.Podman.Disconnect(context.WithoutCancel(ctx), c, i.Key.Network))
	}
	j, err := a.Podman.Joined(ctx, c, i.Key.Network)
	if err != nil {
		a.Log.Warn("podman connected a container and does not say how", "container", c.String(), "error", err)
		return out, nil
	}
	out.Addresses, out.Gateways, out.MAC = j.Addresses, j.Gateways, j.MAC
	if len(j.Addresses) > 0 {
		out.IP = j.Addresses[0].Addr().String()
	}
	return out, nil
}

// lifeOf notes what a running container's life is known by.
func lifeOf(c runtimes.Container) Life {
	l := Life{PID: c.PID}
	if c.PID > 0 {
		l.Started, _ = runtimes.Started(c.PID) // 0 when it has just ended, as no process is
	}
	if ns, err := netdev.OpenNS(c.NetNS); err == nil {
		l.NetNS = ns.ID()
		ns.Close()
	}
	return l
}

func hasLink(netns, ifname string) (bool, error) {
	ns, err := netdev.OpenNS(netns)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	return netdev.HasLink(ns, ifname)
}

// Unplug takes an endpoint away that Plug gave.
func (a *Attacher) Unplug(ctx context.Context, req ctl.DetachRequest) error {
	i, err := a.wanted(req)
	if err != nil {
		return err
	}
	unlock, err := a.Intents.lock(ctx.Done(), i.Key.ContainerID)
	if err != nil {
		return ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	defer unlock()
	if i, err = a.Intents.Get(i.ID); errors.Is(err, os.ErrNotExist) {
		return nil // another call was quicker
	} else if err != nil {
		return err
	}
	if err := a.undo(ctx, i); err != nil {
		return err
	}
	a.Log.Info("endpoint unplugged", "endpoint", i.ID, "container", i.find().Ref(), "network", i.Key.Network)
	return a.Intents.Drop(i.ID)
}

// undo takes away what an intent says, whatever of it is there.
func (a *Attacher) undo(ctx context.Context, i Intent) error {
	c, err := a.Finder.Again(ctx, i.find())
	if err != nil && !errors.Is(err, runtimes.ErrGone) && !errors.Is(err, runtimes.ErrAbsent) {
		return ctl.Errorf(ctl.CodeTryAgain, "%s: %v", i, err)
	}
	if i.Road == ByRuntime {
		return a.Podman.Disconnect(ctx, i.find(), i.Key.Network)
	}
	if i.Road == ByHook {
		// A hook that stays does no harm: it does nothing for an endpoint that is not wanted.
		if err := a.Hooks.DropHook(ctx, i.find(), i.ID); err != nil && !errors.Is(err, runtimes.ErrAbsent) {
			a.Log.Warn("a hook stays in a container's specification", "container", i.find().Ref(), "endpoint", i.ID, "error", err)
		}
	}
	netns := ""
	if err == nil && c.State == runtimes.Running {
		netns = c.NetNS
	}
	return a.CNI.del(ctx, i, netns)
}

// wanted is the one intent that a request names.
func (a *Attacher) wanted(req ctl.DetachRequest) (Intent, error) {
	all, err := a.Intents.All()
	if err != nil {
		a.Log.Warn("some intents cannot be read", "error", err)
	}
	var found []Intent
	for _, i := range all {
		if strings.HasPrefix(i.ID, strings.ToLower(req.EndpointID)) && (req.ContainerID == "" || i.Container.is(req.ContainerID, i.Key)) &&
			(req.Network == "" || req.Network == i.Key.Network) {
			found = append(found, i)
		}
	}
	what := strings.TrimSpace(req.EndpointID + " " + req.Network)
	switch {
	case req.EndpointID == "" && (req.ContainerID == "" || req.Network == ""):
		return Intent{}, ctl.Errorf(ctl.CodeInvalidConfig, "which endpoint? want its id, or the container and the network")
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		e := ctl.Errorf(ctl.CodeUnknownContainer, "no endpoint %q is plugged", what)
		if req.ContainerID != "" {
			e = ctl.Errorf(ctl.CodeUnknownContainer, "no endpoint %q is plugged into container %q", what, req.ContainerID)
		}
		e.Details = "one that the runtime gave the container is the runtime's to take; `weave ps` shows all"
		return Intent{}, e
	}
	e := ctl.Errorf(ctl.CodeAmbiguous, "%d endpoints are %q", len(found), what)
	var list []string
	for _, i := range found {
		list = append(list, i.String())
	}
	e.Details = "say which: " + strings.Join(list, ", ")
	return Intent{}, e
}

// is reports whether a text means this container. Of a path and a process only
// the whole; of ids a beginning too.
func (c Container) is(text string, k attachment.Key) bool {
	switch c.Runtime {
	case runtimes.NamePath:
		rest, ok := strings.CutPrefix(text, "/var/run/")
		return text == c.ID || ok && "/run/"+rest == c.ID || text == k.ContainerID
	case runtimes.NamePID:
		return text == runtimes.NamePID+":"+c.ID || text == "/proc/"+c.ID+"/ns/net" || text == k.ContainerID
	}
	ref := runtimes.Container{Runtime: c.Runtime, Namespace: c.Namespace, ID: c.ID}.Ref()
	return text == c.Name || text == ref || text == k.ContainerID || text == c.Namespace+"/"+c.ID || strings.HasPrefix(c.ID, text)
}
