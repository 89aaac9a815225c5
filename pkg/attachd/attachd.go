// Package attachd is the part of `weave attachd`: it serves the attach call at
// its own socket and keeps what was plugged, so that endpoints come back with
// their containers. It enters containers' namespaces, by the plugins, which the
// router does not.
package attachd

import (
	"context"
	"errors"
	"log/slog"
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
	Keep(ctx context.Context, i attach.Intent) (attach.Fate, error)
}

// Intents lists what is to be kept: attach.Intents.
type Intents interface {
	All() ([]attach.Intent, error)
}

// Times of the keeper.
const (
	lookEvery = time.Second      // of endpoints whose containers live: a look into /proc
	restMost  = 10 * time.Second // of one whose container does not: its runtime is asked, ever more seldom
	failMost  = time.Minute      // of one that could not be made
	keepIn    = 40 * time.Second // bounds one endpoint's return
	atOnce    = 8                // endpoints that return together
	callsMost = 16               // calls that are worked on together; more wait
)

// Daemon is attachd.
type Daemon struct {
	attacher Attacher
	intents  Intents
	log      *slog.Logger
}

// New makes one; Run does all.
func New(a Attacher, intents Intents, log *slog.Logger) *Daemon {
	return &Daemon{attacher: a, intents: intents, log: log}
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
		for _, i := range due(all, known) {
			w := known[i.ID]
			w.busy.Store(true)
			looks.Go(func() {
				defer w.busy.Store(false)
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
					d.look(ctx, i, w)
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// due are the endpoints whose time has come and which nobody looks at; it forgets what
// is known of those that are not wanted any more. One that takes long holds up no other.
func due(all []attach.Intent, known map[string]*watched) (now []attach.Intent) {
	wanted := map[string]bool{}
	for _, i := range all {
		wanted[i.ID] = true
		w := known[i.ID]
		if w == nil {
			w = &watched{}
			known[i.ID] = w
		}
		if !w.busy.Load() && !time.Now().Before(w.next) {
			now = append(now, i)
		}
	}
	for id, w := range known {
		if !wanted[id] && !w.busy.Load() {
			delete(known, id)
		}
	}
	return now
}

// look sees to one endpoint and says when it is looked at next.
func (d *Daemon) look(ctx context.Context, i attach.Intent, w *watched) {
	ctx, cancel := context.WithTimeout(ctx, keepIn)
	defer cancel()
	fate, err := d.attacher.Keep(ctx, i)
	most := restMost
	if i.Road == attach.ByRuntime {
		most = failMost // nothing is to be done for it but to forget it
	}
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return // attachd ends
	case err != nil:
		most = failMost
		if err.Error() != w.said {
			w.said = err.Error()
			d.log.Warn("endpoint is not kept", "endpoint", i.ID, "container", i.Container.ID, "network", i.Key.Network, "error", err)
		}
	case fate == attach.Back:
		d.log.Info("endpoint is back", "endpoint", i.ID, "container", i.Container.ID, "network", i.Key.Network, "interface", i.Key.IfName)
	}
	if err == nil {
		w.said = ""
	}
	if err == nil && fate != attach.Rests && fate != attach.Unknown {
		w.next, w.wait = time.Time{}, 0
		return
	}
	w.wait = min(max(2*w.wait, lookEvery), most)
	w.next = time.Now().Add(w.wait)
}
