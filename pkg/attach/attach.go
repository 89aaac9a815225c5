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
	"slices"
	"strings"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// Bounds. A plug as a whole ends before a caller of the local API has waited too long
// for its answer, and has time to take back what it made within that.
const (
	plugIn = 24 * time.Second
	addIn  = 15 * time.Second
	delIn  = 8 * time.Second
)

// working bounds what a plug does, so that of its time enough is left to undo it.
func working(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(plugIn)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	return context.WithDeadline(ctx, end.Add(-delIn-time.Second))
}

// undoing is for taking back what was made, however the caller fared.
func undoing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), delIn)
}

// Finder finds containers: runtimes.Finder.
type Finder interface {
	Find(ctx context.Context, text string) (runtimes.Container, error)
	Again(ctx context.Context, c runtimes.Container) (runtimes.Container, error)
}

// Connector is a runtime that attaches its containers itself, told at any time: runtimes.Podman.
type Connector interface {
	Knows(ctx context.Context, network string) (bool, error)
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
	ctx, cancel := working(ctx)
	defer cancel()
	c, err := a.container(ctx, req)
	if err != nil {
		return ctl.Attached{}, err
	}
	at, wish, err := a.wish(ctx, req, c)
	if err != nil {
		return ctl.Attached{}, err
	}
	if _, err := a.CNI.list(at.list); err != nil {
		return ctl.Attached{}, err
	}
	unlock, err := a.Intents.lock(ctx.Done(), c.CNI)
	if err != nil {
		return ctl.Attached{}, ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	defer unlock()
	if c, err = a.asItIs(ctx, c); err != nil {
		return ctl.Attached{}, err
	}
	i, err := a.plan(ctx, c, at, req, wish)
	if err != nil {
		return ctl.Attached{}, err
	}
	note := a.beside(c, i)
	if err := a.Intents.Put(i); err != nil {
		return ctl.Attached{}, err
	}
	out, err := a.make(ctx, c, i)
	switch {
	case errors.As(err, new(stays)):
		return ctl.Attached{}, err
	case err != nil:
		return ctl.Attached{}, errors.Join(err, a.Intents.Drop(i.ID))
	}
	out.Note = note
	if err := a.note(i.ID, out.NetworkID); err != nil {
		a.Log.Warn("the network of an endpoint is known by its name alone", "endpoint", i.ID, "error", err)
	}
	a.Log.Info("endpoint plugged", "endpoint", i.ID, "container", c.String(), "network", i.Network(), "interface", i.Key.IfName, "by", i.Road)
	return out, nil
}

// asItIs looks a container up again, under its lock: it may have ended meanwhile, and
// the number of its process be another's. It refuses one without interfaces of its own.
func (a *Attacher) asItIs(ctx context.Context, c runtimes.Container) (runtimes.Container, error) {
	now, err := a.Finder.Again(ctx, c)
	switch {
	case errors.Is(err, runtimes.ErrGone):
		return now, ctl.Errorf(ctl.CodeUnknownContainer, "container %s is gone", c)
	case err != nil:
		return now, ctl.Errorf(ctl.CodeTryAgain, "container %s: %v", c, err)
	case now.HostNet:
		return now, ctl.Errorf(ctl.CodeInvalidConfig, "container %s uses the host's network and has no interfaces of its own", c)
	}
	now.CNI = c.CNI // the caller's own, where it has given the namespace
	if now.State == runtimes.Running {
		_, err = lifeOf(now)
	}
	return now, err
}

// stays is an endpoint that was not made, and could not be taken back either: its intent
// stays, so that it is seen and can be unplugged.
type stays struct{ error }

func (s stays) Unwrap() error { return s.error }

// container finds the one that a request means. With a namespace given it is not
// looked for: then the id is the caller's own.
func (a *Attacher) container(ctx context.Context, req ctl.AttachRequest) (runtimes.Container, error) {
	if req.NetNS == "" {
		if req.ContainerID == "" {
			return runtimes.Container{}, ctl.Errorf(ctl.CodeInvalidConfig, "which container? ContainerID is empty")
		}
		c, err := a.Finder.Find(ctx, req.ContainerID)
		if ref := a.knownAs(req.ContainerID); ref != "" && isCode(err, ctl.CodeUnknownContainer) {
			return a.Finder.Find(ctx, ref)
		}
		return c, err
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

// knownAs is what a container that has a plug is called by its runtime, where a text means
// it as `weave ps` shows it, or as it was called then; "" when it means none, or several.
func (a *Attacher) knownAs(text string) (ref string) {
	all, _ := a.Intents.All()
	found, _ := runtimes.Choose(text, all)
	for _, i := range found {
		of := i.find().Ref()
		if ref != "" && ref != of {
			return ""
		}
		ref = of
	}
	return ref
}

// make does what the intent says, now or at the container's start.
func (a *Attacher) make(ctx context.Context, c runtimes.Container, i Intent) (out ctl.Attached, err error) {
	if i.Road == ByRuntime {
		return a.connect(ctx, c, i)
	}
	var r *types100.Result
	if c.State == runtimes.Running {
		if r, err = a.addNow(ctx, c, &i); err != nil {
			return ctl.Attached{}, err
		}
	}
	if i.Road == ByHook {
		now, err := a.addHook(ctx, c, &i)
		if err != nil {
			return ctl.Attached{}, errors.Join(err, a.unmake(ctx, c, i))
		}
		if now != nil {
			r = now
		}
	}
	return a.attached(ctx, i, r), nil
}

// unmake takes back what make did of an intent.
func (a *Attacher) unmake(ctx context.Context, c runtimes.Container, i Intent) error {
	ctx, cancel := undoing(ctx)
	defer cancel()
	err := a.Hooks.DropHook(ctx, c, i.ID)
	if i.Life == (Life{}) {
		return err
	}
	return errors.Join(err, a.CNI.del(ctx, i, c.NetNS))
}

// addHook has the runtime bring the endpoint at each later start. A container that was
// started meanwhile was so without the hook: then its endpoint is made now.
func (a *Attacher) addHook(ctx context.Context, c runtimes.Container, i *Intent) (*types100.Result, error) {
	if err := a.Hooks.AddHook(ctx, c, a.hook(*i)); err != nil {
		return nil, err
	}
	now, err := a.Finder.Again(ctx, c)
	if err != nil {
		return nil, ctl.Errorf(ctl.CodeTryAgain, "container %s: whether it was started meanwhile: %v", c, err)
	}
	if now.State != runtimes.Running {
		return nil, nil
	}
	now.CNI = c.CNI
	life, err := lifeOf(now)
	if err != nil || life == i.Life {
		return nil, err
	}
	if err := free(now, *i); err != nil {
		return nil, err
	}
	return a.addNow(ctx, now, i)
}

// addNow is ADD into a running container, and notes its life. A container that ended
// meanwhile has nothing: the number of its process may have been another's.
func (a *Attacher) addNow(ctx context.Context, c runtimes.Container, i *Intent) (*types100.Result, error) {
	life, err := lifeOf(c)
	if err != nil {
		return nil, err
	}
	r, err := a.CNI.add(ctx, *i, c.NetNS)
	if err != nil {
		return nil, err
	}
	now, err := lifeOf(c)
	if err == nil && now != life {
		err = ctl.Errorf(ctl.CodeTryAgain, "container %s was restarted meanwhile", c)
	}
	if err == nil {
		i.Life = life
		err = a.Intents.Put(*i)
	}
	if err != nil {
		ctx, cancel := undoing(ctx)
		defer cancel()
		return nil, errors.Join(err, a.CNI.del(ctx, *i, ""))
	}
	return r, nil
}

func (a *Attacher) hook(i Intent) runtimes.Hook {
	return runtimes.Hook{
		Path: a.Hook[0], Args: append(slices.Clone(a.Hook), i.ID),
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
}

// connect has podman do it. podman writes down that the container is on the network
// before it does the ADD, and does not take it back: a container that is left so can
// neither be inspected nor started.
func (a *Attacher) connect(ctx context.Context, c runtimes.Container, i Intent) (ctl.Attached, error) {
	w := runtimes.Wish{IP: i.Wish.IP, MAC: i.Wish.MAC, Aliases: i.Wish.Names}
	if err := a.Podman.Connect(ctx, c, i.Key.Network, w); err != nil {
		return ctl.Attached{}, a.disconnect(ctx, c, i, coded(err, err))
	}
	out := a.attached(ctx, i, nil)
	if c.State != runtimes.Running {
		return out, nil
	}
	has, err := hasLink(c.NetNS, i.Key.IfName)
	if err == nil && !has {
		err = errors.New("there is no such interface")
	}
	if err != nil {
		return ctl.Attached{}, a.disconnect(ctx, c, i, fmt.Errorf("podman connected container %s, and not by %s: %w", c, i.Key.IfName, err))
	}
	if i.Life, err = lifeOf(c); err == nil {
		err = a.Intents.Put(i)
	}
	if err != nil {
		return ctl.Attached{}, a.disconnect(ctx, c, i, err)
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

// disconnect takes a connect back that failed with cause. Where that fails too, the
// intent stays: the container cannot be started before it is unplugged.
func (a *Attacher) disconnect(ctx context.Context, c runtimes.Container, i Intent, cause error) error {
	ctx, cancel := undoing(ctx)
	defer cancel()
	err := a.Podman.Disconnect(ctx, c, i.Key.Network)
	if err == nil {
		return cause
	}
	e := ctl.Errorf(ctl.CodeInvalidConfig, "%v; and podman did not take it back: %v", cause, err)
	var said *ctl.Error
	if errors.As(cause, &said) {
		e.Code = said.Code
	}
	e.Details = fmt.Sprintf("before the container can be started: weave net unplug %s %.12s", c.Ref(), i.ID)
	return stays{e}
}
