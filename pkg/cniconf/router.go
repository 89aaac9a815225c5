package cniconf

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Patience is how long a router may be away before a call says so.
const Patience = 2 * time.Second

// again is the pause before a call that a dying router broke off is made again.
const again = 20 * time.Millisecond

// Router calls the weave router of this host.
type Router struct {
	client   *ctl.Client
	socket   string
	patience time.Duration
}

// NewRouter is for ADD, CHECK and GC: a router that is being restarted costs them up to Patience, not an error.
func NewRouter(socket string) *Router { return newRouter(socket, Patience) }

// NewImpatientRouter is for STATUS, which only asks whether there is a router.
func NewImpatientRouter(socket string) *Router { return newRouter(socket, 0) }

func newRouter(socket string, patience time.Duration) *Router {
	if socket == "" {
		socket = ctl.DefaultSocket
	}
	return &Router{client: ctl.New(socket, patience), socket: socket, patience: patience}
}

// Call makes one call, as ctl.Client does. A call that the router's end broke
// off is made again while the router's patience lasts: each call names its
// attachment, so making it twice is making it once.
func (r *Router) Call(ctx context.Context, path string, in, out any) error {
	deadline := time.Now().Add(r.patience)
	for {
		err := r.client.Call(ctx, path, in, out)
		if !brokeOff(err) || !time.Now().Before(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(again):
		}
	}
}

// Tell is a DEL's call about an attachment. It waits for no router, since DEL
// does without, and for the answer of one that has taken the call up to Patience.
func Tell(ctx context.Context, socket, path string, k attachment.Key) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	return newRouter(socket, 0).Call(ctx, path, ctl.KeyRequest{Key: k}, nil)
}

// Gone reports whether a call failed because there is no router, or because it ended meanwhile.
func Gone(err error) bool { return ctl.IsUnavailable(err) || brokeOff(err) }

// brokeOff reports whether the router took the call and ended before it answered.
func brokeOff(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// Ready asks the router whether it could serve an ADD: CNI's STATUS. It waits
// for no router. One that has been away for less than Patience is no reason to
// say no, since an ADD would wait for it that long; then code 50. How long it
// has been away is read off the files: a router touches its socket while it
// lives, and its going, clean or not, makes that stop.
func (r *Router) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	var ready ctl.Ready
	err := r.client.Call(ctx, ctl.PathReady, nil, &ready)
	if err == nil && ready.Error != nil {
		err = ready.Error
	}
	var said *ctl.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said) && (said.Code == ctl.CodeNotAvailable || said.Code == ctl.CodeDegraded):
		return said
	case Gone(err) && r.seen():
		return nil
	default:
		return types.NewError(types.ErrPluginNotAvailable, "the weave router does not answer", "is weaver running on this host? "+err.Error())
	}
}

// seen reports whether the socket, or its directory, was touched within
// Patience. A time in the future is a clock that was set back and proves nothing.
func (r *Router) seen() bool {
	for _, path := range []string{r.socket, filepath.Dir(r.socket)} {
		if fi, err := os.Stat(path); err == nil {
			if age := time.Since(fi.ModTime()); 0 <= age && age < Patience {
				return true
			}
		}
	}
	return false
}

// Collect asks the router to collect what the list of a GC leaves out.
func (c *Conf) Collect(ctx context.Context, r *Router) error {
	valid, absent, err := c.GCList()
	if err != nil {
		return err
	}
	inhabited, held, err := livingNamespaces("/proc")
	if err != nil {
		return Errorf(types.ErrIOFailure, "GC of network %s: cannot tell which namespaces live: %v", c.Name, err)
	}
	return r.Call(ctx, ctl.PathCollect, ctl.CollectRequest{
		Network: c.Name, Valid: valid, Absent: absent,
		Inhabited: slices.Collect(maps.Keys(inhabited)), Held: slices.Collect(maps.Keys(held)),
	}, nil)
}
