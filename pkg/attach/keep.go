package attach

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// Started is what a hook does: the container whose namespaces were just made, and
// of which pid is the first process, gets its endpoint. One that is not wanted
// any more is success: the container starts without.
func (a *Attacher) Started(ctx context.Context, id string, pid int) error {
	i, err := a.Intents.Get(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	unlock, err := a.Intents.lock(ctx.Done(), i.Key.ContainerID)
	if err != nil {
		return ctl.Errorf(ctl.CodeTryAgain, "%v", err)
	}
	defer unlock()
	if i, err = a.Intents.Get(id); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	c := i.find()
	c.State, c.PID, c.NetNS = runtimes.Running, pid, fmt.Sprintf("/proc/%d/ns/net", pid)
	return a.bring(ctx, c, i)
}

// bring makes an endpoint in a container's new life. What an earlier life left is
// in the way of some address plugins: then it goes first.
func (a *Attacher) bring(ctx context.Context, c runtimes.Container, i Intent) error {
	has, err := hasLink(c.NetNS, i.Key.IfName)
	if err != nil {
		return fmt.Errorf("%s: %w", i, err)
	}
	if has && i.Road == ByHook && i.Life == (Life{}) {
		return ctl.Errorf(ctl.CodeInvalidConfig, "%s: the container has a %s already, which its runtime made", i, i.Key.IfName)
	}
	if has {
		i.Life = lifeOf(c)
		return a.Intents.Put(i)
	}
	if _, err = a.addNow(ctx, c, &i); err == nil {
		return nil
	}
	// add has undone it, with what was left of the last life.
	if _, again := a.addNow(ctx, c, &i); again != nil {
		return err
	}
	return nil
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
	if i.lives() {
		return Lives, nil
	}
	c, err := a.Finder.Again(ctx, i.find())
	switch {
	case errors.Is(err, runtimes.ErrGone):
		return Gone, a.forget(ctx, i)
	case err != nil:
		return Unknown, err
	case c.State != runtimes.Running || c.NetNS == "":
		return Rests, nil
	}
	c.CNI = i.Key.ContainerID
	unlock, err := a.Intents.lock(ctx.Done(), i.Key.ContainerID)
	if err != nil {
		return Unknown, err
	}
	defer unlock()
	if i, err = a.Intents.Get(i.ID); errors.Is(err, os.ErrNotExist) {
		return Gone, nil
	} else if err != nil {
		return Unknown, err
	}
	if i.lives() { // meanwhile
		return Lives, nil
	}
	if i.Road == ByRuntime {
		i.Life = lifeOf(c)
		return Back, a.Intents.Put(i)
	}
	return Back, a.bring(ctx, c, i)
}

// lives reports whether the container is in the life in which its endpoint was
// made last, as far as can be seen without asking anybody.
func (i Intent) lives() bool {
	switch {
	case i.Life.PID > 0:
		at, err := runtimes.Started(i.Life.PID)
		return err == nil && at == i.Life.Started
	case i.Container.Runtime == runtimes.NamePath && i.Life.NetNS.Known():
		ns, err := netdev.OpenNS(i.Container.ID)
		if err != nil {
			return false
		}
		defer ns.Close()
		return ns.ID() == i.Life.NetNS
	}
	return false
}

// forget ends an endpoint of a container that was removed.
func (a *Attacher) forget(ctx context.Context, i Intent) error {
	unlock, err := a.Intents.lock(ctx.Done(), i.Key.ContainerID)
	if err != nil {
		return err
	}
	defer unlock()
	if i.Road != ByRuntime {
		if err := a.CNI.del(ctx, i, ""); err != nil {
			return err
		}
	}
	a.Log.Info("container was removed", "endpoint", i.ID, "container", i.find().Ref(), "network", i.Key.Network)
	return a.Intents.Drop(i.ID)
}
