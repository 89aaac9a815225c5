package attach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// hookIn bounds what a hook does, with its undoing below what a runtime gives it.
const hookIn = 25 * time.Second

// Started is what a hook does: the container whose namespaces were just made, and
// of which pid is the first process, gets its endpoint. One that is not wanted
// any more is success: the container starts without.
func (a *Attacher) Started(ctx context.Context, id string, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, hookIn)
	defer cancel()
	i, err := a.Intents.Get(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	i, unlock, err := a.Intents.hold(ctx.Done(), i)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	c := i.find()
	c.State, c.PID, c.NetNS = runtimes.Running, pid, fmt.Sprintf("/proc/%d/ns/net", pid)
	return a.bring(ctx, c, i)
}

// bring makes an endpoint in a container's new life. What an earlier life left is
// in the way of some address plugins: then it goes first.
func (a *Attacher) bring(ctx context.Context, c runtimes.Container, i Intent) error {
	i, _ = a.bound(i)
	if err := a.ended(ctx, i); err != nil {
		return err
	}
	life, err := lifeOf(c)
	if err != nil {
		return fmt.Errorf("%s: %w", i, err)
	}
	has, err := hasLink(c.NetNS, i.Key.IfName)
	if err != nil {
		return fmt.Errorf("%s: %w", i, err)
	}
	if has {
		return a.adopt(ctx, i, life)
	}
	if err := a.forgetLast(ctx, i); err != nil {
		return err
	}
	if _, err = a.addNow(ctx, c, &i); err == nil {
		return nil
	}
	// add has undone it, with what was left of the last life; where it found what is another's it does so again.
	if _, again := a.addNow(ctx, c, &i); again != nil {
		return err
	}
	return nil
}

// adopt takes the interface that is there for the endpoint, if it is.
func (a *Attacher) adopt(ctx context.Context, i Intent, life Life) error {
	mine, err := a.ours(ctx, i, life.Path)
	if err != nil {
		return fmt.Errorf("%s: %w", i, err)
	}
	if !mine {
		e := ctl.Errorf(ctl.CodeInvalidConfig, "%s: the container has another %s, which its runtime made", i, i.Key.IfName)
		e.Details = fmt.Sprintf("take that away, or plug it by another: weave net unplug %s %.12s, then weave net plug %s %s",
			i.find().Ref(), i.ID, i.find().Ref(), i.Network())
		return e
	}
	i.Life = life
	return a.Intents.Put(i)
}

// forgetLast takes away what a container's last life has left on the host: its namespace
// may be there still, and held by somebody.
func (a *Attacher) forgetLast(ctx context.Context, i Intent) error {
	if i.Life == (Life{}) {
		return nil
	}
	left, err := netdev.Attached(i.Key.Veth(), i.Key.Hash())
	if err != nil || !left {
		return err
	}
	return a.CNI.del(ctx, i, "")
}

// Fate is what Keep found.
type Fate string

// The fates.
const (
	Lives   Fate = "lives"   // as it was
	Back    Fate = "back"    // it runs again, and has its endpoint again
	Rests   Fate = "rests"   // it does not run
	Gone    Fate = "gone"    // its runtime has it no more: the intent is gone too
	Unknown Fate = "unknown" // its runtime does not answer
)

// Keep sees to one intent: an endpoint of a container that runs again comes back,
// one of a container that was removed is forgotten.
func (a *Attacher) Keep(ctx context.Context, i Intent) (Fate, error) {
	_, unbound := a.bound(i)
	lives := i.lives()
	if lives && !unbound && !a.doubtful(i) {
		return Lives, nil
	}
	over := a.ended(ctx, i)
	if over == nil && !unbound {
		if lives {
			return Lives, nil
		}
		if _, fate, err := a.fate(ctx, i); fate == Rests || fate == Unknown {
			return fate, err
		}
	}
	return a.keep(ctx, i, over)
}

// keep is what Keep does under the container's lock. over is why the intent's network
// is gone, if it is.
func (a *Attacher) keep(ctx context.Context, i Intent, over error) (Fate, error) {
	i, unlock, err := a.Intents.hold(ctx.Done(), i)
	if errors.Is(err, os.ErrNotExist) {
		return Gone, nil
	}
	if err != nil {
		return Unknown, err
	}
	defer unlock()
	if i, unbound := a.bound(i); unbound {
		return Lives, a.Intents.Put(i) // and is looked at again
	}
	c, fate, err := a.fate(ctx, i) // as it is now
	switch {
	case fate == Gone:
		return Gone, a.forget(ctx, i)
	case over != nil:
		return Rests, a.release(ctx, i, over)
	case fate != Back:
		return fate, err
	case i.Road == ByRuntime:
		return a.brought(c, i)
	}
	return Back, a.bring(ctx, c, i)
}

// brought notes that podman has made its endpoint in a container's new life. Where a
// connect failed, and could not be taken back, it has not.
func (a *Attacher) brought(c runtimes.Container, i Intent) (Fate, error) {
	life, err := lifeOf(c)
	if err != nil {
		return Unknown, fmt.Errorf("%s: %w", i, err)
	}
	has, err := hasLink(c.NetNS, i.Key.IfName)
	if err != nil {
		return Unknown, fmt.Errorf("%s: %w", i, err)
	}
	if !has {
		e := ctl.Errorf(ctl.CodeInvalidConfig, "%s: podman was to make it, and the container has no interface %s", i, i.Key.IfName)
		e.Details = fmt.Sprintf("weave net unplug %s %.12s, then weave net plug %s %s", c.Ref(), i.ID, c.Ref(), i.Network())
		return Unknown, e
	}
	i.Life = life
	return Back, a.Intents.Put(i)
}

// fate asks the runtime: Back is a container that has a life in which its endpoint is not noted.
func (a *Attacher) fate(ctx context.Context, i Intent) (runtimes.Container, Fate, error) {
	c, err := a.Finder.Again(ctx, i.find())
	switch {
	case errors.Is(err, runtimes.ErrGone):
		return c, Gone, nil
	case err != nil:
		return c, Unknown, err
	case c.State != runtimes.Running || c.NetNS == "":
		return c, Rests, nil
	}
	c.CNI = i.Key.ContainerID
	if life, err := lifeOf(c); err == nil && life == i.Life { // meanwhile
		return c, Lives, nil
	}
	return c, Back, nil
}

// forget ends an endpoint of a container that was removed; under its lock.
func (a *Attacher) forget(ctx context.Context, i Intent) error {
	if i.Road != ByRuntime {
		if err := a.CNI.del(ctx, i, ""); err != nil {
			return err
		}
	}
	a.Log.Info("container was removed", "endpoint", i.ID, "container", i.find().Ref(), "network", i.Network())
	return a.Intents.Drop(i.ID)
}
