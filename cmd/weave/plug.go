package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weave-cni/weave-cni/pkg/attach"
	"github.com/weave-cni/weave-cni/pkg/conflist"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/runtimes"
)

// plugIn bounds a plug or unplug: the ADD of a slow host, and its undoing.
const plugIn = 35 * time.Second

// plugCommands are those of `weave net` about containers.
func (a *app) plugCommands() []*cobra.Command {
	return []*cobra.Command{a.plug(), a.unplug(), a.hook()}
}

// here is what a plug that this process does itself works with.
type here struct {
	conflists  string
	plugins    []string
	state      string
	containerd string
	docker     string
	names      []string // of its flags
}

// register adds the flags. Where attachd usually does the work they are hidden: its help has them.
func (h *here) register(s *pflag.FlagSet, hidden bool) {
	before := map[string]bool{}
	s.VisitAll(func(f *pflag.Flag) { before[f.Name] = true })
	s.StringVar(&h.conflists, "conflist-dir", conflist.Dir, "the directory of the network lists")
	s.StringArrayVar(&h.plugins, "plugin-dir", conflist.PluginDirs(), "a directory of plugins; may be repeated, in the order of the search")
	s.StringVar(&h.state, "state-dir", stateDir, "directory that survives a reboot: what is plugged is kept in its plugs")
	s.StringVar(&h.containerd, "containerd", runtimes.ContainerdSocket, "containerd's socket")
	s.StringVar(&h.docker, "docker", runtimes.DockerSocket, "dockerd's socket")
	s.VisitAll(func(f *pflag.Flag) {
		if !before[f.Name] {
			h.names = append(h.names, f.Name)
			f.Hidden = hidden
		}
	})
}

// given reports whether the user said one of these: then this process does the work.
func (h *here) given(s *pflag.FlagSet) bool {
	for _, name := range h.names {
		if s.Changed(name) {
			return true
		}
	}
	return false
}

func (h *here) intents() attach.Intents { return attach.Intents{Dir: filepath.Join(h.state, "plugs")} }

// attacher puts the parts together.
func (a *app) attacher(h *here, log *slog.Logger) (*attach.Attacher, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := a.absolute(h); err != nil {
		return nil, err
	}
	hook := []string{self, "net", "hook", "--socket", a.socket, "--conflist-dir", h.conflists, "--state-dir", h.state}
	for _, d := range h.plugins {
		hook = append(hook, "--plugin-dir", d)
	}
	containerd, docker := runtimes.Containerd{Socket: h.containerd}, runtimes.Docker{Socket: h.docker}
	return &attach.Attacher{
		CNI:     attach.CNI{ConfDir: h.conflists, PluginDirs: h.plugins, CacheDir: filepath.Join(h.state, "plugs", "cni")},
		Intents: h.intents(),
		Finder:  runtimes.Finder{Runtimes: []runtimes.Runtime{runtimes.Podman{}, containerd, docker}},
		Podman:  runtimes.Podman{},
		Hooks:   containerd,
		Router:  ctl.New(a.socket, 0),
		Hook:    hook,
		Log:     log,
	}, nil
}

