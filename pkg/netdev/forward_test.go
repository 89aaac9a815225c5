package netdev

import (
	"os"
	"strings"
	"testing"
)

func TestForwardingKeepsRouterAdvertisementsWhereTheyWereAccepted(t *testing.T) {
	h := newSpace(t)
	h.must("ip link add hears type bridge")
	h.must("ip link add deaf type bridge")
	h.in(func() error {
		if err := Sysctl("net/ipv6/conf/deaf/accept_ra", "0"); err != nil {
			return err
		}
		if err := Sysctl("net/ipv6/conf/hears/accept_ra", "1"); err != nil {
			return err
		}
		for _, is6 := range []bool{false, true, true} {
			if err := EnableForwarding(is6); err != nil {
				return err
			}
		}
		for path, want := range map[string]string{
			"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/hears/accept_ra": "2", "ipv6/conf/deaf/accept_ra": "0",
		} {
			if got, err := os.ReadFile("/proc/sys/net/" + path); err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s: got %q, %v, want %s", path, got, err, want)
			}
		}
		return nil
	})
}
