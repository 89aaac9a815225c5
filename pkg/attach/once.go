package attach

import (
	"context"

	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// KeepAll sees to endpoints of one container, one after the other: they would wait for
// each other anyhow. Its runtime is asked once for all of them, as long as the container
// has one life. seen hears what was found, of each.
func (a *Attacher) KeepAll(ctx context.Context, of []Intent, seen func(Intent, Fate, error)) {
	all := *a
	all.Finder = &once{Finder: a.Finder}
	for _, i := range of {
		fate, err := all.Keep(ctx, i)
		seen(i, fate, err)
	}
}

// once looks a container up once, and again when it has ended meanwhile: the number of its
// process may be another's.
type once struct {
	Finder
	ref  string // the container that was asked for; "" before
	c    runtimes.Container
	life Life
	err  error
}

// Again is Finder's.
func (o *once) Again(ctx context.Context, c runtimes.Container) (runtimes.Container, error) {
	if o.ref == c.Ref() && !o.over() {
		return o.c, o.err
	}
	o.ref = c.Ref()
	if o.c, o.err = o.Finder.Again(ctx, c); o.err == nil && o.c.State == runtimes.Running {
		o.life, _ = lifeOf(o.c) // where that fails, it is over
	}
	return o.c, o.err
}

// over reports whether a container that ran when it was asked for has that life no more.
func (o *once) over() bool {
	if o.err != nil || o.c.State != runtimes.Running {
		return false
	}
	now, err := lifeOf(o.c)
	return err != nil || now != o.life
}
