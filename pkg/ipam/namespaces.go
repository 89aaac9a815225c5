package ipam

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

// Namespaces are network namespaces by what keeps them.
type Namespaces struct {
	Inhabited map[attachment.NSID]bool // a process lives in it
	Held      map[attachment.NSID]bool // a mount holds it, where this process can see it
}

// procNamespaces reads them from a procfs. One process that cannot be looked at makes
// it an error: a namespace that seems empty would be taken for dead.
func procNamespaces(proc string) func() (Namespaces, error) {
	return func() (Namespaces, error) {
		ns := Namespaces{map[attachment.NSID]bool{}, map[attachment.NSID]bool{}}
		entries, err := os.ReadDir(proc)
		if err != nil {
			return ns, err
		}
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err != nil {
				continue
			}
			st, err := os.Stat(filepath.Join(proc, e.Name(), "ns/net"))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue // it has ended
			}
			if err != nil {
				return ns, err
			}
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				ns.Inhabited[attachment.NSID{Dev: uint64(sys.Dev), Ino: sys.Ino}] = true
			}
		}
		return ns, mountedNamespaces(filepath.Join(proc, "self/mountinfo"), ns.Held)
	}
}

func mountedNamespaces(path string, into map[attachment.NSID]bool) error {
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
