package netlab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotIsolated says that this process is not inside private namespaces.
var ErrNotIsolated = errors.New("not in namespaces of its own")

// stageEnv tells a re-executed process what it is: stageInit, or "inside:"
// and the link of the process namespace that it must find itself in.
const (
	stageEnv    = "NETLAB_STAGE"
	stageInit   = "init"
	stageInside = "inside:"
)

// Main is the body of TestMain for a package that uses netlab:
//
//	func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }
//
// It runs the tests in namespaces of their own (see Isolate). Where this
// machine does not allow that it runs them as they are, and every test that
// asks for a lab skips with the reason.
func Main(m interface{ Run() int }) int {
	if err := Isolate(); err != nil {
		fmt.Fprintf(os.Stderr, "netlab: %v: tests that need hosts will skip\n", err)
	}
	return m.Run()
}

// Isolate moves the whole program into private mount, network, process, UTS
// and IPC namespaces, below a small init; for a user without privileges into a
// private user namespace too, as its root. A program that will Open a lab
// calls it first of all, before it writes anything or starts goroutines:
// namespaces cannot be changed for a running Go program, so it executes itself again and
// in the first process never returns, but exits as the second one does.
//
// That is what makes a lab leave nothing: whatever ends the program, SIGKILL
// included, ends its init, and the kernel then kills every process of the
// process namespace and with the last of them goes every mount and link.
//
// In the new namespaces /run is an empty tmpfs; /etc, /opt and /var/lib are
// tmpfs too, with what was in them bound there one by one, so that entries can
// be added without touching the machine; the network has a loopback and
// nothing else. All other files are the machine's own.
//
// An error means that nothing has changed and says what the machine refused.
func Isolate() error {
	switch stage := os.Getenv(stageEnv); {
	case isolated():
		return nil
	case stage == stageInit:
		runInit()
	}
	return runOutside()
}

// isolated reports whether Isolate has done its work for this process.
func isolated() bool {
	want, ok := strings.CutPrefix(os.Getenv(stageEnv), stageInside)
	if !ok {
		return false
	}
	have, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && have == want && privileged()
}

// privileged reports whether this process may make and enter namespaces.
func privileged() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_CHROOT
	return data[0].Effective&need == need
}

// runOutside is the first process: it starts the init, passes signals on to it
// and exits with its status. It returns only when the init could not do its work.
func runOutside() error {
	// The death signal is sent when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	verdictR, verdictW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("isolate: %w", err)
	}
	defer verdictR.Close()
	lifeR, lifeW, err := os.Pipe()
	if err != nil {
		verdictW.Close()
		return fmt.Errorf("isolate: %w", err)
	}
	defer lifeW.Close()

	cmd := initCommand()
	cmd.ExtraFiles = []*os.File{verdictW, lifeR}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP)
	defer signal.Stop(signals)
	err = cmd.Start()
	verdictW.Close()
	lifeR.Close()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotIsolated, err)
	}
	verdict, _ := io.ReadAll(verdictR)
	if string(verdict) != "ok" {
		cmd.Wait()
		return fmt.Errorf("%w: %s", ErrNotIsolated, verdict)
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	cmd.Wait()
	os.Exit(exitCode(cmd.ProcessState))
	return nil
}

func initCommand() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageEnv+"="+stageInit)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		// Out of the terminal's reach: a signal from there comes once, through the first process.
		Setpgid: true,
	}
	if !privileged() {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	return cmd
}

// runInit is process 1 of the new process namespace. It prepares the mounts,
// starts the program proper, buries every orphan and exits as the program does. It never returns.
func runInit() {
	verdict, life := os.NewFile(3, "verdict"), os.NewFile(4, "life")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	fail := func(err error) {
		fmt.Fprint(verdict, err)
		os.Exit(1)
	}
	if err := prepareMounts(); err != nil {
		fail(err)
	}
	inside, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		fail(err)
	}
	if err := linkUp("lo"); err != nil {
		fail(err)
	}
	go func() { // the first process holds the other end for as long as it lives
		life.Read(make([]byte, 1))
		os.Exit(1)
	}()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageEnv+"="+stageInside+inside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fail(err)
	}
	fmt.Fprint(verdict, "ok")
	verdict.Close()
	go func() {
		for s := range signals {
			unix.Kill(cmd.Process.Pid, s.(syscall.Signal))
		}
	}()
	os.Exit(bury(cmd.Process.Pid))
}

// bury waits for every child, adopted ones too, until the one named ends, and returns its exit code.
func bury(child int) int {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 1
		case pid != child:
		case status.Signaled():
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}

func exitCode(s *os.ProcessState) int {
	if w := s.Sys().(syscall.WaitStatus); w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// opened are the directories in which a lab makes mount points. They belong to
// the machine, so each becomes a tmpfs that shows the machine's entries.
var opened = [...]string{"/etc", "/opt", "/var/lib"}

// ownFiles are files that each host has for itself. They are made plain files
// first: on a machine they may be absent or symbolic links into /run.
var ownFiles = [...]string{"/etc/hostname", "/etc/machine-id", "/etc/resolv.conf"}

// prepareMounts makes the mounts that Isolate promises.
func prepareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, dir := range opened {
		if err := open(dir); err != nil {
			return fmt.Errorf("open %s for mount points: %w", dir, err)
		}
	}
	for _, f := range ownFiles {
		if err := plainFile(f); err != nil {
			return err
		}
	}
	return mountTmpfs("/run")
}

func mountTmpfs(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

// open replaces dir by a tmpfs with a bind mount for each entry that was in it.
func open(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if err := mountTmpfs(dir); err != nil {
		return err
	}
	for _, e := range entries {
		from, to := fmt.Sprintf("/proc/self/fd/%d/%s", fd, e.Name()), filepath.Join(dir, e.Name())
		if err := show(e, from, to); err != nil {
			return fmt.Errorf("show %s: %w", to, err)
		}
	}
	return nil
}

// show makes the entry that is at from visible at to.
func show(e os.DirEntry, from, to string) error {
	switch {
	case e.Type()&os.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case e.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(to, nil, 0o644); err != nil {
			return err
		}
	}
	return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

// plainFile makes path a regular file with nothing mounted on it, of the same content if it had any.
func plainFile(path string) error {
	content, _ := os.ReadFile(path)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// linkUp sets a link of the calling thread's network namespace up.
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