// absolute makes all paths so: a hook is run in another directory.
func (a *app) absolute(h *here) (err error) {
	paths := []*string{&a.socket, &h.conflists, &h.state, &h.containerd, &h.docker}
	h.plugins = slices.Clone(h.plugins)
	for i := range h.plugins {
		paths = append(paths, &h.plugins[i])
	}
	for _, p := range paths {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

// attachSocket is attachd's, beside the router's.
func (a *app) attachSocket() string {
	return filepath.Join(filepath.Dir(a.socket), filepath.Base(ctl.AttachSocket))
}

// both wants a container, and what it is to be plugged into or out of.
func both(usage string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 2 {
			return fmt.Errorf("%s given; want: %s", count(len(args), "argument"), usage)
		}
		return nil
	}
}

func (a *app) plug() *cobra.Command {
	var h here
	var req ctl.AttachRequest
	var ips []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "plug [flags] CONTAINER NETWORK",
		Short: "Give a container an interface on a network, and print the endpoint's id",
		Long: `plug gives a container one more interface, on NETWORK, and prints the endpoint's id.

CONTAINER is an id or its beginning, or a name, in podman, containerd, nerdctl,
docker or CRI; RUNTIME:NAME where several have it; pid:N, a process; or the path of
a network namespace. One that does not run yet has the interface before its first
process starts, where its runtime has a road for that.

` + "`weave attachd` does it if it runs; then the endpoint comes back with the container.\nIts flags that name directories and sockets are taken here too; then this command does it itself.",
		Example: "  weave net plug web backend\n  weave net plug --ip 10.32.0.80 --name db pid:4711 weave",
		Args:    both("weave net plug [flags] CONTAINER NETWORK"),
	}
	f := c.Flags()
	f.StringArrayVar(&ips, "ip", nil, "the address to have, of IPv4 or IPv6; on a network of both it has that one alone")
	f.StringVar(&req.MAC, "mac", "", "the hardware address to have")
	f.StringArrayVar(&req.Names, "name", nil, "the container's name on the network, in the place of the one it has (podman adds that where it attaches); may be repeated")
	f.StringArrayVar(&req.Aliases, "alias", nil, "one more name; may be repeated")
	f.StringVar(&req.IfName, "ifname", "", "the interface's name (default: the first ethN that is free)")
	f.BoolVar(&asJSON, "json", false, "print all that was given, as JSON")
	h.register(f, true)
	c.RunE = does(func(ctx context.Context, args []string) error {
		req.ContainerID, req.Endpoint = args[0], args[1]
		if err := wishes(&req, ips); err != nil {
			return exit{exitUsage, err}
		}
		ctx, cancel := context.WithTimeout(ctx, plugIn)
		defer cancel()
		out, err := a.doPlug(ctx, &h, h.given(f), req)
		if err != nil {
			return a.asRoot(err)
		}
		if out.Note != "" {
			fmt.Fprintln(a.err, "weave: "+out.Note)
		}
		if asJSON {
			return a.printJSON(out)
		}
		_, err = fmt.Fprintln(a.out, out.EndpointID)
		return err
	})
	return c
}

// wishes completes a request with the address of --ip, and refuses what can be none.
func wishes(req *ctl.AttachRequest, ips []string) error {
	if len(ips) > 1 {
		return fmt.Errorf("--ip is given %d times (%s): an endpoint is given one address of those that are asked for; which?", len(ips), strings.Join(ips, ", "))
	}
	for _, ip := range ips {
		if _, err := netip.ParseAddr(ip); err != nil && ip != "" {
			return fmt.Errorf("--ip %q: want an address, such as 10.32.0.80", ip)
		}
		req.IP = ip
	}
	if mac, err := net.ParseMAC(req.MAC); req.MAC != "" && (err != nil || len(mac) != 6) {
		return fmt.Errorf("--mac %q: want a hardware address, such as 02:42:0a:20:00:50", req.MAC)
	}
	return nil
}

func (a *app) doPlug(ctx context.Context, h *here, itself bool, req ctl.AttachRequest) (out ctl.Attached, err error) {
	if err := req.Settle(); err != nil {
		return out, err
	}
	at, err := a.attacher(h, slog.New(slog.DiscardHandler))
	if err != nil {
		return out, err
	}
	p := a.whoAnswers(ctx)
	switch {
	case !itself && p.hung != nil:
		return out, p.hung
	case p.router != nil && at.NeedsRouter(req.Endpoint):
		return out, p.router
	case !itself && p.attachd:
		err = a.byAttachd(ctx, ctl.PathNetAttach, req, &out)
		return out, err
	}
	if out, err = at.Plug(ctx, req); err != nil {
		return out, err
	}
	if i, e := h.intents().Get(out.EndpointID); e == nil && i.Road == attach.ByCNI && !p.attachd {
		fmt.Fprintln(a.err, "weave: attachd does not run: when the container restarts, the endpoint comes back only once it does (weave attachd)")
	}
	return out, nil
}

