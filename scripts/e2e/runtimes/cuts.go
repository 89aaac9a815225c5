package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// cuts has all hosts of a lab make, label and remove networks, while it cuts them from
// each other: first as it is written, then by chance. Then all hosts must have the same
// networks, and those whole.
type cuts struct {
	lab  *netlab.Lab
	net  weave
	seed uint64

	mu    sync.Mutex
	nets  []*fate
	done  int // changes that were made
	nay   int // and that were refused, or whose end nobody knows
	times int // that something was cut
}

// fate is what is known of a network that somebody asked for.
type fate struct {
	name    string
	id      string // "": nobody knows whether it was made
	touched bool   // somebody has tried to remove it
	refused bool   // it was certainly not made
	by      string // its label "by"
	removed bool   // and it is
}

const (
	cutHosts = 5
	agreeIn  = 2 * time.Minute // bounds what all hosts come to after the last cut
	contests = 5               // names and subnets that all hosts want
)

func newCuts(lab *netlab.Lab, net weave, seed uint64) *cuts {
	return &cuts{lab: lab, net: net, seed: seed}
}

func (c *cuts) all(lasting time.Duration) error {
	if err := step("five routers, one cluster", func() error { return c.net.up(c.lab.Hosts()) }); err != nil {
		return err
	}
	same, err := watch(c.lab, nil)
	if err != nil {
		return err
	}
	if err := c.sides(); err != nil {
		return err
	}
	err = step(fmt.Sprintf("networks are changed on all hosts under cuts, seed %d", c.seed), func() error { return c.storm(lasting) })
	if err != nil {
		return err
	}
	fmt.Printf("    %d changes were made and %d refused, under %d cuts\n", c.done, c.nay, c.times)
	return inTurn(
		told{"all hosts have the same networks, and those whole", c.agree},
		told{"all are removed, and the hosts as they were", func() error { return steps(c.clear, same) }},
	)
}

// storm ends when every host has had the answer to its last command, and no cut is left.
func (c *cuts) storm(lasting time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), lasting)
	defer cancel()
	var all sync.WaitGroup
	for i, h := range c.lab.Hosts() {
		rnd := rand.New(rand.NewPCG(c.seed, uint64(i)))
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				c.change(h, n, rnd)
			}
		})
	}
	err := c.cut(ctx, rand.New(rand.NewPCG(c.seed, cutHosts)))
	all.Wait()
	if err == nil && (c.done < cutHosts || c.times == 0) {
		err = fmt.Errorf("%d changes were made and %d refused, under %d cuts: that shows nothing", c.done, c.nay, c.times)
	}
	return err
}

// cut cuts and heals until ctx ends.
func (c *cuts) cut(ctx context.Context, rnd *rand.Rand) error {
	for {
		select {
		case <-ctx.Done():
			return c.lab.Heal()
		case <-time.After(time.Duration(300+rnd.IntN(1700)) * time.Millisecond):
		}
		var err error
		switch rnd.IntN(4) {
		case 0:
			err = c.lab.Heal()
		case 1:
			from := rnd.IntN(cutHosts)
			err = c.lab.Cut(from, (from+1+rnd.IntN(cutHosts-1))%cutHosts)
			c.times++
		default:
			if err = c.lab.Heal(); err == nil {
				err = c.lab.Partition(rnd.Perm(cutHosts)[:1+rnd.IntN(cutHosts-1)]...)
			}
			c.times++
		}
		if err != nil {
			return err
		}
	}
}

// change does one thing on a host.
func (c *cuts) change(h *netlab.Host, n int, rnd *rand.Rand) {
	switch f := c.pick(rnd); {
	case f == nil || rnd.IntN(10) < 4:
		c.create(h, n, rnd)
	case rnd.IntN(2) == 0:
		c.count(h.Run(c.net.program(), "net", "label", f.name, fmt.Sprintf("by%d=%s-%d", rnd.IntN(3), h.Name(), n), fmt.Sprintf("by%d-", 3+rnd.IntN(3))))
	default:
		c.remove(h, f)
	}
}

// pick is a network that may be there; nil: none.
func (c *cuts) pick(rnd *rand.Rand) *fate {
	c.mu.Lock()
	defer c.mu.Unlock()
	live := slices.DeleteFunc(slices.Clone(c.nets), func(f *fate) bool { return f.removed })
	if len(live) == 0 {
		return nil
	}
	return live[rnd.IntN(len(live))]
}

func (c *cuts) count(out string, err error) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.done++
	} else {
		c.nay++
	}
	return strings.TrimSpace(out), err
}

// create makes a network; a part of them by a name or of a subnet that all want.
func (c *cuts) create(h *netlab.Host, n int, rnd *rand.Rand) {
	args, f := []string{"net", "create"}, &fate{name: fmt.Sprintf("%s-%d", h.Name(), n)}
	switch rnd.IntN(6) {
	case 0:
		f.name = fmt.Sprint("wanted-", rnd.IntN(contests))
	case 1:
		args = append(args, "--subnet", fmt.Sprintf("10.99.%d.0/24", rnd.IntN(contests)))
	case 2:
		args = append(args, "--driver", "simplebridge")
	}
	c.mu.Lock()
	c.nets = append(c.nets, f)
	c.mu.Unlock()
	id, err := c.count(h.Run(c.net.program(), append(args, f.name)...))
	if err == nil {
		c.mu.Lock()
		f.id = id
		c.mu.Unlock()
	}
}

