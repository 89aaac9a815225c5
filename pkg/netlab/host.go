package netlab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// Host is one machine of a lab: a network namespace with eth0 on the underlay
// and a default route to the gateway, a mount namespace with private tmpfs on
// /run, /var/lib/weave, /var/lib/cni, /etc/cni, /etc/netns, /opt/cni and
// Options.Private, a host name, a machine-id, and a resolv.conf that names the
// gateway. IPv4 forwarding is off. Processes are those of the program's
// process namespace: a host does not have its own.
type Host struct {
	*Space
	lab   *Lab
	index int

	mu         sync.Mutex // guards what follows
	router     *Daemon
	containers map[*Container]bool // those that were not deleted
}

// Addr4 and Addr6 are the host's addresses on the underlay, invalid where it lacks the family.
func (h *Host) Addr4() netip.Addr { return h.lab.addr(h.index, V4) }

// Addr6 is the IPv6 one.
func (h *Host) Addr6() netip.Addr { return h.lab.addr(h.index, V6) }

// Addr is the IPv4 address on the underlay, or the IPv6 one where that is all there is.
func (h *Host) Addr() netip.Addr {
	if a := h.Addr4(); a.IsValid() {
		return a
	}
	return h.Addr6()
}

// newHost makes a host's namespaces and all that needs no other namespace.
func (l *Lab) newHost(name string, index int) (*Host, error) {
	space, err := l.newSpace(name, unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWUTS, func() error {
		return l.furnish(name)
	})
	if err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return &Host{Space: space, lab: l, index: index, containers: map[*Container]bool{}}, nil
}

