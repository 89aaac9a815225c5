// Package inject writes the network's resolver into the resolv.conf of one container, and
// takes it out again.
//
// Only two files are ever written:
//
//   - what a runtime has bound over /etc/resolv.conf of a process that is already in its
//     own mount namespace, when that is the container's file in the runtime's own state;
//   - /etc/netns/NAME/resolv.conf, of a namespace that a person named.
//
// This runs as root on files that an image or a user may have chosen. So a file is
// found by its path on the host, never by one in the container; opened once, by a path
// without symbolic links; looked at before it is opened for more than looking; and read
// and written by that same descriptor. What is not a regular file with one name, below a
// known directory, and of the container by its id, is left alone: Left says why.
package inject

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/resolvconf"
)

const (
	maxText   = 64 << 10 // bytes of a resolv.conf
	maxMounts = 8 << 20  // bytes of a mountinfo
	fileName  = "resolv.conf"

	// ownServers is an attribute of a runtime's file: its servers when it was first seen, each
	// behind a space. It goes with the file, which the container may write.
	ownServers    = "trusted.weave.servers"
	maxOwnServers = 512 // bytes
)

// Host is where things are on a host.
type Host struct {
	Proc   string   // the procfs
	Etc    string   // has the host's own resolv.conf, and netns/NAME
	States []string // directories below which runtimes keep the resolv.conf of each container
	Others []string // files with resolvers that are the host's too
}

// NewHost is the host as it is, with the states of more runtimes. That of containerd's
// CRI is not among them: pods keep the cluster's resolver.
func NewHost(states []string) Host {
	return Host{
		Proc: "/proc", Etc: "/etc",
		States: append([]string{
			"/var/lib/nerdctl",
			"/var/lib/docker/containers",
			"/var/lib/containers/storage", "/run/containers/storage", // podman
		}, states...),
		Others: []string{"/run/systemd/resolve/resolv.conf"},
	}
}

// Container is whose file is looked for.
type Container struct {
	ID    string          // CNI's; it ends with the runtime's
	NetNS string          // CNI_NETNS
	NS    attachment.NSID // what is open behind it
	Named string          // the namespace's name, if a person gave it
}

// Left says that a file was left alone.
type Left struct{ Path, Why string }

func (l *Left) Error() string { return l.Path + " is left alone: " + l.Why }

func left(path, format string, args ...any) error { return &Left{path, fmt.Sprintf(format, args...)} }

// Find opens the container's resolv.conf. Nil without an error where there is none that
// could be ours to write; a *Left where there is one.
func (h Host) Find(c Container) (*File, error) {
	if c.Named != "" {
		return h.named(c.Named)
	}
	pid, ok := processOf(c.NetNS)
	if !ok {
		return nil, nil
	}
	return h.bound(pid, c)
}

// processOf reads /proc/PID/ns/net.
func processOf(netns string) (pid string, ok bool) {
	rest, ok := strings.CutPrefix(filepath.Clean(netns), "/proc/")
	pid, end, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(pid)
	return pid, ok && err == nil && n > 0 && end == "ns/net"
}

// bound finds what the runtime has bound over /etc/resolv.conf of a process. Before the
// runtime has changed the process' root, the whole tree of the host is there besides.
func (h Host) bound(pid string, c Container) (*File, error) {
	dir, err := unix.Open(filepath.Join(h.Proc, pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil // it has ended
	}
	defer unix.Close(dir)
	if !h.contained(dir, c.NS) {
		return nil, nil
	}
	theirs, err := readMounts(dir, "mountinfo")
	if err != nil {
		return nil, fmt.Errorf("mounts of process %s: %w", pid, err)
	}
	ours, err := readMounts(unix.AT_FDCWD, filepath.Join(h.Proc, "self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("own mounts: %w", err)
	}
	var why error
	for _, m := range resolvConfs(theirs) {
		for _, p := range hostPaths(ours, m) {
			if !h.keeps(p, c.ID) {
				if why == nil && !slices.ContainsFunc(ours, func(o mount) bool { return o.point == m.point }) {
					why = left(p, "it is in no runtime's directory of this container")
				}
				continue
			}
			return h.openBound(dir, p, m.point)
		}
	}
	return nil, why
}

// contained reports whether a process is in the namespace that is meant, and in a mount
// namespace of its own.
func (h Host) contained(dir int, ns attachment.NSID) bool {
	var net, mnt, own unix.Stat_t
	err := errors.Join(unix.Fstatat(dir, "ns/net", &net, 0), unix.Fstatat(dir, "ns/mnt", &mnt, 0),
		unix.Stat(filepath.Join(h.Proc, "self/ns/mnt"), &own))
	return err == nil && ns == attachment.NSID{Dev: uint64(net.Dev), Ino: net.Ino} && (mnt.Dev != own.Dev || mnt.Ino != own.Ino)
}

func readMounts(dir int, path string) ([]mount, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMounts))
	return parseMounts(string(text)), err
}

