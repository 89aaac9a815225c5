package cniconf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// Plugin is a CNI plugin: its name and what it does at each verb. None may be
// nil: CNI's library would answer "done" for it.
type Plugin struct {
	Name                        string
	Add, Check, Del, GC, Status func(context.Context, *Call) error
}

// Call is one invocation of a plugin.
type Call struct {
	Key   attachment.Key // ADD, DEL, CHECK; for GC and STATUS only its Network is set
	NetNS string         // CNI_NETNS; "" at a DEL whose namespace is gone
	NS    *netdev.NS     // ADD, CHECK: the container's namespace, open, neither ours nor the host's
	Args  Args           // CNI_ARGS

	CNIVersion string
	Stdin      []byte // the whole configuration

	out *output
}

// The time a verb has for its work; then its context ends. What it takes back
// then must fit before the bound, at which the process ends.
type allowance struct{ work, bound time.Duration }

func allowances(verb string) allowance {
	switch verb {
	case "STATUS":
		return allowance{2500 * time.Millisecond, 3 * time.Second}
	case "GC":
		return allowance{25 * time.Second, 30 * time.Second}
	default:
		return allowance{12 * time.Second, 15 * time.Second}
	}
}

// undoTime bounds one step of taking an ADD back.
const undoTime = 2500 * time.Millisecond

// UndoContext is for a step of an Undo, which must run when the call's own context has ended.
func UndoContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), undoTime)
}

// Main answers one CNI call from the environment and stdin, and exits.
func Main(p Plugin) { os.Exit(p.main()) }

func (p Plugin) main() int {
	// A runtime that has gone must not kill an ADD at its last line: the write
	// fails instead, and the ADD takes itself back.
	signal.Ignore(syscall.SIGPIPE)
	verb := os.Getenv("CNI_COMMAND")
	out := &output{}
	allow := allowances(verb)
	defer time.AfterFunc(allow.bound, func() {
		os.Exit(out.fail(Errorf(types.ErrTryAgainLater, "%s %s did not end within %v", p.Name, verb, allow.bound)))
	}).Stop()

	stdin, err := limitStdin()
	if err != nil {
		return out.fail(Errorf(types.ErrIOFailure, "read stdin: %v", err))
	}
	if verb == "DEL" {
		forgetUselessNetNS()
	}
	call := func(fn func(context.Context, *Call) error) func(*skel.CmdArgs) error {
		return func(a *skel.CmdArgs) error {
			if stdin.over.Load() {
				return tooLong()
			}
			return p.serve(verb, allow.work, a, out, fn)
		}
	}
	funcs := skel.CNIFuncs{Add: call(p.Add), Check: call(p.Check), Del: call(p.Del), GC: call(p.GC), Status: call(p.Status)}
	about := fmt.Sprintf("CNI %s plugin %s", p.Name, Version)
	coded := skel.PluginMainFuncsWithError(funcs, version.PluginSupports(supported()...), about)
	switch {
	case coded == nil:
		return 0
	case stdin.over.Load():
		coded = tooLong()
	}
	return out.fail(coded)
}

// serve makes a Call of what skel read and runs the verb. A panic is an error
// with code 999, after the verb's Undo has run.
func (p Plugin) serve(verb string, work time.Duration, a *skel.CmdArgs, out *output, fn func(context.Context, *Call) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = types.NewError(types.ErrInternal, fmt.Sprintf("%s %s: internal error: %v", p.Name, verb, r), string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), work)
	defer cancel()
	c, err := newCall(verb, a, out)
	if err != nil {
		return Coded(err)
	}
	if c.NS != nil {
		defer c.NS.Close()
	}
	if err := fn(ctx, c); err != nil {
		return Coded(err)
	}
	return nil
}

func newCall(verb string, a *skel.CmdArgs, out *output) (*Call, error) {
	var head struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
	}
	if err := json.Unmarshal(a.StdinData, &head); err != nil {
		return nil, Errorf(types.ErrDecodingFailure, "network configuration: %v", err)
	}
	out.version = head.CNIVersion
	c := &Call{
		Key:        attachment.Key{Network: head.Name, ContainerID: a.ContainerID, IfName: a.IfName},
		NetNS:      a.Netns,
		CNIVersion: head.CNIVersion, Stdin: a.StdinData, out: out,
	}
	if verb == "GC" || verb == "STATUS" {
		c.Key = attachment.Key{Network: head.Name}
		return c, nil
	}
	if err := c.Key.Validate(); err != nil {
		return nil, Errorf(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID, CNI_IFNAME: %v", err)
	}
	args, err := ParseArgs(a.Args)
	if verb == "DEL" {
		c.Args = args // what is wrong with them keeps nothing from being deleted
		return c, nil
	}
	if err != nil {
		return nil, Errorf(types.ErrInvalidEnvironmentVariables, "%v", err)
	}
	c.Args = args
	c.NS, err = openNetNS(a.Netns)
	return c, err
}