// newSpace makes the namespaces of kinds and runs prepare in them.
func (l *Lab) newSpace(name string, kinds int, prepare func() error) (s *Space, err error) {
	s = &Space{name: name, where: name, limit: l.opts.Timeout}
	onThread(func() {
		if err = unix.Unshare(kinds); err != nil {
			err = fmt.Errorf("unshare: %w", err)
			return
		}
		if err = prepare(); err != nil {
			return
		}
		err = s.hold(kinds)
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// hold opens those of the calling thread's namespaces that are of kinds.
func (s *Space) hold(kinds int) (err error) {
	for _, ns := range []struct {
		kind int
		name string
		file **os.File
	}{{unix.CLONE_NEWNET, "net", &s.net}, {unix.CLONE_NEWNS, "mnt", &s.mnt}, {unix.CLONE_NEWUTS, "uts", &s.uts}} {
		if kinds&ns.kind == 0 {
			continue
		}
		if *ns.file, err = os.Open("/proc/thread-self/ns/" + ns.name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Space) close() {
	for _, f := range []*os.File{s.net, s.mnt, s.uts} {
		if f != nil {
			f.Close()
		}
	}
}

// furnish makes the calling thread's fresh namespaces a host's.
func (l *Lab) furnish(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	mountSys()
	for _, dir := range append(privateDirs[:len(privateDirs):len(privateDirs)], l.opts.Private...) {
		if err := mkMountPoint(dir); err != nil {
			return err
		}
		if err := mountTmpfs(dir); err != nil {
			return err
		}
	}
	if err := l.writeOwnFiles(name); err != nil {
		return err
	}
	for _, dir := range []string{netnsDir, "/etc/cni/net.d", "/opt/cni/bin"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// A mount point, as ip-netns(8) would make it at its first use.
	if err := unix.Mount(netnsDir, netnsDir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", netnsDir, err)
	}
	if err := l.linkPlugins("/opt/cni/bin"); err != nil {
		return err
	}
	// A new namespace takes this from the machine's first one.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
		return err
	}
	return linkUp("lo")
}

// mountSys shows the network namespace's own devices in /sys and keeps the
// cgroups that are mounted there. Where a user namespace may not mount a
// sysfs the old one stays, in which only /sys/class/net is another's.
func mountSys() {
	const groups = "/sys/fs/cgroup"
	tree, err := unix.OpenTree(unix.AT_FDCWD, groups, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err == nil {
		defer unix.Close(tree)
	}
	if unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") == nil && err == nil {
		// Without it a host has no cgroups, which whoever needs them will say.
		_ = unix.MoveMount(tree, "", unix.AT_FDCWD, groups, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
}

// mkMountPoint makes a directory to mount on, never one on the machine's own file system.
func mkMountPoint(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	for {
		if _, err := os.Stat(parent); err == nil {
			break
		}
		parent = filepath.Dir(parent)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(parent, &fs); err != nil {
		return err
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("%s is not there to mount on, and %s is the machine's own", dir, parent)
	}
	return os.MkdirAll(dir, 0o755)
}

// writeOwnFiles gives the host its own version of ownFiles.
func (l *Lab) writeOwnFiles(name string) error {
	id := make([]byte, 16)
	rand.Read(id)
	content := map[string]string{
		"/etc/hostname":    name + "\n",
		"/etc/machine-id":  hex.EncodeToString(id) + "\n",
		"/etc/resolv.conf": "nameserver " + l.Gateway().String() + "\n",
	}
	if err := os.Mkdir("/run/netlab", 0o755); err != nil {
		return err
	}
	for _, path := range ownFiles {
		own := filepath.Join("/run/netlab", filepath.Base(path))
		if err := os.WriteFile(own, []byte(content[path]), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s over %s: %w", own, path, err)
		}
	}
	return nil
}

// linkPlugins puts links to the binaries of Bin and PluginDirs into dir.
func (l *Lab) linkPlugins(dir string) error {
	sources := l.opts.PluginDirs
	if l.opts.Bin != "" {
		sources = append([]string{l.opts.Bin}, sources...)
	}
	for _, from := range sources {
		entries, err := os.ReadDir(from)
		if err != nil {
			return fmt.Errorf("plugins: %w", err)
		}
		for _, e := range entries {
			err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name()))
			if err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("plugins: %w", err)
			}
		}
	}
	return nil
}

// close lets go of the namespaces of the host and its containers. No process may be in them.
func (h *Host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.containers {
		c.net.Close()
	}
	clear(h.containers)
	h.Space.close()
}

// WriteFile writes a file as the host sees it, and makes the directories that it needs (0755).
func (h *Host) WriteFile(path, content string, mode fs.FileMode) error {
	return h.Do(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(content), mode)
	})
}

// ReadFile reads a file as the host sees it.
func (h *Host) ReadFile(path string) (content string, err error) {
	err = h.Do(func() error {
		b, err := os.ReadFile(path)
		content = string(b)
		return err
	})
	return content, err
}

// Container is a network namespace on a host, as a container runtime would
// have made it: bound at Path, with a loopback that is down and nothing else.
// Commands in it see the host's files; if the host has a directory
// /etc/netns/NAME they see the files of that in place of those of /etc.
type Container struct {
	*Space
	host *Host
	id   attachment.NSID
}

// Path is where the namespace is bound, as the host sees it: the CNI_NETNS of a call.
func (c *Container) Path() string { return netnsDir + "/" + c.name }

// Host is the host that the container is on.
func (c *Container) Host() *Host { return c.host }

// NSID is the device and inode of the namespace.
func (c *Container) NSID() attachment.NSID { return c.id }

const netnsDir = "/run/netns"

// NewContainer makes a container. The name must be free on this host and fit for a file.
func (h *Host) NewContainer(name string) (*Container, error) {
	if name == "" || strings.ContainsRune(name, '/') || strings.HasPrefix(name, ".") {
		return nil, fmt.Errorf("make container %q on %s: not a name", name, h.name)
	}
	c := &Container{
		Space: &Space{name: name, where: h.name + "/" + name, limit: h.limit, mnt: h.mnt, uts: h.uts, names: "/etc/netns/" + name},
		host:  h,
	}
	path := netnsDir + "/" + name
	err := h.Do(func() error {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		file.Close()
		if err := c.bind(path); err != nil {
			unix.Unmount(path, unix.MNT_DETACH)
			return errors.Join(err, os.Remove(path))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make container %s on %s: %w", name, h.name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.containers[c] = true
	return c, nil
}

// bind makes the container's namespace, on a thread in the host's, and binds it at path.
func (c *Container) bind(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind to %s: %w", path, err)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		file.Close()
		return err
	}
	c.net, c.id = file, attachment.NSID{Dev: st.Dev, Ino: st.Ino}
	return nil
}

// Delete kills the container's processes and takes its namespace away, as a
// runtime does. The namespace ends when nothing else holds it. A path that somebody removed already is no error.
func (c *Container) Delete() error {
	c.host.mu.Lock()
	known := c.host.containers[c]
	delete(c.host.containers, c)
	c.host.mu.Unlock()
	if !known {
		return nil
	}
	defer c.net.Close() // the other namespaces are the host's
	ctx, cancel := context.WithTimeout(context.Background(), c.limit)
	defer cancel()
	kill := killUntilGone(ctx, func() ([]process, error) { return processesIn(map[string]bool{nsLink(c.net): true}) })
	gone := c.host.Do(func() error {
		if err := unix.Unmount(c.Path(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := os.Remove(c.Path()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	if err := errors.Join(kill, gone); err != nil {
		return fmt.Errorf("delete container %s: %w", c.where, err)
	}
	return nil
}