// keeps reports whether a path is of that container's file in a runtime's state.
// Containers' ids are 64 hexadecimal digits, and CNI's ends with the runtime's.
func (h Host) keeps(p, id string) bool {
	if filepath.Base(p) != fileName {
		return false
	}
	for _, s := range h.States {
		if real, err := filepath.EvalSymlinks(s); err == nil {
			s = real
		}
		rel, ok := below(p, s)
		if ok && slices.ContainsFunc(strings.Split(rel, "/"), func(part string) bool { return isID(part) && strings.HasSuffix(id, part) }) {
			return true
		}
	}
	return false
}

func isID(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// openBound opens the host's file, and sees to it that it is what the process has at the
// mount's place.
func (h Host) openBound(process int, p, point string) (*File, error) {
	f, err := h.open(p)
	if err != nil {
		return nil, err
	}
	root, err := unix.Openat(process, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(root)
		var theirs unix.Stat_t
		f.runs = !h.isRoot(root)
		if theirs, err = statIn(root, point); err == nil && !f.is(theirs) {
			err = errors.New("the container has another file in its place")
		}
	}
	if err != nil {
		f.Close()
		return nil, left(p, "%v", err)
	}
	return f, nil
}

// isRoot reports whether a process' root is the host's: then the runtime has not changed
// it yet, and nothing of the container has run.
func (h Host) isRoot(root int) bool {
	var theirs, own unix.Stat_t
	err := errors.Join(unix.Fstat(root, &theirs), unix.Stat(filepath.Join(h.Proc, "self/root"), &own))
	return err == nil && idOf(&theirs) == idOf(&own)
}

// statIn looks at a file below a root, through no link of any kind.
func statIn(root int, path string) (st unix.Stat_t, err error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	return st, unix.Fstat(fd, &st)
}

// named finds the file that `ip netns exec` binds over /etc/resolv.conf. One that is not
// there is to be made.
func (h Host) named(name string) (*File, error) {
	p := filepath.Join(h.Etc, "netns", name, fileName)
	f, err := h.open(p)
	if err == nil {
		f.name, f.made = name, resolvconf.Made(f.text)
		return f, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	return &File{host: h, path: p, name: name, made: true, text: h.text()}, nil
}

// text is the host's own file, with which one that is made begins.
func (h Host) text() []byte {
	own, err := os.ReadFile(filepath.Join(h.Etc, fileName))
	if err != nil || len(own) > maxText || slices.Contains(own, 0) {
		return nil
	}
	return own
}

// isNamed reports whether a path is that of a named namespace's file, and of nobody else.
func (h Host) isNamed(path string) bool {
	return filepath.Dir(filepath.Dir(path)) == filepath.Join(h.Etc, "netns")
}

// servers are those of the file, unless they are the host's.
func (f *File) servers() []netip.Addr {
	texts := resolvconf.Parse(resolvconf.Take(f.text)).Servers
	for _, p := range append([]string{filepath.Join(f.host.Etc, fileName)}, f.host.Others...) {
		hosts, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		known := resolvconf.Parse(hosts).Servers
		if !slices.ContainsFunc(texts, func(s string) bool { return !slices.Contains(known, s) }) {
			return nil
		}
	}
	return Askable(texts)
}

// Askable are the addresses among texts that a host can ask in its container's place.
func Askable(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			out = append(out, a)
		}
	}
	return resolvconf.Askable(out)
}

// Keeps says why the file has to stay as it is when ours are the servers to come: it names
// one that answers this container only, on its loopback or at an address of this host.
func (f *File) Keeps(ours, host []netip.Addr) error {
	if f.made {
		return nil
	}
	for _, t := range resolvconf.Parse(resolvconf.Take(f.text)).Servers {
		a, err := netip.ParseAddr(t)
		switch a = a.Unmap(); {
		case err != nil || slices.Contains(ours, a):
		case a.IsLoopback():
			return left(f.path, "it names a resolver of the container's own, %s", a)
		case slices.Contains(host, a):
			return left(f.path, "it names a resolver on this host, %s, which may answer this container as nobody else", a)
		}
	}
	return nil
}
