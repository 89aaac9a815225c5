package cniconf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxOutput = 1 << 20                // bytes taken of what a delegated plugin prints
	maxStderr = 1 << 20                // bytes that it can write to stderr
	maxErrors = 4 << 10                // bytes of them that are handed on
	killGrace = 500 * time.Millisecond // from its kill until its stdout, which its children may hold, is given up
)

// child is a delegated plugin that runs. os/exec would start a goroutine for each
// of its streams and one for the context, which means threads, and try out at
// the first use what the kernel can do, with a process: together more than the
// plugin itself costs. Here stdin and stderr are files in memory, and one
// goroutine reads stdout.
type child struct {
	stdout *os.File
	stderr int // a file of maxStderr bytes that cannot grow

	mu  sync.Mutex
	pid int // 0 when it has been waited for
}

// startChild runs a program with a text on its stdin.
func startChild(path string, env []string, stdin []byte) (*child, error) {
	in, err := memory("stdin", func(fd int) error { return fill(fd, stdin) })
	if err != nil {
		return nil, fmt.Errorf("stdin for %s: %w", path, err)
	}
	defer unix.Close(in)
	errs, err := memory("stderr", bound)
	if err != nil {
		return nil, fmt.Errorf("stderr for %s: %w", path, err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		unix.Close(errs)
		return nil, fmt.Errorf("stdout for %s: %w", path, err)
	}
	defer w.Close()
	c := &child{stdout: out, stderr: errs}
	c.pid, err = syscall.ForkExec(path, []string{path}, &syscall.ProcAttr{Env: env, Files: []uintptr{uintptr(in), w.Fd(), uintptr(errs)}})
	if err != nil {
		c.close()
		return nil, fmt.Errorf("run %s: %w", path, err)
	}
	return c, nil
}

// memory is a file that no directory has, made ready by prepare.
func memory(name string, prepare func(fd int) error) (fd int, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	if err := prepare(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// fill writes a text that is to be read from its start.
func fill(fd int, content []byte) error {
	for off := 0; off < len(content); {
		n, err := unix.Pwrite(fd, content[off:], int64(off))
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// bound gives an empty file its final size: a plugin that complains without end fills no memory.
func bound(fd int) error {
	if err := unix.Ftruncate(fd, maxStderr); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW)
	return err
}

// wait reads what the child prints until it has ended, and says how it ended and
// what it wrote to stderr last. It is killed when ctx ends.
func (c *child) wait(ctx context.Context) (stdout, stderr []byte, err error) {
	defer c.close()
	defer context.AfterFunc(ctx, c.kill)()
	stdout, err = io.ReadAll(io.LimitReader(c.stdout, maxOutput+1))
	if len(stdout) > maxOutput {
		c.kill()
		stdout, err = nil, fmt.Errorf("printed more than %d bytes", maxOutput)
	}
	err = errors.Join(err, c.reap())
	return stdout, c.said(), err
}

// said is the end of what the child has written to stderr: its position there is ours too.
func (c *child) said() []byte {
	end, err := unix.Seek(c.stderr, 0, io.SeekCurrent)
	if err != nil || end <= 0 {
		return nil
	}
	b := make([]byte, min(end, maxErrors))
	n, err := unix.Pread(c.stderr, b, end-int64(len(b)))
	if err != nil {
		return nil
	}
	return b[:n]
}

func (c *child) close() {
	c.stdout.Close()
	unix.Close(c.stderr)
}

// kill ends the child, and the wait for its children.
func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pid == 0 {
		return
	}
	_ = unix.Kill(c.pid, unix.SIGKILL) // one that has ended is there until it is reaped
	_ = c.stdout.SetReadDeadline(time.Now().Add(killGrace))
}

func (c *child) reap() error {
	for {
		// It stays a zombie until kill cannot meet another process of its number.
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("wait for it: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var ws unix.WaitStatus
	_, err := unix.Wait4(c.pid, &ws, 0, nil)
	c.pid = 0
	switch {
	case err != nil:
		return fmt.Errorf("wait for it: %w", err)
	case ws.Signaled():
		return fmt.Errorf("ended by signal %d (%v)", ws.Signal(), ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	return nil
}

// environ is our environment with another verb, and with one processor for the Go
// runtime, as nearly every plugin is written in Go: it has one thing to do, and
// starts an eighth faster when it does not look how many there are.
func environ(verb string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CNI_COMMAND=") || strings.HasPrefix(v, "GOMAXPROCS=")
	})
	return append(env, "CNI_COMMAND="+verb, "GOMAXPROCS=1")
}
