package cniconf

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// nsSet is a set of network namespaces.
type nsSet map[attachment.NSID]bool

// livingNamespaces reads from a procfs in which network namespaces processes live,
// and which of them a mount holds, where this process can see it.
//
// A process that even root may not look into belongs to a user namespace above
// ours, as the init of a machine that lends us a part of itself: none of our
// containers' processes is one. Any other failure is an error, for a namespace
// that seems empty would be taken for dead.
func livingNamespaces(proc string) (inhabited, held nsSet, err error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, nil, err
	}
	inhabited, held = nsSet{}, nsSet{}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		st, err := os.Stat(filepath.Join(proc, e.Name(), "ns/net"))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, fs.ErrPermission) && os.Geteuid() == 0 {
			continue // it has ended, or is above us
		}
		if err != nil {
			return nil, nil, err
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			inhabited[attachment.NSID{Dev: uint64(sys.Dev), Ino: sys.Ino}] = true
		}
	}
	return inhabited, held, mountedNamespaces(filepath.Join(proc, "self/mountinfo"), held)
}

func mountedNamespaces(path string, into nsSet) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if id, ok := mountedNamespace(lines.Text()); ok {
			into[id] = true
		}
	}
	return lines.Err()
}

// mountedNamespace reads one line of mountinfo, "ID PARENT MAJOR:MINOR net:[INODE] …".
func mountedNamespace(line string) (id attachment.NSID, ok bool) {
	f := strings.Fields(line)
	if len(f) < 4 || !strings.HasPrefix(f[3], "net:[") {
		return id, false
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(f[2], "%d:%d", &major, &minor); err != nil {
		return id, false
	}
	ino, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(f[3], "net:["), "]"), 10, 64)
	return attachment.NSID{Dev: unix.Mkdev(major, minor), Ino: ino}, err == nil
}
