package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// fillers is how many containers are added at once where it is not timed.
const fillers = 4

// contender is one way to attach containers, on a host of its own.
type contender struct {
	name     string
	host     *netlab.Host
	calls    calls
	existing int // containers that were added to stay
	made     int // for names: those of all its containers ever
}

func (c *contender) containers(n int) ([]*netlab.Container, error) {
	list := make([]*netlab.Container, n)
	for i := range list {
		c.made++
		var err error
		if list[i], err = c.host.NewContainer(fmt.Sprintf("bench-%04d", c.made)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func remove(list []*netlab.Container) error {
	var errs []error
	for _, c := range list {
		errs = append(errs, c.Delete())
	}
	return errors.Join(errs...)
}

// fill adds containers until so many are there.
func (c *contender) fill(to int) error {
	list, err := c.containers(to - c.existing)
	if err != nil {
		return err
	}
	if r := c.each(list, fillers, c.calls.add); r.errors > 0 {
		return fmt.Errorf("%s: %d of %d containers could not be added before the measurement", c.name, r.errors, len(list))
	}
	c.existing = to
	return nil
}

func (c *contender) once() error {
	list, err := c.containers(1)
	if err != nil {
		return err
	}
	if a, d := c.each(list, 1, c.calls.add), c.each(list, 1, c.calls.del); a.errors+d.errors > 0 {
		return fmt.Errorf("%s: the first call failed", c.name)
	}
	return remove(list)
}

// pairs adds a container and removes it, then the next.
func (c *contender) pairs(n int, res results) error {
	list, err := c.containers(n)
	if err != nil {
		return err
	}
	var add, del run
	err = c.host.Do(func() error {
		for _, x := range list {
			c.charge(&add, func() { add.take(func() error { return c.calls.add(x) }) })
			c.charge(&del, func() { del.take(func() error { return c.calls.del(x) }) })
		}
		return nil
	})
	res.put(key{c.name, "ADD", c.existing, 1}, add)
	res.put(key{c.name, "DEL", c.existing, 1}, del)
	return errors.Join(err, remove(list))
}

// storm adds many containers at once, then removes them at once.
func (c *contender) storm(n, parallel int, res results) error {
	list, err := c.containers(n)
	if err != nil {
		return err
	}
	res.put(key{c.name, "ADD", 0, parallel}, c.each(list, parallel, c.calls.add))
	res.put(key{c.name, "DEL", 0, parallel}, c.each(list, parallel, c.calls.del))
	return remove(list)
}

// run are the times of one run.
type run struct {
	took   []time.Duration
	total  time.Duration
	cpu    time.Duration // see spent
	errors int
}

// charge adds what a part of the run spends.
func (c *contender) charge(r *run, part func()) {
	before := c.spent()
	part()
	r.cpu += c.spent() - before
}

// take times one call.
func (r *run) take(call func() error) {
	start := time.Now()
	err := call()
	took := time.Since(start)
	r.total += took
	if err != nil {
		r.errors++
		fmt.Fprintln(os.Stderr, "\ncnibench:", err)
		return
	}
	r.took = append(r.took, took)
}

// each calls f for every container, so many at once. The total is that of the clock on the wall.
func (c *contender) each(list []*netlab.Container, parallel int, f func(*netlab.Container) error) run {
	jobs := make(chan *netlab.Container, len(list))
	for _, x := range list {
		jobs <- x
	}
	close(jobs)
	parts := make([]run, min(parallel, len(list)))
	var ready, done sync.WaitGroup
	begin := make(chan struct{})
	for i := range parts {
		ready.Add(1)
		done.Go(func() {
			err := c.host.Do(func() error {
				ready.Done()
				<-begin
				for x := range jobs {
					parts[i].take(func() error { return f(x) })
				}
				return nil
			})
			if err != nil { // the thread could not enter the host: nothing was counted
				ready.Done()
				parts[i].errors++
			}
		})
	}
	ready.Wait()
	var sum run
	c.charge(&sum, func() {
		start := time.Now()
		close(begin)
		done.Wait()
		sum.total = time.Since(start)
	})
	for _, p := range parts {
		sum.took = append(sum.took, p.took...)
		sum.errors += p.errors
	}
	return sum
}
