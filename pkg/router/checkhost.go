package router

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/identity"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// ValidateHere returns what is wrong with a configuration on this host, besides what
// Validate finds: the files and addresses that it names, looked at as a start would. It
// changes nothing.
func (c Config) ValidateHere() error {
	var errs []error
	if c.SecretFile != "" {
		if _, err := identity.LoadSecret(c.SecretFile); err != nil {
			errs = append(errs, badFlag("secret-file", "--secret-file: %v", err))
		}
	}
	if c.Advertise.IsValid() {
		if _, err := netdev.UnderlayMTU(c.Advertise); errors.Is(err, netdev.ErrNotFound) {
			errs = append(errs, badFlag("advertise", "--advertise: %s", notOfThisHost(c.Advertise)))
		} else if err != nil {
			errs = append(errs, badFlag("advertise", "--advertise: %v", err))
		}
	}
	return errors.Join(errs...)
}

func notOfThisHost(a netip.Addr) string {
	return fmt.Sprintf("no interface of this host has %s: give an address that it has, at which the other hosts reach it", a)
}
