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
	var known, gone []time.Duration
	for i := range 10 {
		name := fmt.Sprintf("web%d", i)
		fqdn := name + ".weave.local"
		web := c.add(0, name, named(name))
		known = append(known, c.wait("the other host knows "+name, func() error {
			got, err := c.resolve(asker, fqdn)
			if err == nil && !slices.Equal(got, []string{web.result.addr().String()}) {
				err = fmt.Errorf("got %v", got)
			}
			return err
		}))
		c.del(web)
		gone = append(gone, c.wait("the other host has forgotten "+name, func() error {
			got, err := c.resolve(asker, fqdn)
			if err == nil && len(got) != 0 {
				err = errors.New("still there")
			}
			return err
		}))
	}
	for what, times := range map[string][]time.Duration{"known": known, "gone": gone} {
		slices.Sort(times)
		t.Logf("worst of %d until it is %s: %v", len(times), what, times[len(times)-1])
		c.promised("half of the names are "+what, time.Second, times[len(times)/2])
	}
}
