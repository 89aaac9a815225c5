package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachd"
	"github.com/weave-cni/weave-cni/pkg/control"
)

func (a *app) attachd() *cobra.Command {
	var h here
	var level string
	c := &cobra.Command{
		Use:   "attachd",
		Short: "Serve the attach call and keep plugged containers plugged",
		Long: `attachd serves POST /v1/net/attach and /v1/net/detach on attach.sock, beside the
router's socket, and the router passes these calls on to it. What was plugged comes
back when its container runs again, also after a reboot, and is forgotten when its
container is removed.

It is started by hand, by a service manager, or by its first caller (socket activation).`,
		Args: cobra.NoArgs,
	}
	h.register(c.Flags(), false)
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	c.RunE = does(func(ctx context.Context, _ []string) error {
		var l slog.Level
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return exit{exitUsage, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)}
		}
		return a.asRoot(a.runAttachd(ctx, &h, slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: l}))))
	})
	return c
}

func (a *app) runAttachd(ctx context.Context, h *here, log *slog.Logger) error {
	unlock, err := onlyOne(h.intents().Dir)
	if err != nil {
		return err
	}
	defer unlock()
	at, err := a.attacher(h, log)
	if err != nil {
		return err
	}
	l, err := a.listen()
	if err != nil {
		return err
	}
	log.Info("weave attachd is up", "socket", a.attachSocket(), "plugs", h.intents().Dir, "version", version)
	return attachd.New(at, h.intents(), log).Run(ctx, l)
}

// listen takes the socket that a service manager opened, or opens its own.
func (a *app) listen() (net.Listener, error) {
	l, err := control.Inherit(os.Getenv)
	if l != nil || err != nil {
		return l, err
	}
	return control.Listen(a.attachSocket())
}

// onlyOne refuses to run beside another attachd of the same state.
func onlyOne(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "attachd.lock")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("another weave attachd runs: it holds %s", file)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
