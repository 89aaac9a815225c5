package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

func TestANameIsKnownElsewhereWithinASecondAndGoneWithinASecond(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	asker := c.add(1, "asker")
	var worst time.Duration
	for i := range 10 {
		name := fmt.Sprintf("web%d", i)
		fqdn := name + ".weave.local"
		web := c.add(0, name, named(name))
		start := time.Now()
		c.wait(5*time.Second, "the other host knows "+name, func() error {
			got, err := c.resolve(asker, fqdn)
			if err == nil && !slices.Equal(got, []string{web.result.addr().String()}) {
				err = fmt.Errorf("got %v", got)
			}
			return err
		})
		worst = max(worst, time.Since(start))
		c.del(web)
		start = time.Now()
		c.wait(5*time.Second, "the other host has forgotten "+name, func() error {
			got, err := c.resolve(asker, fqdn)
			if err == nil && len(got) != 0 {
				err = errors.New("still there")
			}
			return err
		})
		worst = max(worst, time.Since(start))
	}
	t.Logf("worst of 10: %v", worst)
}
