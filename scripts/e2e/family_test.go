package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestBothFamiliesOverEitherUnderlay(t *testing.T) {
	for name, under := range map[string]netlab.Underlay{"IPv4": netlab.V4, "IPv6": netlab.V6} {
		t.Run("underlay "+name, func(t *testing.T) {
			c := newCluster(t, 2, netlab.Options{Underlay: under, RouterArgs: []string{"--range6", "fd77:1::/64"}})
			a, b := c.add(0, "a", named("a")), c.add(1, "b", named("b"))
			if s := a.result.DNS.Nameservers; len(a.result.IPs) != 2 || len(s) != 3 || strings.Contains(s[0], ":") || !strings.Contains(s[1], ":") || s[2] != s[0] {
				t.Fatalf("result: %+v", a.result)
			}
			for _, ip := range b.result.IPs {
				c.wait(fmt.Sprintf("a reaches %v", ip.Address), func() error { return c.ping(a, ip.Address.Addr()) })
				c.bigPing(a, ip.Address.Addr())
			}
		})
	}
}

// bigPing sends a packet of the network's whole MTU, not to be fragmented.
func (c *cluster) bigPing(from *container, to netip.Addr) {
	c.t.Helper()
	headers := 20 + 8
	if to.Is6() {
		headers = 40 + 8
	}
	if _, err := from.Run("ping", "-M", "do", "-c1", "-W20", "-s", fmt.Sprint(1430-headers), to.String()); err != nil {
		c.t.Errorf("full MTU to %v: %v", to, err)
	}
}

func TestTrafficThatLeavesTheNetworkIsMasqueraded(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{Outside: true})
	a := c.add(0, "a")
	c.wait("a reaches what is outside", func() error { return c.ping(a, c.lab.Outside().Addr()) })
}

func TestAContainerReachesNoPortOfTheOverlay(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	a := c.add(0, "a")
	for _, h := range c.lab.Hosts() {
		if out, err := a.Run("timeout", "2", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/6783", h.Addr())); err == nil {
			t.Errorf("a container opened %v:6783: %s", h.Addr(), out)
		}
	}
}