// asRoot adds what to do about an error that a user other than root gets for being one.
func (a *app) asRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w; run it as root", err)
	}
	return err
}

func (a *app) unplug() *cobra.Command {
	var h here
	c := &cobra.Command{
		Use:   "unplug [flags] CONTAINER ENDPOINT|NETWORK",
		Short: "Take an endpoint away that plug gave a container",
		Long: `unplug takes the interface away that plug gave, and its address and names.
ENDPOINT is the id that plug printed and weave ps shows, or its beginning; NETWORK
does where the container has one endpoint there. What a container has from its
runtime is the runtime's to take.`,
		Example: "  weave net unplug web 5a624939c64c\n  weave net unplug web backend",
		Args:    both("weave net unplug [flags] CONTAINER ENDPOINT|NETWORK"),
	}
	h.register(c.Flags(), true)
	c.RunE = does(func(ctx context.Context, args []string) error {
		ctx, cancel := context.WithTimeout(ctx, plugIn)
		defer cancel()
		byID, byNetwork := detachRequests(args[0], args[1])
		if byID == nil {
			return a.asRoot(a.doUnplug(ctx, &h, h.given(c.Flags()), byNetwork))
		}
		err := a.doUnplug(ctx, &h, h.given(c.Flags()), *byID)
		var coded *ctl.Error
		if errors.As(err, &coded) && coded.Code == ctl.CodeUnknownContainer { // a network may be called like an id
			if a.doUnplug(ctx, &h, h.given(c.Flags()), byNetwork) == nil {
				return nil
			}
		}
		return a.asRoot(err)
	})
	return c
}

// detachRequests is what an unplug may mean: an endpoint's id (nil when it can be none),
// or a network.
func detachRequests(container, what string) (byID *ctl.DetachRequest, byNetwork ctl.DetachRequest) {
	if len(what) >= 4 && strings.Trim(strings.ToLower(what), "0123456789abcdef") == "" {
		byID = &ctl.DetachRequest{ContainerID: container, EndpointID: what}
	}
	return byID, ctl.DetachRequest{ContainerID: container, Network: what}
}

func (a *app) doUnplug(ctx context.Context, h *here, itself bool, req ctl.DetachRequest) error {
	at, err := a.attacher(h, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	p := a.whoAnswers(ctx)
	switch {
	case !itself && p.hung != nil:
		return p.hung
	case p.router != nil && strings.Contains(p.router.Error(), hangs): // a DEL does without one that is away
		return p.router
	case !itself && p.attachd:
		return a.byAttachd(ctx, ctl.PathNetDetach, req, nil)
	}
	return at.Unplug(ctx, req)
}

// hook is what runtimes run when they start a container that was plugged.
func (a *app) hook() *cobra.Command {
	var h here
	c := &cobra.Command{
		Use:    "hook [flags] ENDPOINT",
		Short:  "Give a container that is being started its endpoint: for runtimes, as an OCI hook",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
	}
	h.register(c.Flags(), true)
	c.RunE = does(func(ctx context.Context, args []string) error {
		pid, err := statePID(os.Stdin)
		if err != nil {
			return err
		}
		at, err := a.attacher(&h, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, plugIn)
		defer cancel()
		return at.Started(ctx, args[0], pid)
	})
	return c
}

// maxState bounds what a runtime tells a hook, in bytes.
const maxState = 1 << 20

// statePID reads the process from the container's state, as an OCI runtime gives it to hooks.
func statePID(in io.Reader) (int, error) {
	var state struct {
		PID int `json:"pid"`
	}
	if err := json.NewDecoder(io.LimitReader(in, maxState)).Decode(&state); err != nil {
		return 0, fmt.Errorf("the container's state on stdin: %w", err)
	}
	if state.PID <= 0 {
		return 0, errors.New("the container's state on stdin names no process")
	}
	return state.PID, nil
}
