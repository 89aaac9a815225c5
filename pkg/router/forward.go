package router

import (
	"context"
	"path/filepath"

	"github.com/weave-cni/weave-cni/pkg/control"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// serveForwards passes the calls on that enter containers' namespaces: to attachd,
// whose socket is in the same directory. The router has no right to do them.
func (r *Router) serveForwards(s *control.Server) {
	control.Handle(s, ctl.PathNetAttach, func(ctx context.Context, in ctl.AttachRequest) (out ctl.Attached, err error) {
		err = r.passOn(ctx, ctl.PathNetAttach, in, &out)
		return out, err
	})
	control.Handle(s, ctl.PathNetDetach, func(ctx context.Context, in ctl.DetachRequest) (out nothing, err error) {
		err = r.passOn(ctx, ctl.PathNetDetach, in, &out)
		return out, err
	})
}

// passOn makes one call of attachd's.
func (r *Router) passOn(ctx context.Context, path string, in, out any) error {
	socket := filepath.Join(r.config.RunDir, filepath.Base(ctl.AttachSocket))
	err := ctl.New(socket, 0).Call(ctx, path, in, out)
	if !ctl.IsUnavailable(err) {
		return err
	}
	e := ctl.Errorf(ctl.CodeNotAvailable, "weave attachd does not answer at %s, and the router itself enters no container", socket)
	e.Details = "start it with: weave attachd (or: systemctl start weave-attachd)"
	return e
}
