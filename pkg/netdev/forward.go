package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// EnableForwarding lets the host route packets of a family between its devices.
//
// For IPv6 the kernel stops listening to router advertisements on a device that
// accepts them (accept_ra 1) once it forwards, and the host loses its default
// route when the last one expires. Those devices are told first to go on (2).
func EnableForwarding(is6 bool) error {
	if !is6 {
		return Sysctl("net/ipv4/ip_forward", "1")
	}
	if err := keepRouterAdvertisements(); err != nil {
		return fmt.Errorf("keep accepting router advertisements: %w", err)
	}
	return Sysctl("net/ipv6/conf/all/forwarding", "1")
}

func keepRouterAdvertisements() error {
	const dir = "/proc/sys/net/ipv6/conf"
	devices, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range devices {
		value, err := os.ReadFile(filepath.Join(dir, d.Name(), "accept_ra"))
		if err != nil || strings.TrimSpace(string(value)) != "1" || d.Name() == "all" {
			continue // it is gone, or has none to keep
		}
		if err := Sysctl("net/ipv6/conf/"+d.Name()+"/accept_ra", "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
