package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Space is a set of namespaces in which commands and Go code run: a host's, a
// container's or the underlay's. Its methods may be called from any goroutine.
type Space struct {
	name  string
	where string        // the name as errors have it: a container's with its host's
	limit time.Duration // what Run allows a command
	net   *os.File      // network namespace
	mnt   *os.File      // mount namespace; nil: the program's own
	uts   *os.File      // host name; nil: the program's own
	// names is the directory whose files a process sees in place of those of
	// /etc, as ip-netns(8) has it for /etc/netns/NAME; "" or absent: none.
	names string
}

// Name is the host's or the container's name.
func (s *Space) Name() string { return s.name }

// Do runs f in the space: on a thread of its own, which has entered the
// namespaces and is thrown away afterwards. Only that thread is there, so f
// must not leave work that belongs in the space to goroutines that it starts;
// sockets, files and child processes that f opens stay what they are. A panic
// and runtime.Goexit (t.FailNow) pass through to the caller.
func (s *Space) Do(f func() error) error {
	var err error
	onThread(func() {
		if err = s.enter(); err == nil {
			err = f()
		}
	})
	return err
}

// enter moves the calling thread, which must be locked and spent afterwards, into the space.
func (s *Space) enter() error {
	if s.mnt != nil {
		// A thread that shares its root and working directory with others may not change mount namespace.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("enter %s: %w", s.where, err)
		}
	}
	for _, ns := range []struct {
		file *os.File
		kind int
	}{{s.uts, unix.CLONE_NEWUTS}, {s.net, unix.CLONE_NEWNET}, {s.mnt, unix.CLONE_NEWNS}} {
		if ns.file == nil {
			continue
		}
		if err := unix.Setns(int(ns.file.Fd()), ns.kind); err != nil {
			return fmt.Errorf("enter %s: %w", s.where, err)
		}
	}
	return s.overlayNames()
}

// overlayNames gives the thread a mount namespace in which the files of s.names lie over those of /etc.
func (s *Space) overlayNames() error {
	if s.names == "" {
		return nil
	}
	entries, err := os.ReadDir(s.names)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter %s: %w", s.where, err)
	}
	for _, e := range entries {
		from, to := filepath.Join(s.names, e.Name()), filepath.Join("/etc", e.Name())
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("enter %s: bind %s over %s: %w", s.where, from, to, err)
		}
	}
	return nil
}

// onThread runs f on a thread that ends with it and waits for it.
func onThread(f func()) {
	done := make(chan struct{})
	var returned bool
	var panicked any
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				panicked = fmt.Sprintf("%v\n\n%s", v, debug.Stack())
			}
		}()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end: it would hold what it entered for as long as
			// the process lives. While this goroutine keeps it, another one gets another.
			defer runtime.UnlockOSThread()
			onThread(f)
		} else {
			f()
		}
		returned = true
	}()
	<-done
	switch {
	case returned:
	case panicked != nil:
		panic(panicked)
	default:
		runtime.Goexit()
	}
}

// Cmd is an exec.Cmd whose process starts in a Space.
type Cmd struct {
	*exec.Cmd
	in *Space
}

// outputWithin bounds how long the output of a command that has ended is waited
// for. A process outside of its group may hold the pipe for ever; but what the
// command itself wrote is in the pipe by then, and must not be lost because the
// machine is too busy to read it at once.
const outputWithin = 30 * time.Second

// Command prepares a command that will run in the space; name is looked up in
// PATH outside of it. It starts in the caller's working directory unless Dir
// says otherwise, in a process group of its own, which is killed when ctx ends.
func (s *Space) Command(ctx context.Context, name string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		if errors.Is(err, unix.ESRCH) { // it ended, and was waited for, as ctx did
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = outputWithin
	// Entering a mount namespace moves the thread to its root.
	cmd.Dir, _ = os.Getwd()
	return &Cmd{Cmd: cmd, in: s}
}

// Start starts the command in its space.
func (c *Cmd) Start() error { return c.in.Do(c.Cmd.Start) }

// Run starts the command and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote to its standard output.
// The error holds what it wrote to standard error, unless Stderr was set.
func (c *Cmd) Output() ([]byte, error) {
	var out, complaint bytes.Buffer
	c.Stdout = &out
	if c.Stderr == nil {
		c.Stderr = &complaint
	}
	if err := c.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %s: %w%s", c.in.where, c, err, indented(complaint.String()))
	}
	return out.Bytes(), nil
}

// CombinedOutput runs the command and returns what it wrote to both outputs.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Run runs a command in the space and returns its standard output. It is
// killed, with its process group, when it takes longer than Options.Timeout.
// The error names the space and the command and holds its standard error.
func (s *Space) Run(name string, args ...string) (string, error) {
	return s.RunInput("", name, args...)
}

// RunInput is Run with something on the command's standard input.
func (s *Space) RunInput(input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.limit, fmt.Errorf("not done after %v", s.limit))
	defer cancel()
	cmd := s.Command(ctx, name, args...)
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	out, err := cmd.Output()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	return string(out), err
}

// MustRun is Run for a test, which it ends when the command fails.
func (s *Space) MustRun(t TB, name string, args ...string) string {
	t.Helper()
	out, err := s.Run(name, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// indented puts each line of a text on a line of its own below what came before.
func indented(text string) string {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return ""
	}
	return "\n\t" + strings.ReplaceAll(text, "\n", "\n\t")
}
