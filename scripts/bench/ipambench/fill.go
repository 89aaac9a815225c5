package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// fillers is how many reservations are made at once where it is not timed.
const fillers = 8

// fillRouter reserves addresses as weave-ipam does for main plugins that are not
// ours: those stay until somebody releases them.
func (c *contender) fillRouter() error {
	return c.each(c.existing, fillers, func(client *ctl.Client, i int) error {
		return allocate(client, attachment.Key{Network: "weave", ContainerID: fmt.Sprintf("fill-%05d", i), IfName: "eth0"}, ctl.DecidedByClaim)
	})
}

func allocate(client *ctl.Client, k attachment.Key, d ctl.Decider) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return client.Call(ctx, ctl.PathAllocate, ctl.AllocateRequest{Key: k, Network: "weave", Decider: d}, nil)
}

func release(client *ctl.Client, k attachment.Key) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return client.Call(ctx, ctl.PathRelease, ctl.KeyRequest{Key: k}, nil)
}

// each makes n calls, so many at once, from threads on the host.
func (c *contender) each(n, parallel int, call func(client *ctl.Client, i int) error) error {
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, parallel)
	for range parallel {
		all.Go(func() {
			err := c.host.Do(func() error {
				client := ctl.New("", time.Second)
				for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
					if err := call(client, i); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				errs <- err
			}
		})
	}
	all.Wait()
	close(errs)
	return <-errs
}

// fillStore writes what host-local keeps: a file of each address, named like it, with
// the container and the interface; and the address that was given last.
func (c *contender) fillStore() error {
	return c.host.Do(func() error {
		dir := "/var/lib/cni/networks/weave"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		a := netip.MustParseAddr("10.32.0.1") // host-local's gateway
		for i := range c.existing {
			a = a.Next()
			text := fmt.Sprintf("fill-%05d\r\neth0", i)
			if err := os.WriteFile(filepath.Join(dir, a.String()), []byte(text), 0o600); err != nil {
				return err
			}
		}
		if c.existing == 0 {
			return nil
		}
		return os.WriteFile(filepath.Join(dir, "last_reserved_ip.0"), []byte(a.String()), 0o600)
	})
}
