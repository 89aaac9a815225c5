package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// measureChurn creates and removes networks, some at a time, from all hosts.
func (c *cluster) measureChurn() error {
	if c.churn == 0 {
		return nil
	}
	title("%d networks come and go, %d at a time, on %d hosts", c.churn, c.batch, c.hosts)
	rows := []string{"networks\tcreated and everywhere s\tremoved and gone s\trouter KiB\tfds\tledger KiB\tentries"}
	for done := 0; done < c.churn; {
		n := min(c.batch, c.churn-done)
		start := time.Now()
		nets, _, err := c.makeNetworks(n)
		if err != nil {
			return err
		}
		stood := time.Now()
		if _, err := c.removeNetworks(nets, false); err != nil {
			return err
		}
		gone := time.Now()
		done += n
		if done%(4*c.batch) == 0 || done == c.batch || done == c.churn {
			u, err := c.use(0)
			if err != nil {
				return err
			}
			rows = append(rows, fmt.Sprintf("%d\t%.1f\t%.1f\t%d\t%d\t%d\t%d", done, stood.Sub(start).Seconds(), gone.Sub(stood).Seconds(), u.rss, u.fds, u.ledger, u.index))
		}
	}
	table(rows...)
	return nil
}

// use is what a router has.
type use struct {
	rss          int // KiB
	fds, threads int
	cpu          time.Duration // since it was started
	ledger       int64         // KiB, of its file
	index        uint64        // entries of the ledger, ever
}

var residentKiB = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)

func (c *cluster) use(i int) (u use, err error) {
	h := c.lab.Host(i)
	proc := fmt.Sprintf("/proc/%d/", h.Router().PID())
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return u, err
	}
	if m := residentKiB.FindSubmatch(status); m != nil {
		_, err = fmt.Sscan(string(m[1]), &u.rss)
	}
	fds, err2 := os.ReadDir(proc + "fd")
	u.fds = len(fds)
	u.cpu, u.threads = netlab.ProcessorTime(h.Router().PID())
	err3 := h.Do(func() error {
		st, err := os.Stat("/var/lib/weave/ledger.db")
		if err == nil {
			u.ledger = st.Size() >> 10
		}
		return err
	})
	s, err4 := ask[ctl.Status](c, i, ctl.PathStatus, nil)
	u.index = s.IPAM.Index
	return u, errors.Join(err, err2, err3, err4)
}

// cost shows what the routers have, and what they spend while nothing happens.
func (c *cluster) cost(what string) error {
	before := make([]use, c.hosts)
	for i := range before {
		var err error
		if before[i], err = c.use(i); err != nil {
			return err
		}
	}
	time.Sleep(c.idle)
	title(what)
	rows := []string{"host\tKiB\tfds\tthreads\tCPU s so far\tidle CPU %\tledger KiB\tentries"}
	for i := range before {
		u, err := c.use(i)
		if err != nil {
			return err
		}
		rows = append(rows, fmt.Sprintf("%s\t%d\t%d\t%d\t%.1f\t%.1f\t%d\t%d", c.lab.Host(i).Name(), u.rss, u.fds, u.threads, u.cpu.Seconds(),
			100*(u.cpu-before[i].cpu).Seconds()/c.idle.Seconds(), u.ledger, u.index))
	}
	table(rows...)
	return nil
}

// before is what everything looked like.
type before struct {
	worlds netlab.Worlds
	use    use
}

var ignored = netlab.WorldOptions{Ignore: []string{
	"file /var/lib/weave/",           // a log that only grows, and a counter of starts
	"file /var/lib/cni",              // libcni's own
	"file /run/weave/claims/resting", // freed addresses, for 30 s
	"file /run/weave/witness",        // how often the state was changed
}}

func (c *cluster) look() (b before, err error) {
	if b.use, err = c.use(0); err == nil {
		b.worlds, err = c.lab.World(ignored)
	}
	return b, err
}

// compare says what stayed behind of all that was done.
func (c *cluster) compare(b before) error {
	title("What is left in the end")
	err := netlab.Wait(patience, "the hosts look as before", func() error {
		now, err := c.lab.World(ignored)
		if err != nil {
			return err
		}
		if diff := b.worlds.Diff(now); diff != "" {
			return errors.New("they differ:\n" + diff)
		}
		return nil
	})
	if err != nil {
		return err
	}
	u, err := c.use(0)
	if err != nil {
		return err
	}
	was, fresh, err := c.goroutines()
	if err != nil {
		return err
	}
	table("router of host 0\tbefore\tafter", fmt.Sprintf("KiB\t%d\t%d", b.use.rss, u.rss), fmt.Sprintf("fds\t%d\t%d", b.use.fds, u.fds),
		fmt.Sprintf("goroutines\t%d (of a fresh one)\t%d", fresh, was),
		fmt.Sprintf("ledger KiB\t%d\t%d", b.use.ledger, u.ledger), fmt.Sprintf("ledger entries, ever\t%d\t%d", b.use.index, u.index))
	fmt.Println("\nlinks, addresses, routes, neighbours, FDB, nft, settings, mounts, files, sockets and processes: as before")
	return nil
}

// goroutines are those of host 0's router, and of a fresh one in its place: each ends
// with a list of them (SIGQUIT).
func (c *cluster) goroutines() (was, fresh int, err error) {
	if was, err = c.quit(); err != nil {
		return was, 0, err
	}
	r := c.lab.Host(0).Router()
	if err := r.Restart(); err != nil {
		return was, 0, err
	}
	if err := c.start0(); err != nil {
		return was, 0, err
	}
	both, err := c.quit()
	return was, both - was, err // both lists are in one log
}

func (c *cluster) quit() (int, error) {
	r := c.lab.Host(0).Router()
	if err := r.Signal(syscall.SIGQUIT); err != nil {
		return 0, err
	}
	<-r.Done()
	log, err := os.ReadFile(r.LogFile()) // Log is its end alone
	return strings.Count(string(log), "\ngoroutine "), err
}
