package e2e

import (
	"fmt"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestContainersOfThreeHostsReachEachOtherByAddressAndName(t *testing.T) {
	c := newCluster(t, 3, netlab.Options{})
	unchanged := c.watch()
	var all []*container
	for host := range 3 {
		for k := range 2 {
			name := fmt.Sprintf("c%d%d", host, k)
			all = append(all, c.add(host, name, named(name)))
		}
	}
	for _, from := range all {
		for _, to := range all {
			c.wait(fmt.Sprintf("%s reaches %s", from.Name(), to.Name()), func() error {
				if err := c.ping(from, to.result.addr()); err != nil {
					return err
				}
				got, err := c.resolve(from, to.Name()+".weave.local")
				if err != nil {
					return err
				}
				if len(got) != 1 || got[0] != to.result.addr().String() {
					return fmt.Errorf("%s is %v, want %v", to.Name(), got, to.result.addr())
				}
				return nil
			})
		}
	}
	for _, ct := range all {
		c.del(ct, named(ct.Name()))
	}
	unchanged()
}
