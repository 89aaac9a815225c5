package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// parting is how hosts are cut from each other: each host that is named by one of the
// sides reaches that side only, and all others each other.
type parting struct {
	what  string
	sides [][]int
}

var partings = []parting{
	{"two and three", [][]int{{0, 3}}},
	{"two, two and one", [][]int{{0, 1}, {2, 4}}},
}

// most reports whether a host is on a side with most of the hosts.
func (p parting) most(host int) bool {
	for _, side := range p.sides {
		if slices.Contains(side, host) {
			return len(side) > cutHosts/2
		}
	}
	named := 0
	for _, side := range p.sides {
		named += len(side)
	}
	return cutHosts-named > cutHosts/2
}

// sides parts the hosts in each way, and has each host create, label and remove.
func (c *cuts) sides() error {
	for n, p := range partings {
		var told time.Duration
		err := step("hosts parted "+p.what+": a majority or no change", func() (err error) {
			told, err = c.side(n, p)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Printf("    refusals took %.2f s at most\n", told.Seconds())
	}
	return nil
}

// side returns how long a refusal took at most.
func (c *cuts) side(n int, p parting) (longest time.Duration, err error) {
	var mine []*fate // of each host
	for i, h := range c.lab.Hosts() {
		f := &fate{name: fmt.Sprintf("before-%d-%d", n, i)}
		c.nets = append(c.nets, f)
		if f.id, err = made(h, c.net.program(), f.name); err != nil {
			return 0, err
		}
		mine = append(mine, f)
	}
	if err := c.agree(); err != nil {
		return 0, err
	}
	for _, side := range p.sides {
		if err := c.lab.Partition(side...); err != nil {
			return 0, err
		}
	}
	took := make([]time.Duration, cutHosts)
	var all errgroup.Group
	for i, h := range c.lab.Hosts() {
		all.Go(func() (err error) {
			if p.most(i) {
				return c.changes(n, i, mine[i])
			}
			took[i], err = c.refuses(h, fmt.Sprintf("during-%d-%d", n, i), mine[i])
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return 0, err
	}
	return slices.Max(took), errors.Join(c.lab.Heal(), c.agree())
}

func made(h *netlab.Host, program, name string) (string, error) {
	out, err := patiently(h, program, "net", "create", name)
	return strings.TrimSpace(out), err
}

// changes is what a host of the majority does: all of it is done, once there is a leader.
// What nobody knows the end of is done again, under another name.
func (c *cuts) changes(n, host int, mine *fate) error {
	h, program := c.lab.Host(host), c.net.program()
	var f *fate
	tries := 0
	err := netlab.Wait(agreeIn, "the majority creates", func() (err error) {
		f = &fate{name: fmt.Sprintf("during-%d-%d-%d", n, host, tries)}
		tries++
		c.mu.Lock()
		c.nets = append(c.nets, f)
		c.mu.Unlock()
		f.id, err = made(h, program, f.name)
		return err
	})
	if err != nil {
		return err
	}
	f.by = h.Name()
	err = netlab.Wait(agreeIn, "the majority labels", func() error {
		_, err := h.Run(program, "net", "label", f.name, "by="+f.by)
		return err
	})
	if err != nil {
		return err
	}
	mine.touched = true
	err = c.removeAll(h, []string{mine.id[:20]})
	mine.removed = err == nil
	return err
}

// refuses is what a host without a majority does: nothing, as soon as it has noticed.
func (c *cuts) refuses(h *netlab.Host, name string, mine *fate) (longest time.Duration, err error) {
	program := c.net.program()
	err = netlab.Wait(agreeIn, "it has noticed", func() error {
		return unchanged(h, program, "net", "label", mine.name, "noticed-")
	})
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	c.nets = append(c.nets, &fate{name: name, refused: true})
	c.mu.Unlock()
	for _, args := range [][]string{{"create", name}, {"label", mine.name, "by=nobody"}, {"rm", mine.id}} {
		began := time.Now()
		if err := unchanged(h, program, append([]string{"net"}, args...)...); err != nil {
			return 0, err
		}
		longest = max(longest, time.Since(began))
	}
	return longest, nil
}

// unchanged runs a command that must be refused for want of a majority, by a host that is
// certain that nothing was changed. One that has not noticed yet cannot be so certain.
func unchanged(h *netlab.Host, program string, args ...string) error {
	out, err := patiently(h, program, args...)
	if err == nil {
		return fmt.Errorf("weave %s did not fail, and said %q", strings.Join(args, " "), out)
	}
	return contains(err.Error(), "needs a majority of the voters", "none answers here", "nothing was changed", "everything that exists goes on")
}
