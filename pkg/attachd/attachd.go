// Package attachd is the part of `weave attachd`: it serves the attach call at
// its own socket and keeps what was plugged, so that endpoints come back with
// their containers. It enters containers' namespaces, by the plugins, which the
// router does not.
package attachd

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/control"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Attacher does the work: attach.Attacher.
type Attacher interface {
	Plug(ctx context.Context, req ctl.AttachRequest) (ctl.Attached, error)
	Unplug(ctx context.Context, req ctl.DetachRequest) error
	KeepAll(ctx context.Context, of []attach.Intent, seen func(attach.Intent, attach.Fate, error))
}

// Intents lists what is to be kept: attach.Intents.
type Intents interface {
	All() ([]attach.Intent, error)
}

// Times of the keeper.
const (
	lookEvery = time.Second      // of endpoints whose containers live: a look into /proc
	restMost  = 10 * time.Second // of one whose container does not, or whose runtime does not answer: it is asked ever more seldom
	failMost  = time.Minute      // of one that could not be made
	keepIn    = 40 * time.Second // bounds one endpoint's return
	atOnce    = 8                // containers whose endpoints return together
	callsMost = 16               // calls that are worked on together; more wait
)

// Daemon is attachd.
type Daemon struct {
	attacher Attacher
	intents  Intents
	log      *slog.Logger

	mu      sync.Mutex
	waiting map[string]string // by endpoint: why it is not there
}

// New makes one; Run does all.
func New(a Attacher, intents Intents, log *slog.Logger) *Daemon {
	return &Daemon{attacher: a, intents: intents, log: log, waiting: map[string]string{}}
}

// Run serves the listener and keeps endpoints until ctx ends, then finishes what is in hand.
func (d *Daemon) Run(ctx context.Context, l net.Listener) error {
	s := control.New(d.log)
	slots := make(chan struct{}, callsMost)
	control.Handle(s, ctl.PathNetAttach, func(ctx context.Context, req ctl.AttachRequest) (out ctl.Attached, err error) {
		if err := req.Settle(); err != nil {
			return out, err
		}
		err = inTurn(ctx, slots, func() error { out, err = d.attacher.Plug(ctx, req); return err })
		return out, err
	})
	control.Handle(s, ctl.PathNetDetach, func(ctx context.Context, req ctl.DetachRequest) (struct{}, error) {
		if err := req.Settle(); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, inTurn(ctx, slots, func() error { return d.attacher.Unplug(ctx, req) })
	})
	control.HandleGet(s, ctl.PathReady, func(context.Context) (ctl.Ready, error) { return ctl.Ready{}, nil })
	control.HandleGet(s, ctl.PathNetPlugs, func(context.Context) (ctl.Plugs, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return ctl.Plugs{Waiting: maps.Clone(d.waiting)}, nil
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(func() { d.keep(ctx) })
	err := s.Serve(ctx, l)
	cancel()
	parts.Wait()
	return err
}

// inTurn does a call when it has a slot: each runs plugins, which call the router, and the
// machine's runtime waits for both.
func inTurn(ctx context.Context, slots chan struct{}, do func() error) error {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return do()
	case <-ctx.Done():
		return ctl.Errorf(ctl.CodeTryAgain, "weave attachd has %d other calls in hand", cap(slots))
	}
}

// watched is what the keeper remembers of one endpoint. While it is busy the look has it.
type watched struct {
	busy atomic.Bool
	next time.Time     // when it is looked at again
	wait time.Duration // before that
	said string        // the last failure, so that it is logged once
}

// group are endpoints of one container that are looked at together.
type group struct {
	intents []attach.Intent
	watched map[string]*watched // by endpoint
}

// keep looks at all intents, again and again.
func (d *Daemon) keep(ctx context.Context) {
	known := map[string]*watched{}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := ""
	slots := make(chan struct{}, atOnce)
	var looks sync.WaitGroup
	defer looks.Wait()
	for {
		all, err := d.intents.All()
		if err != nil && err.Error() != said {
			said = err.Error()
			d.log.Error("some intents cannot be read", "error", err)
		}
		for _, of := range due(all, known) {
			looks.Go(func() {
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
					d.look(ctx, of)
				case <-ctx.Done():
				}
			})
		}
		d.forget(known)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// due are the endpoints whose time has come and which nobody looks at, by their
// containers: they are busy from now on. It forgets what is known of those that are not
// wanted any more. A container that takes long holds up no other.
func due(all []attach.Intent, known map[string]*watched) (now []group) {
	wanted, at := map[string]bool{}, map[string]int{}
	for _, i := range all {
		wanted[i.ID] = true
		w := known[i.ID]
		if w == nil {
			w = &watched{}
			known[i.ID] = w
		}
		if w.busy.Load() || time.Now().Before(w.next) {
			continue
		}
		n, began := at[i.Key.ContainerID]
		if !began {
			n, now = len(now), append(now, group{watched: map[string]*watched{}})
			at[i.Key.ContainerID] = n
		}
		w.busy.Store(true)
		now[n].intents, now[n].watched[i.ID] = append(now[n].intents, i), w
	}
	for id, w := range known {
		if !wanted[id] && !w.busy.Load() {
			delete(known, id)
		}
	}
	return now
}

// forget drops what was said of endpoints that are not wanted any more.
func (d *Daemon) forget(known map[string]*watched) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.waiting, func(id, _ string) bool { return known[id] == nil })
}

// say notes why an endpoint is not there; "" when it is.
func (d *Daemon) say(id, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting[id] = why; why == "" {
		delete(d.waiting, id)
	}
}

// look sees to a container's endpoints.
func (d *Daemon) look(ctx context.Context, of group) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(len(of.intents))*keepIn)
	defer cancel()
	d.attacher.KeepAll(ctx, of.intents, func(i attach.Intent, fate attach.Fate, err error) {
		d.found(ctx, i, of.watched[i.ID], fate, err)
	})
	for _, w := range of.watched {
		w.busy.Store(false)
	}
}

// found notes what a look found, and when the endpoint is looked at next.
func (d *Daemon) found(ctx context.Context, i attach.Intent, w *watched, fate attach.Fate, err error) {
	most := restMost
	if i.Road == attach.ByRuntime && fate == attach.Rests {
		most = failMost // nothing is to be done for it but to forget it
	}
	why := ""
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return // attachd ends
	case err != nil:
		if fate != attach.Unknown {
			most = failMost
		}
		if why = err.Error(); why != w.said {
			w.said = why
			d.log.Warn("endpoint is not kept", "endpoint", i.ID, "container", i.Container.ID, "network", i.Key.Network, "error", err)
		}
	case fate == attach.Rests:
		why = "its container does not run"
	case fate == attach.Back:
		d.log.Info("endpoint is back", "endpoint", i.ID, "container", i.Container.ID, "network", i.Key.Network, "interface", i.Key.IfName)
	}
	if err == nil {
		w.said = ""
	}
	d.say(i.ID, why)
	if err == nil && fate != attach.Rests && fate != attach.Unknown {
		w.next, w.wait = time.Time{}, 0
		return
	}
	w.wait = min(max(2*w.wait, lookEvery), most)
	w.next = time.Now().Add(w.wait)
}
