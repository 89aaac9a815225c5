package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that was alive when it was looked at; a zombie is not.
type process struct {
	pid, parent int
	text        string // its command line
}

// nsLink is how /proc/PID/ns has a namespace: "net:[4026531840]". "" for a nil file.
func nsLink(f *os.File) string {
	if f == nil {
		return ""
	}
	link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if strings.HasPrefix(link, "/") { // opened at a path where it is bound
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err == nil {
			link = fmt.Sprintf("net:[%d]", st.Ino)
		}
	}
	return link
}

// addNamespaces adds to the set what tells the host's processes from others':
// its network and mount namespaces and every network namespace that is bound
// in it or held as one of its containers.
func (h *Host) addNamespaces(set map[string]bool) error {
	set[nsLink(h.net)], set[nsLink(h.mnt)] = true, true
	h.mu.Lock()
	for c := range h.containers {
		set[nsLink(c.net)] = true
	}
	h.mu.Unlock()
	return h.Do(func() error {
		bound, err := os.ReadDir(netnsDir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, e := range bound {
			if ino, ok := boundNS(filepath.Join(netnsDir, e.Name())); ok {
				set[fmt.Sprintf("net:[%d]", ino)] = true
			}
		}
		return nil
	})
}

// boundNS is the inode of the namespace that is bound at path, if one is.
func boundNS(path string) (ino uint64, ok bool) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Statfs(path, &fs) != nil || fs.Type != unix.NSFS_MAGIC || unix.Stat(path, &st) != nil {
		return 0, false
	}
	return st.Ino, true
}

// processesIn lists the processes that are in one of the namespaces, and their descendants.
func processesIn(set map[string]bool) ([]process, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var in, out []process
	taken := map[int]bool{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		p, ok := look(pid)
		switch {
		case !ok:
		case set[link(pid, "net")] || set[link(pid, "mnt")]:
			in, taken[pid] = append(in, p), true
		default:
			out = append(out, p)
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range out {
			if taken[p.parent] && !taken[p.pid] {
				in, taken[p.pid], grown = append(in, p), true, true
			}
		}
	}
	return in, nil
}

// link is empty for a zombie, which has no namespaces any more.
func link(pid int, ns string) string {
	s, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
	return s
}

// look reads what a process is; not ok: there is none, or a zombie.
func look(pid int) (process, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	// The name is in parentheses and may itself hold any character.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, false
	}
	parent, _ := strconv.Atoi(fields[1])
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	text := strings.Join(strings.FieldsFunc(string(cmdline), func(r rune) bool { return r == 0 || r == '\n' }), " ")
	return process{pid: pid, parent: parent, text: text}, true
}

// ProcessorTime is what the threads that a process has now have used since each began, as
// /proc/PID/stat has it only in hundredths of a second; zero of none where there is no such
// process.
func ProcessorTime(pid int) (used time.Duration, threads int) {
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, path := range paths {
		var ns time.Duration
		if b, err := os.ReadFile(path); err == nil {
			_, _ = fmt.Sscan(string(b), &ns) // a thread that has just ended
		}
		used += ns
	}
	return used, len(paths)
}

// killUntilGone kills what list finds, again and again, until it finds nothing.
func killUntilGone(ctx context.Context, list func() ([]process, error)) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		left, err := list()
		if err != nil || len(left) == 0 {
			return err
		}
		for _, p := range left {
			if err := unix.Kill(p.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill %q: %w", p.text, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%q (process %d) does not end", left[0].text, left[0].pid)
		case <-tick.C:
		}
	}
}
