package netdev

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// settable is every sysctl that we may write, below /proc/sys; DEVICE stands for
// one path element. Whoever needs another adds it here, where it is seen.
var settable = []string{
	"net/ipv4/ip_forward",
	"net/ipv4/conf/DEVICE/arp_announce",
	"net/ipv4/conf/DEVICE/arp_ignore",
	"net/ipv4/conf/DEVICE/arp_notify",
	"net/ipv4/conf/DEVICE/forwarding",
	"net/ipv4/conf/DEVICE/proxy_arp",
	"net/ipv4/conf/DEVICE/route_localnet",
	"net/ipv4/conf/DEVICE/rp_filter",
	"net/ipv4/conf/DEVICE/send_redirects",
	"net/ipv4/neigh/DEVICE/proxy_delay",
	"net/ipv6/conf/DEVICE/accept_dad",
	"net/ipv6/conf/DEVICE/accept_ra",
	"net/ipv6/conf/DEVICE/accept_redirects",
	"net/ipv6/conf/DEVICE/autoconf",
	"net/ipv6/conf/DEVICE/disable_ipv6",
	"net/ipv6/conf/DEVICE/forwarding",
	"net/ipv6/conf/DEVICE/proxy_ndp",
	"net/ipv6/neigh/DEVICE/proxy_delay",
}

// Sysctl sets one of the sysctls that this package knows, in the namespace of
// the calling thread, and only when it has another value. path is relative to
// /proc/sys with slashes ("net/ipv6/conf/weave/accept_ra"), because a device's
// name may contain dots. The device ("all" and "default" included) must be a
// possible interface name, so no path leads anywhere else. The error is
// os.ErrNotExist where the kernel does not have it.
func Sysctl(path, value string) error {
	if err := checkSysctl(path); err != nil {
		return err
	}
	return wrap("sysctl "+path, writeSysctl(unix.AT_FDCWD, "/proc/sys/"+path, value))
}

func checkSysctl(path string) error {
	have := strings.Split(path, "/")
	known := slices.ContainsFunc(settable, func(pattern string) bool {
		want := strings.Split(pattern, "/")
		return slices.EqualFunc(have, want, func(h, w string) bool { return h == w || w == "DEVICE" })
	})
	if !known {
		return fmt.Errorf("sysctl %q: not one that weave sets", path)
	}
	if len(have) == 5 {
		if err := attachment.ValidIfName(have[3]); err != nil {
			return fmt.Errorf("sysctl %q: %w", path, err)
		}
	}
	return nil
}

// writeSysctl writes unless the value is there already: reading is cheap, and
// writing some of them takes the kernel's link lock.
func writeSysctl(dir int, path, value string) error {
	fd, err := unix.Openat(dir, path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		return readOnlySysctl(dir, path, value, err)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if same, err := hasValue(fd, value); same || err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, []byte(value+"\n"), 0)
	return err
}

// readOnlySysctl lets a value stand that cannot be written and need not be.
func readOnlySysctl(dir int, path, value string, cause error) error {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if same, err := hasValue(fd, value); !same || err != nil {
		return cause
	}
	return nil
}

func hasValue(fd int, value string) (bool, error) {
	var b [64]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return false, err
	}
	return string(bytes.TrimSpace(b[:n])) == value, nil
}