// openNetNS opens the container's namespace, once for the whole call. The
// namespace that the plugin runs in, and that of the host's first process, are
// refused before anything has been done: skel would say so only afterwards.
func openNetNS(path string) (*netdev.NS, error) {
	ns, err := netdev.OpenNS(path)
	switch {
	case errors.Is(err, netdev.ErrNSGone):
		return nil, Errorf(types.ErrUnknownContainer, "CNI_NETNS: %v", err)
	case err != nil:
		return nil, Errorf(types.ErrInvalidEnvironmentVariables, "CNI_NETNS: %v", err)
	case ns.IsOwn() || isHosts(ns):
		ns.Close()
		return nil, Errorf(types.ErrInvalidNetNS, "CNI_NETNS %q is the host's own network namespace: a container with host networking is not attached to a network", path)
	}
	return ns, nil
}

func isHosts(ns *netdev.NS) bool {
	var st syscall.Stat_t
	if syscall.Stat("/proc/1/ns/net", &st) != nil {
		return false // not ours to look at: then it is not ours to enter either
	}
	return ns.ID() == attachment.NSID{Dev: uint64(st.Dev), Ino: st.Ino}
}

// forgetUselessNetNS empties CNI_NETNS at a DEL when it is no container's
// namespace. DEL needs none; and both skel, after the work is done, and a
// delegated plugin would fail over it, or hang opening a FIFO.
func forgetUselessNetNS() {
	ns, err := openNetNS(os.Getenv("CNI_NETNS"))
	if err != nil {
		os.Unsetenv("CNI_NETNS")
		return
	}
	ns.Close()
}

// bounded stdin: skel reads os.Stdin to its end, however far that is.
type stdinLimit struct{ over atomic.Bool }

func tooLong() *types.Error {
	return Errorf(types.ErrDecodingFailure, "network configuration on stdin has more than %d bytes", MaxStdin)
}

// limitStdin puts a pipe in the place of os.Stdin that ends after MaxStdin
// bytes. over is set before that end can be read. The copying ends with stdin, or with the process.
func limitStdin() (*stdinLimit, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l, src := &stdinLimit{}, os.Stdin
	os.Stdin = r
	go func() {
		defer w.Close()
		if _, err := io.Copy(w, io.LimitReader(src, MaxStdin)); err != nil {
			return // skel sees a text cut short
		}
		if n, _ := src.Read(make([]byte, 1)); n > 0 {
			l.over.Store(true)
		}
	}()
	return l, nil
}

// output is the plugin's stdout: one JSON document, a result or an error, whoever is first.
type output struct {
	version string
	taken   atomic.Bool
	broken  atomic.Bool // it was taken for a result that could not be written
}

// Print writes the result, in the version that was asked for. It is the last
// step of an ADD: once it has returned nil nothing may fail any more.
func (c *Call) Print(r *current.Result) error {
	v, err := r.GetAsVersion(c.CNIVersion)
	if err != nil {
		return fmt.Errorf("result as version %s: %w", c.CNIVersion, err)
	}
	if !c.out.taken.CompareAndSwap(false, true) {
		return errors.New("print the result: the call has been answered already")
	}
	if err := v.PrintTo(os.Stdout); err != nil {
		c.out.broken.Store(true)
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// fail writes the error and gives the exit status. After a result it only says
// on stderr what came too late: the caller has its answer.
func (o *output) fail(e *types.Error) int {
	if !o.taken.CompareAndSwap(false, true) {
		fmt.Fprintln(os.Stderr, e)
		if o.broken.Load() {
			return 1
		}
		return 0
	}
	doc := struct {
		CNIVersion string `json:"cniVersion,omitempty"`
		*types.Error
	}{o.version, e}
	b, err := json.MarshalIndent(doc, "", "    ")
	if err == nil {
		_, err = os.Stdout.Write(append(b, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, e)
	}
	return 1
}
