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
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

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
	Given string         // CNI_NETNS as it was given, whatever is there
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
	if err := p.answer(verb, allow.work, out); err != nil {
		return out.fail(Coded(err))
	}
	return 0
}

// answer does what the environment and stdin ask for. CNI's pkg/skel would do
// the same, but compiles regular expressions at each start, reads stdin without a
// bound, and looks at the namespace when everything is done.
func (p Plugin) answer(verb string, work time.Duration, out *output) error {
	versions := supported()
	switch verb {
	case "":
		fmt.Fprintf(os.Stderr, "CNI %s plugin %s\nCNI protocol versions supported: %s\n", p.Name, Version, strings.Join(versions, ", "))
		return nil
	case "VERSION":
		return version.PluginSupports(versions...).Encode(os.Stdout)
	}
	v, known := p.verbs()[verb]
	if !known {
		return Errorf(types.ErrInvalidEnvironmentVariables, "unknown CNI_COMMAND: %s", clip(verb))
	}
	if err := v.checkEnv(); err != nil {
		return err
	}
	stdin, err := readStdin()
	if err != nil {
		return err
	}
	var conf head
	if err := conf.decode(stdin, versions); err != nil {
		return err
	}
	out.version = conf.CNIVersion
	if slices.Index(versions, conf.CNIVersion) < slices.Index(versions, v.since) {
		return types.NewError(types.ErrIncompatibleCNIVersion, "config version does not allow "+verb, fmt.Sprintf("it says %s; %s came with %s", conf.CNIVersion, verb, v.since))
	}
	return p.serve(verb, work, conf, stdin, out, v.do)
}

// verb is what CNI says of one.
type verb struct {
	do    func(context.Context, *Call) error
	since string   // the version of CNI that it came with; "" for ever
	needs []string // variables that must not be empty
}

func (p Plugin) verbs() map[string]verb {
	return map[string]verb{
		"ADD":    {p.Add, "", []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}},
		"DEL":    {p.Del, "", []string{"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"}},
		"CHECK":  {p.Check, "0.4.0", []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}},
		"GC":     {p.GC, "1.1.0", []string{"CNI_PATH"}},
		"STATUS": {p.Status, "1.1.0", []string{"CNI_PATH"}},
	}
}

func (v verb) checkEnv() error {
	missing := slices.DeleteFunc(v.needs, func(name string) bool { return os.Getenv(name) != "" })
	if len(missing) > 0 {
		return Errorf(types.ErrInvalidEnvironmentVariables, "required env variables [%s] missing", strings.Join(missing, ","))
	}
	return nil
}

func readStdin() ([]byte, error) {
	stdin, err := io.ReadAll(io.LimitReader(os.Stdin, MaxStdin+1))
	switch {
	case err != nil:
		return nil, Errorf(types.ErrIOFailure, "read stdin: %v", err)
	case len(stdin) > MaxStdin:
		return nil, Errorf(types.ErrDecodingFailure, "network configuration on stdin has more than %d bytes", MaxStdin)
	}
	return stdin, nil
}

// head is what of a configuration must be right before anything else is looked at.
type head struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
}

func (h *head) decode(stdin []byte, versions []string) error {
	if err := json.Unmarshal(stdin, h); err != nil {
		return Errorf(types.ErrDecodingFailure, "network configuration: %v", err)
	}
	if err := CheckName("name", h.Name); err != nil {
		return Errorf(types.ErrInvalidNetworkConfig, "network configuration: %v", err)
	}
	if !slices.Contains(versions, h.CNIVersion) {
		return types.NewError(types.ErrIncompatibleCNIVersion, "incompatible CNI versions",
			fmt.Sprintf("the configuration says %q, this plugin speaks %s", clip(h.CNIVersion), strings.Join(versions, ", ")))
	}
	return nil
}

// serve makes a Call and runs the verb. A panic is an error with code 999, after
// the verb's Undo has run.
func (p Plugin) serve(verb string, work time.Duration, conf head, stdin []byte, out *output, fn func(context.Context, *Call) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = types.NewError(types.ErrInternal, fmt.Sprintf("%s %s: internal error: %v", p.Name, verb, r), string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), work)
	defer cancel()
	c := &Call{Key: attachment.Key{Network: conf.Name}, CNIVersion: conf.CNIVersion, Stdin: stdin, out: out}
	if verb != "GC" && verb != "STATUS" {
		err = c.readEnv(verb)
	}
	if err != nil {
		return err
	}
	if c.NS != nil {
		defer c.NS.Close()
	}
	return fn(ctx, c)
}

// readEnv reads which attachment is meant. A DEL does without what it does not need.
func (c *Call) readEnv(verb string) (err error) {
	c.Key.ContainerID, c.Key.IfName = os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_IFNAME")
	if err := attachment.ValidContainerID(c.Key.ContainerID); err != nil {
		return Errorf(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID: %v", err)
	}
	if err := attachment.ValidIfName(c.Key.IfName); err != nil {
		return Errorf(types.ErrInvalidEnvironmentVariables, "CNI_IFNAME: %v", err)
	}
	c.Args, err = ParseArgs(os.Getenv("CNI_ARGS"))
	c.Given = os.Getenv("CNI_NETNS")
	if verb == "DEL" {
		forgetUselessNetNS()
		c.NetNS = os.Getenv("CNI_NETNS")
		return nil // what is wrong with the arguments keeps nothing from being deleted
	}
	if err != nil {
		return Errorf(types.ErrInvalidEnvironmentVariables, "%v", err)
	}
	c.NetNS = os.Getenv("CNI_NETNS")
	c.NS, err = openNetNS(c.NetNS)
	return err
}

// openNetNS opens the container's namespace, once for the whole call. The
// namespace that the plugin runs in, and that of the host's first process, are
// refused before anything has been done.
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
// namespace. DEL needs none, and a delegated plugin would fail over it, or hang
// opening a FIFO.
func forgetUselessNetNS() {
	ns, err := openNetNS(os.Getenv("CNI_NETNS"))
	if err != nil {
		os.Unsetenv("CNI_NETNS")
		return
	}
	ns.Close()
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
