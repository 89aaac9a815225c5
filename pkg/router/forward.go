package router

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weave-cni/weave-cni/pkg/control"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// maxForwards is how many calls are with attachd at once: they take long, and are to
// leave the plugins, which attachd runs for them, their share of all calls.
const maxForwards = 64

// serveForwards passes the calls on that enter containers' namespaces: to attachd,
// whose socket is in the same directory. The router has no right to do them.
func (r *Router) serveForwards(s *control.Server) {
	f := forward{filepath.Join(filepath.Dir(r.config.socket()), filepath.Base(ctl.AttachSocket)), make(chan struct{}, maxForwards)}
	control.Handle(s, ctl.PathNetAttach, func(ctx context.Context, in ctl.AttachRequest) (out ctl.Attached, err error) {
		if err = in.Settle(); err == nil {
			err = f.passOn(ctx, ctl.PathNetAttach, in, &out)
		}
		return out, err
	})
	control.Handle(s, ctl.PathNetDetach, func(ctx context.Context, in ctl.DetachRequest) (out nothing, err error) {
		if err = in.Settle(); err == nil {
			err = f.passOn(ctx, ctl.PathNetDetach, in, &out)
		}
		return out, err
	})
}

// forward leads to attachd.
type forward struct {
	socket string
	slots  chan struct{}
}

// passOn makes one call of attachd's.
func (f forward) passOn(ctx context.Context, path string, in, out any) error {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return ctl.Errorf(ctl.CodeTryAgain, "weave attachd has %d calls in hand", cap(f.slots))
	}
	if err := f.there(ctx); err != nil {
		return err
	}
	err := ctl.New(f.socket, 0).Call(ctx, path, in, out)
	switch {
	case ctl.NotSent(err):
		return f.away()
	case err != nil && (ctl.IsUnavailable(err) || ctx.Err() != nil):
		e := ctl.Errorf(ctl.CodeTryAgain, "weave attachd took the call and did not answer")
		e.Details = "it may have been done: see weave ps before you try again"
		return e
	}
	return err
}

// hereIn is how long attachd has to say that it is there: less than a caller has.
const hereIn = 1500 * time.Millisecond

// there asks attachd first: nobody waits for the work of one that hangs.
func (f forward) there(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hereIn)
	defer cancel()
	err := ctl.New(f.socket, 0).Call(ctx, ctl.PathReady, nil, nil)
	switch {
	case errors.Is(err, syscall.EAGAIN) || err != nil && ctx.Err() != nil:
		e := ctl.Errorf(ctl.CodeNotAvailable, "weave attachd does not answer at %s, though it runs; nothing was done", f.socket)
		e.Details = "it hangs, or was stopped: systemctl restart weave-attachd (or end it and start: weave attachd)"
		return e
	case ctl.NotSent(err):
		return f.away()
	}
	return nil // it answers, if only that it does not know the question
}

func (f forward) away() error {
	e := ctl.Errorf(ctl.CodeNotAvailable, "weave attachd does not answer at %s, and the router itself enters no container", f.socket)
	e.Details = "start it with: weave attachd (or: systemctl start weave-attachd)"
	return e
}
