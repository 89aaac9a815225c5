package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a process that runs on in a space, with its output in a file. Its
// methods may be called from any goroutine.
type Daemon struct {
	in   *Space
	path string
	args []string
	log  string // file, in the program's own mount namespace

	mu   sync.Mutex // guards cmd and done
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended and was waited for
}

// Start starts a program in the host's namespaces. It gets no input; what it
// writes is appended to a file of the lab, LogFile, that goes with the lab.
// The program is killed when the lab closes, if not before.
func (h *Host) Start(path string, args ...string) (*Daemon, error) {
	return h.lab.start(h.Space, path, args)
}

// Start starts a program in the container, as Host.Start does on a host.
func (c *Container) Start(path string, args ...string) (*Daemon, error) {
	return c.host.lab.start(c.Space, path, args)
}

// StartRouter runs `weaver --name NAME`, from Options.Bin, with
// Options.RouterArgs and then args. It does not wait until the router is ready.
func (h *Host) StartRouter(args ...string) (*Daemon, error) {
	if h.lab.opts.Bin == "" {
		return nil, errors.New("start the router: Options.Bin is not set")
	}
	all := append([]string{"--name", h.name}, h.lab.opts.RouterArgs...)
	d, err := h.Start(filepath.Join(h.lab.opts.Bin, "weaver"), append(all, args...)...)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.router = d
	return d, nil
}

// Router is the router that StartRouter started last; nil: none yet.
func (h *Host) Router() *Daemon {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.router
}

func (l *Lab) start(in *Space, path string, args []string) (*Daemon, error) {
	name := strings.ReplaceAll(in.where, "/", "-") + "-" + filepath.Base(path) + "-*.log"
	file, err := os.CreateTemp(l.dir, name)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	file.Close()
	d := &Daemon{in: in, path: path, args: args, log: file.Name()}
	if err := d.start(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.daemons = append(l.daemons, d)
	return d, nil
}

// start runs the program. Callers hold mu or are the only ones to know d.
func (d *Daemon) start() error {
	log, err := os.OpenFile(d.log, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("start %s on %s: %w", d.path, d.in.where, err)
	}
	defer log.Close()
	cmd := exec.Command(d.path, d.args...)
	cmd.Dir, _ = os.Getwd()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = log, log
	if err := d.in.Do(cmd.Start); err != nil {
		return fmt.Errorf("start %s on %s: %w", d.path, d.in.where, err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	d.cmd, d.done = cmd, done
	return nil
}

func (d *Daemon) current() (*exec.Cmd, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd, d.done
}

// PID is the process' number, also when it has ended.
func (d *Daemon) PID() int {
	cmd, _ := d.current()
	return cmd.Process.Pid
}

// Done is closed when the process has ended and was waited for: it is not even a zombie then.
func (d *Daemon) Done() <-chan struct{} {
	_, done := d.current()
	return done
}

// State says how the process ended; nil while it runs.
func (d *Daemon) State() *os.ProcessState {
	cmd, done := d.current()
	select {
	case <-done:
		return cmd.ProcessState
	default:
		return nil
	}
}

// Signal sends a signal to the process, not to its children. SIGSTOP and
// SIGCONT freeze and thaw it. One that has ended is an error (os.ErrProcessDone).
func (d *Daemon) Signal(s syscall.Signal) error {
	cmd, _ := d.current()
	if err := cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %v to %s on %s: %w", s, d.path, d.in.where, err)
	}
	return nil
}

// Pause stops the process (SIGSTOP) and returns when every thread of it stands still.
func (d *Daemon) Pause() error {
	if err := d.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	return Wait(d.in.limit, d.path+" stands still", func() error { return threadsStopped(d.PID()) })
}

// threadsStopped fails while a thread of the process runs.
func threadsStopped(pid int) error {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		stat, err := os.ReadFile(filepath.Join(dir, t.Name(), "stat"))
		if err != nil {
			return err
		}
		rest := stat[bytes.LastIndexByte(stat, ')')+1:]
		if !bytes.HasPrefix(rest, []byte(" T")) {
			return fmt.Errorf("thread %s runs", t.Name())
		}
	}
	return nil
}

// Resume continues what Pause stopped.
func (d *Daemon) Resume() error { return d.Signal(unix.SIGCONT) }

// Stop asks the process to end (SIGTERM, and SIGCONT should it be paused) and
// waits until it has. One that does not within Options.Timeout is killed, and
// that is an error, as is an exit code other than 0. One that has ended before is not.
func (d *Daemon) Stop() error {
	cmd, done := d.current()
	select {
	case <-done:
		return nil
	default:
	}
	if err := errors.Join(d.Signal(unix.SIGTERM), d.Signal(unix.SIGCONT)); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	limit := time.NewTimer(d.in.limit)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		err := d.Kill()
		return errors.Join(fmt.Errorf("%s on %s did not end within %v of SIGTERM%s", d.path, d.in.where, d.in.limit, indented(d.Log())), err)
	}
	if w := cmd.ProcessState.Sys().(syscall.WaitStatus); w.Exited() && w.ExitStatus() != 0 || w.Signaled() && w.Signal() != unix.SIGTERM {
		return fmt.Errorf("%s on %s ended with %v%s", d.path, d.in.where, cmd.ProcessState, indented(d.Log()))
	}
	return nil
}

// Kill ends the process with SIGKILL and waits until it is gone. Its children are left alone.
func (d *Daemon) Kill() error {
	if err := d.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.in.limit)
	defer cancel()
	return d.end(ctx)
}

// end waits for the process' end.
func (d *Daemon) end(ctx context.Context) error {
	select {
	case <-d.Done():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s on %s does not end", d.path, d.in.where)
	}
}

// Restart starts the process again with the same arguments and the same log,
// after stopping it should it still run.
func (d *Daemon) Restart() error {
	if err := d.Stop(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.start()
}

// WaitFor waits for a condition as Wait does, but not longer than the process
// lives. The error ends with the end of its log.
func (d *Daemon) WaitFor(limit time.Duration, what string, cond func() error) error {
	var ended error
	err := Wait(limit, what, func() error {
		err := cond()
		if state := d.State(); err != nil && state != nil {
			ended = fmt.Errorf("%s on %s ended with %v before: %s: %w", d.path, d.in.where, state, what, err)
			return nil
		}
		return err
	})
	if err = errors.Join(err, ended); err != nil {
		return fmt.Errorf("%w%s", err, indented(d.Log()))
	}
	return nil
}

// LogFile is the file with the process' output, for as long as the lab is open.
func (d *Daemon) LogFile() string { return d.log }

// Log is the end of the process' output, at most 16 KiB of it.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	const most = 16 << 10
	if len(b) > most {
		b = append([]byte("…"), b[len(b)-most:]...)
	}
	return string(b)
}