func (c *cuts) remove(h *netlab.Host, f *fate) {
	c.mu.Lock()
	f.touched = true
	ref := f.id
	c.mu.Unlock()
	if ref == "" {
		return // it may be another's of that name
	}
	if _, err := c.count(h.Run(c.net.program(), "net", "rm", ref)); err == nil {
		c.mu.Lock()
		f.removed = true
		c.mu.Unlock()
	}
}

// agree waits until all hosts have the same, and looks whether that can be.
func (c *cuts) agree() error {
	nets, err := sameOn(c.lab.Hosts(), c.net.program(), c.blocks)
	if err != nil {
		return err
	}
	return errors.Join(unique(nets), c.expected(nets))
}

// sameOn waits until all hosts have the same networks, and those whole; also is looked at
// besides.
func sameOn(hosts []*netlab.Host, program string, also func(*netlab.Host, []ctl.Net) error) (nets []ctl.Net, err error) {
	err = netlab.Wait(agreeIn, "all hosts have the same", func() error {
		var first string
		for i, h := range hosts {
			mine, err := netsOf(h, program)
			if err == nil {
				err = errors.Join(whole(h, mine), also(h, mine))
			}
			if err != nil {
				return fmt.Errorf("on %s: %w", h.Name(), err)
			}
			text := defined(mine)
			if i == 0 {
				first, nets = text, mine
			}
			if text != first {
				return fmt.Errorf("%s has\n%s, and %s\n%s", hosts[0].Name(), first, h.Name(), text)
			}
		}
		return nil
	})
	return nets, err
}

// blocks looks that the host's shares of addresses are those of the networks.
func (c *cuts) blocks(h *netlab.Host, nets []ctl.Net) error {
	s, err := routerStatus(h, c.net.program())
	if err != nil {
		return err
	}
	var got []string
	for _, u := range s.IPAM.Subnets {
		got = append(got, u.Network+" "+u.Subnet.String())
	}
	var want []string
	for _, n := range nets {
		for _, p := range n.Subnets {
			want = append(want, n.Name+" "+p.String())
		}
	}
	return sameWords("subnets of addresses", got, want)
}

// defined is what is the same on all hosts.
func defined(nets []ctl.Net) string {
	var b strings.Builder
	for _, n := range nets {
		labels, _ := json.Marshal(n.Labels) // by key
		fmt.Fprintln(&b, n.Name, n.ID, n.Driver, n.Host, n.Subnets, n.VNI, n.Internal, string(labels))
	}
	return b.String()
}

func unique(nets []ctl.Net) error {
	var errs []error
	for i, a := range nets {
		for _, b := range nets[:i] {
			overlap := slices.ContainsFunc(a.Subnets, func(p netip.Prefix) bool { return slices.ContainsFunc(b.Subnets, p.Overlaps) })
			if a.ID == b.ID || a.Name == b.Name || a.VNI == b.VNI || overlap {
				errs = append(errs, fmt.Errorf("%+v and %+v", a, b))
			}
		}
	}
	return errors.Join(errs...)
}

// expected compares what is there with what the hosts were told when they asked for it.
func (c *cuts) expected(nets []ctl.Net) error {
	ids, by := map[string]bool{}, map[string]string{}
	for _, n := range nets {
		ids[n.ID], by[n.ID] = true, n.Labels["by"]
	}
	asked := map[string]bool{"weave": true}
	var errs []error
	for _, f := range c.nets {
		asked[f.name] = asked[f.name] || !f.refused
		switch {
		case f.removed && ids[f.id]:
			errs = append(errs, fmt.Errorf("%s %s is there, and was removed", f.name, f.id))
		case f.id != "" && !f.touched && !ids[f.id]:
			errs = append(errs, fmt.Errorf("%s %s was made, and is not there", f.name, f.id))
		case by[f.id] != f.by && ids[f.id]:
			errs = append(errs, fmt.Errorf("%s %s has the label by=%s, want by=%s", f.name, f.id, by[f.id], f.by))
		}
	}
	for _, n := range nets {
		if !asked[n.Name] {
			errs = append(errs, fmt.Errorf("nobody has asked for %+v", n))
		}
	}
	return errors.Join(errs...)
}

// clear removes what there is, from all hosts at the same time.
func (c *cuts) clear() error {
	nets, err := netsOf(c.lab.Host(0), c.net.program())
	if err != nil {
		return err
	}
	rm := make([][]string, cutHosts)
	for i, n := range nets {
		if n.Name != "weave" {
			rm[i%cutHosts] = append(rm[i%cutHosts], n.ID[:20])
		}
	}
	var all errgroup.Group
	for i, refs := range rm {
		if len(refs) > 0 {
			all.Go(func() error { return c.removeAll(c.lab.Host(i), refs) })
		}
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return each(c.lab.Hosts(), func(h *netlab.Host) error {
		return netlab.Wait(agreeIn, "no network is left", func() error {
			nets, err := netsOf(h, c.net.program())
			if err != nil {
				return err
			}
			return errors.Join(sameWords("networks", namesOf(nets), []string{"weave"}), whole(h, nets), c.blocks(h, nets))
		})
	})
}

// removeAll removes networks, and tries again what a busy router did not answer.
func (c *cuts) removeAll(h *netlab.Host, refs []string) error {
	for _, ref := range refs {
		err := netlab.Wait(agreeIn, ref+" is removed", func() error {
			_, err := h.Run(c.net.program(), "net", "rm", ref)
			if err != nil && strings.Contains(err.Error(), "no network is called") {
				return nil // an answer that was not waited for
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
