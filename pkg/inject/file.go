package inject

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/resolvconf"
)

// File is a resolv.conf that may be written. It is for one goroutine, and has to be closed.
type File struct {
	host Host
	path string
	name string   // the namespace's, of a file that may be made
	file *os.File // nil: it is to be made
	id   fileID
	text []byte // as it was read; what it is to begin with, where it is to be made
	made bool   // by us, now or before
	runs bool   // the container's own program may have been started
}

// fileID tells one file from all others of the host.
type fileID struct{ Dev, Ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{uint64(st.Dev), st.Ino} }

// Path is where the host has the file.
func (f *File) Path() string { return f.path }

// Close lets go of the file.
func (f *File) Close() {
	if f.file != nil {
		f.file.Close()
	}
}

func (f *File) is(st unix.Stat_t) bool { return f.id == idOf(&st) }

// open opens a file that may be written, and reads it. It is looked at before it is opened
// for anything: opening a device, or a FIFO, does something already.
func (h Host) open(path string) (*File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, err
	case errors.Is(err, unix.ELOOP):
		return nil, left(path, "there is a symbolic link in its path")
	case err != nil:
		return nil, left(path, "%v", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, left(path, "%v", err)
	}
	if why := h.unfit(&st); why != "" {
		return nil, left(path, "%s", why)
	}
	// The same file, whatever stands at its path by now.
	file, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, left(path, "%v", errors.Unwrap(err))
	}
	f := &File{host: h, path: path, file: file, id: idOf(&st)}
	if err := f.read(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unfit says why a file is none that may be written; "" when it is one.
func (h Host) unfit(st *unix.Stat_t) string {
	var hosts, shown unix.Stat_t
	own := filepath.Join(h.Etc, fileName)
	switch {
	case st.Nlink == 0:
		return "it was removed meanwhile"
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return "it is a symbolic link"
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "it is no regular file"
	case st.Nlink != 1:
		return fmt.Sprintf("it has %d names, and may be somebody else's by another", st.Nlink)
	case unix.Stat(own, &hosts) == nil && idOf(&hosts) == idOf(st), unix.Lstat(own, &shown) == nil && idOf(&shown) == idOf(st):
		return "it is the host's own"
	case st.Size > maxText:
		return fmt.Sprintf("it has %d bytes, more than any resolv.conf", st.Size)
	}
	return ""
}

// again looks once more at a file that was opened before the lock was held, and reads it:
// another call may have written since. One that another network's DEL has removed is to be
// made anew.
func (f *File) again() error {
	if f.file == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
		return left(f.path, "%v", err)
	}
	if st.Nlink == 0 && f.name != "" {
		now, err := f.host.named(f.name)
		if err != nil {
			return err
		}
		f.Close()
		*f = *now
		return nil
	}
	if why := f.host.unfit(&st); why != "" {
		return left(f.path, "%s", why)
	}
	return f.read()
}

// read reads the file by its descriptor.
func (f *File) read() error {
	text, err := io.ReadAll(io.NewSectionReader(f.file, 0, maxText+1))
	switch {
	case err != nil:
		return left(f.path, "%v", err)
	case len(text) > maxText:
		return left(f.path, "it has more bytes than any resolv.conf")
	case slices.Contains(text, 0):
		return left(f.path, "it is no text")
	}
	f.text = text
	return nil
}

// write writes the file in place: a mount holds it, and not its name. A resolver may see
// the new text with the end of the old one behind it, and no less.
func (f *File) write(text []byte) error {
	_, err := f.file.WriteAt(text, 0)
	if err == nil {
		err = f.file.Truncate(int64(len(text)))
	}
	if err != nil {
		_, again := f.file.WriteAt(f.text, 0)
		return errors.Join(err, again, f.file.Truncate(int64(len(f.text))))
	}
	f.text = text
	return nil
}

// firstServers are the servers that the runtime wrote. Nobody knows them of a file that was
// first seen when its container had been able to write it, and of one that cannot have the
// attribute.
func (f *File) firstServers() ([]netip.Addr, error) {
	list := make([]byte, maxOwnServers)
	n, err := unix.Fgetxattr(int(f.file.Fd()), ownServers, list)
	if err == nil {
		return Askable(strings.Fields(string(list[:n]))), nil
	}
	servers := f.servers()
	if f.runs || !bytes.Equal(resolvconf.Take(f.text), f.text) { // ours would be of an earlier life
		servers = nil
	}
	if errors.Is(err, unix.ENODATA) {
		list = list[:0]
		for _, a := range servers {
			list = a.AppendTo(append(list, ' '))
		}
		err = unix.Fsetxattr(int(f.file.Fd()), ownServers, list, unix.XATTR_CREATE)
	}
	if err != nil && len(servers) > 0 {
		return nil, fmt.Errorf("%v are not asked: %s cannot be noted at %s: %w", servers, ownServers, f.path, err)
	}
	return servers, nil
}

// make makes the file, empty, and its directory, and tells whether it did. Of another call
// that came first the file is opened.
func (f *File) make() (made bool, err error) {
	at := filepath.Dir(f.path)
	for _, dir := range []string{filepath.Dir(at), at} {
		if err := unix.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return false, left(f.path, "%v", err)
		}
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, f.path, &unix.OpenHow{Flags: unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Mode: 0o644, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS})
	if errors.Is(err, unix.EEXIST) {
		return false, f.adopt()
	}
	if err != nil {
		return false, left(f.path, "%v", err)
	}
	f.file = os.NewFile(uintptr(fd), f.path)
	f.text = nil
	var st unix.Stat_t
	if err := errors.Join(unix.Fchmod(fd, 0o644), unix.Fstat(fd, &st)); err != nil { // whatever the umask
		return true, left(f.path, "%v", err)
	}
	f.id = idOf(&st)
	return true, nil
}

// adopt opens the file that somebody else has made meanwhile.
func (f *File) adopt() error {
	there, err := f.host.open(f.path)
	if err != nil {
		return err
	}
	there.name, there.made = f.name, resolvconf.Made(there.text)
	*f = *there
	return nil
}
