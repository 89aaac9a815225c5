package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// found waits until a container of host i would be answered these data, in any order.
func (c *cluster) found(i int, name string, want ...string) {
	c.t.Helper()
	slices.Sort(want)
	c.wait(fmt.Sprintf("host %d answers %s with %q", i, name, want), func() error {
		out, err := ask[ctl.LookupReply](c, i, ctl.PathDNSLookup, ctl.LookupRequest{Name: name})
		var got []string
		for _, r := range out.Records {
			got = append(got, r.Data)
		}
		if slices.Sort(got); err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
}

// compose's containers of one service have a name each, and the service's for an alias.
func TestAServicesNameIsAllItsContainers(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	start := func(host int, name string) *container {
		return c.add(host, name, named(name)+";WEAVE_ENDPOINT=weave://?alias%3Dredis&port%3Dredis:6379&txt%3Dproject%3Dshop")
	}
	asker := c.add(1, "asker")
	redis := []*container{start(0, "redis-1"), start(0, "redis-2"), start(1, "redis-3")}
	var addrs, targets []string
	for i, ct := range redis {
		addrs = append(addrs, ct.result.addr().String())
		targets = append(targets, fmt.Sprintf("0 0 6379 redis-%d.weave.local.", i+1))
	}
	everywhere := func() {
		t.Helper()
		for i := range 2 {
			c.found(i, "redis", addrs...)
			c.found(i, "redis-2.weave.local", addrs[1])
			c.found(i, "_redis._tcp.redis", targets...)
			c.found(i, "_redis._tcp.redis-2.weave.weave.local", targets[1])
		}
	}
	everywhere()
	if out, err := asker.Run("dig", "+short", "@"+asker.result.DNS.Nameservers[0], "redis", "TXT"); err != nil || strings.TrimSpace(out) != `"project=shop"` {
		t.Errorf("TXT: %q, %v", out, err)
	}

	for what, dir := range map[string]string{"with its claim files": "/nowhere", "without them": "/run/weave/claims"} {
		t.Log("the router starts anew", what)
		if err := c.lab.Host(0).Router().Kill(); err != nil {
			t.Fatal(err)
		}
		c.lab.Host(0).MustRun(t, "rm", "-rf", dir)
		if err := c.lab.Host(0).Router().Restart(); err != nil {
			t.Fatal(err)
		}
		c.waitReady(0)
		everywhere()
	}
	c.del(redis[1])
	addrs, targets = slices.Delete(addrs, 1, 2), slices.Delete(targets, 1, 2)
	for i := range 2 {
		c.found(i, "redis", addrs...)
		c.found(i, "redis-2")
		c.found(i, "_redis._tcp.redis", targets...)
	}
}

// As soon as an address is known to be another container's, no old name leads there.
func TestNoNameLeadsToAnAddressThatIsAnotherContainersByNow(t *testing.T) {
	c := newCluster(t, 2, netlab.Options{})
	asker := c.add(1, "asker")
	web := c.add(0, "web-0", named("name-0"))
	x := web.result.addr()
	for i := range 10 {
		before, next := fmt.Sprintf("name-%d.weave.local", i), fmt.Sprintf("name-%d.weave.local", i+1)
		c.del(web)
		stop, checked := make(chan struct{}), make(chan error, 1)
		go func() { checked <- c.neverBoth(asker, x, next, before, stop) }()
		web = c.add(0, fmt.Sprint("web-", i+1), fmt.Sprintf("%s;IP=%s", named(fmt.Sprint("name-", i+1)), x))
		c.wait("it is known elsewhere", func() error {
			got, err := c.resolve(asker, next)
			if err == nil && !slices.Equal(got, []string{x.String()}) {
				err = fmt.Errorf("got %v", got)
			}
			return err
		})
		close(stop)
		if err := <-checked; err != nil {
			t.Error(err)
		}
	}
}

// neverBoth looks, until stop, that a name leads to an address no more once another does.
func (c *cluster) neverBoth(asker *container, x netip.Addr, next, before string, stop <-chan struct{}) error {
	for {
		now, err := c.resolve(asker, next)
		if err == nil && slices.Contains(now, x.String()) {
			if was, err := c.resolve(asker, before); err == nil && slices.Contains(was, x.String()) {
				return fmt.Errorf("%s is %s already, and %s is too", next, x, before)
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

func TestTheQueriesOfAContainerAreShownAsTheyCome(t *testing.T) {
	c := newCluster(t, 1, netlab.Options{})
	asker, other := c.add(0, "asker", named("asker")), c.add(0, "other", named("other"))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	q := ctl.QueriesRequest{Container: "asker"}
	first, err := ask[ctl.Queries](c, 0, ctl.PathDNSTrace, q)
	if err != nil || !slices.Equal(first.Addresses, []netip.Addr{asker.result.addr()}) || len(first.Queries) != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	for _, x := range []struct {
		by   *container
		name string
	}{{asker, "other.weave.local"}, {other, "asker.weave.local"}, {asker, "nosuch.weave.local"}} {
		if _, err := c.resolve(x.by, x.name); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	c.wait("both are shown", func() error {
		out, err := ask[ctl.Queries](c, 0, ctl.PathDNSTrace, q)
		for _, x := range out.Queries {
			got = append(got, x.Name+" "+x.Type+" "+x.Outcome)
		}
		if q.After = out.Last; err == nil && len(got) < 2 {
			err = fmt.Errorf("got %q", got)
		}
		return err
	})
	if want := []string{"other.weave.local A answered", "nosuch.weave.local A nxdomain"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := ask[ctl.Queries](c, 0, ctl.PathDNSTrace, ctl.QueriesRequest{Container: "nosuch"}); err == nil {
		t.Error("that of nobody is shown")
	}

	// and by the command
	go func() {
		for ctx.Err() == nil {
			_, _ = c.resolve(asker, "again.weave.local")
		}
	}()
	out := c.lab.Host(0).MustRun(t, weaveCmd, "dns", "trace", "--json", "--for", "3s", "asker")
	line, _, _ := strings.Cut(out, "\n")
	var shown ctl.Query
	if err := json.Unmarshal([]byte(line), &shown); err != nil || shown.Name != "again.weave.local" || shown.Outcome != "nxdomain" || shown.Client != asker.result.addr() {
		t.Errorf("shown %q, %v", line, err)
	}
}
