// Command weave shows what the weave router of this host does, and prepares
// what a host needs to run it.
//
// It talks to the router over its unix socket and is linked from nothing of it,
// so that it says something clear when the router is not there. Exit codes:
//
//	0  done
//	1  failed; the reason is on stderr
//	2  used wrongly
//	3  the router does not answer
//	4  status only: the router answers, but ADD cannot be served now
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/identity"
)

// version is set by build.sh.
var version = "unknown"

const (
	exitFailed   = 1
	exitUsage    = 2
	exitNoRouter = 3
	exitNotReady = 4
)

// answerIn bounds one question to the router, so that a command that only asks has its
// answer, or the reason why there is none, within 2 s. doneIn bounds one order.
const (
	answerIn = 1500 * time.Millisecond
	doneIn   = 30 * time.Second
)

// exit is an error with the code to end with. Its text may be empty: then
// everything has been said.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

// app is what all commands share: where to write, and which router to ask.
type app struct {
	out    io.Writer
	err    io.Writer // for what is said beside the answer
	paint  palette
	socket string
	now    func() time.Time
	screen func() (rows, columns int, ok bool) // of the terminal; nil or not ok: it is none
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	a := &app{out: os.Stdout, paint: paletteFor(os.Stdout, os.Getenv), now: time.Now, screen: screenOf(os.Stdout, os.Getenv)}
	os.Exit(a.run(ctx, os.Args[1:], os.Getenv, os.Stderr))
}

// run does one command and returns the exit code.
func (a *app) run(ctx context.Context, args []string, env func(string) string, stderr io.Writer) int {
	root := a.commands(env)
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(stderr)
	a.err = stderr
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if text := err.Error(); text != "" {
		if strings.HasPrefix(text, "unknown ") { // cobra's own
			text += "; `weave --help` shows what there is"
		}
		fmt.Fprintln(stderr, "weave:", text)
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var e exit
	if errors.As(err, &e) {
		return e.code
	}
	return exitUsage // cobra's own errors are all about flags and arguments
}

func (a *app) commands(env func(string) string) *cobra.Command {
	root := &cobra.Command{
		Use:   "weave",
		Short: "Show and prepare the weave network of this host",
		Long: `weave shows what the weave router of this host does, and prepares what a host
needs to run it.

It ends with 0 when done, 1 when it failed, 2 when used wrongly, 3 when the
router does not answer, and "status" with 4 when no container can be added now.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return inWords(err) })
	socket := env("WEAVE_SOCKET")
	if socket == "" {
		socket = ctl.DefaultSocket
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", socket, "the router's socket (environment: WEAVE_SOCKET)")
	root.AddCommand(a.status(), a.ps(), a.report(), a.trace(), a.rmpeer(), a.connect(), a.forget(), a.reset(), a.conflist(), a.secret(), a.version())
	root.AddCommand(a.net(), a.dns(), a.attachd(), a.top(), a.doctor())
	return root
}

// inWords is an error of flags without the name of Go's function that met it.
func inWords(err error) error {
	text, by, is := strings.Cut(err.Error(), ": strconv.")
	switch {
	case !is:
		return err
	case strings.HasPrefix(by, "ParseBool"):
		return errors.New(text + ": want true or false")
	}
	return errors.New(text + ": want a number")
}

// does turns a function into a command's work, with exit code 1 for its errors
// unless they carry another.
func does(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		err := f(c.Context(), args)
		if err == nil || errors.As(err, &exit{}) {
			return err
		}
		return exit{exitFailed, err}
	}
}

// ask gets one of the router's answers; an error says what to do about it.
func (a *app) ask(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	return a.call(ctx, path, nil, answer)
}

// tell has the router do something, which may take a decision of the cluster. A router
// that hangs is known by a question first: nobody waits doneIn for it.
func (a *app) tell(ctx context.Context, path string, in, answer any) error {
	if err := a.answers(ctx); err != nil {
		return err
	}
	return a.order(ctx, path, in, answer)
}

// answers fails where the router is away or hangs, whatever it says of its readiness.
func (a *app) answers(ctx context.Context) error {
	if err := a.ask(ctx, ctl.PathReady, nil); err != nil && exitCode(err) == exitNoRouter {
		return err
	}
	return nil
}

// order is tell of a router that has just answered.
func (a *app) order(ctx context.Context, path string, in, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, doneIn)
	defer cancel()
	return a.call(ctx, path, in, answer)
}

// hangs is said of a router that is there and does not answer.
const hangs = "though it runs"

func (a *app) call(ctx context.Context, path string, in, answer any) error {
	err := ctl.New(a.socket, 0).Call(ctx, path, in, answer)
	switch {
	case err == nil:
		return nil
	case ctl.IsUnavailable(err) && errors.Is(unix.Access(a.socket, unix.W_OK), unix.EACCES):
		return exit{exitNoRouter, fmt.Errorf("%s: permission denied; run it as root", a.socket)}
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return exit{exitNoRouter, fmt.Errorf("the weave router does not answer at %s, "+hangs+": it hangs, was stopped (SIGSTOP), or this host is far too busy\n"+
			"see what it does with: journalctl -u weaver; ps -C weaver -o pid,stat,time\na restart costs no packet: systemctl restart weaver", a.socket)}
	case ctl.IsUnavailable(err):
		return exit{exitNoRouter, fmt.Errorf("the weave router does not answer at %s\nstart it with: weaver [flags] [PEER…]", a.socket)}
	default:
		return exit{exitFailed, err}
	}
}

func (a *app) secret() *cobra.Command {
	c := &cobra.Command{
		Use:   "secret",
		Short: "Make the secret that the hosts of a cluster share",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "new",
		Short: "Print a new secret",
		Long: `Print a new secret, of 256 random bits. Whoever has it can join the cluster:
give it to every host in a file that only root can read.`,
		Example: "  (umask 077; weave secret new > /etc/weave/secret)",
		Args:    cobra.NoArgs,
		RunE: does(func(context.Context, []string) error {
			s, err := identity.NewSecret()
			if err == nil {
				_, err = fmt.Fprintln(a.out, s)
			}
			return err
		}),
	})
	return c
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this command and of the router",
		Args:  cobra.NoArgs,
		RunE: does(func(ctx context.Context, _ []string) error {
			fmt.Fprintln(a.out, "weave ", version)
			var s ctl.Status
			if a.ask(ctx, ctl.PathStatus, &s) == nil {
				fmt.Fprintln(a.out, "weaver", s.Version)
			}
			return nil
		}),
	}
}
