// Command cnibench times ADD and DEL through libcni, as a container runtime
// would call them: our whole chain with its router, the reference bridge plugin
// with and without masquerade, three plugins that do nothing, and the fewest
// netlink messages that do the same in one process. The last two no chain of
// three can beat.
//
// Every contender has a host of its own in a lab, and they take turns in every
// round, so that what else the machine does falls on all of them. Only the call
// is timed; the containers' namespaces are made before.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// plan says how much is measured.
type plan struct {
	rounds   int
	pairs    int   // ADD and DEL one at a time, of so many containers
	existing []int // with so many containers already there, rising
	storm    int   // containers at once
	parallel []int
	pause    time.Duration // for the kernel to end the namespaces of the run before
}

// lineup are the names of the contenders in the order of their turns.
var lineup = []string{ours, reference, bare, starts, floor}

const (
	ours      = "weave"
	reference = "reference"
	bare      = "no masquerade"
	starts    = "three starts"
	floor     = "floor"
)

func main() {
	p := plan{existing: []int{0, 200, 800}, parallel: []int{8, 32}}
	bin := flag.String("bin", "", "the directory of our programs; without it they are left out")
	plugins := flag.String("plugins", "", "the directory of the reference plugins")
	flag.IntVar(&p.rounds, "rounds", 2, "how often everything is measured")
	flag.IntVar(&p.pairs, "n", 60, "containers one at a time")
	flag.IntVar(&p.storm, "storm", 250, "containers at once")
	flag.DurationVar(&p.pause, "pause", 3*time.Second, "between two runs")
	most := flag.Int("existing", 800, "the largest number of containers already there")
	flag.Parse()
	for len(p.existing) > 1 && p.existing[len(p.existing)-1] > *most {
		p.existing = p.existing[:len(p.existing)-1]
	}
	if err := netlab.Isolate(); err != nil {
		fail(err)
	}
	res := results{}
	for round := range p.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d:", round+1, p.rounds)
		if err := p.round(*bin, *plugins, res); err != nil {
			fail(err)
		}
		fmt.Fprintln(os.Stderr)
	}
	res.print(os.Stdout, p)
	if res.errors() > 0 {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "cnibench:", err)
	os.Exit(1)
}

// round measures all once: pairs on hosts that fill up, then storms on fresh ones.
func (p plan) round(bin, plugins string, res results) error {
	err := withContenders(bin, plugins, func(all []*contender) error {
		for _, existing := range p.existing {
			for _, c := range all {
				if err := c.fill(existing); err != nil {
					return err
				}
				if err := c.pairs(p.pairs, res); err != nil {
					return err
				}
				p.settle()
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.settle()
	return withContenders(bin, plugins, func(all []*contender) error {
		for _, parallel := range p.parallel {
			for _, c := range all {
				if err := c.storm(p.storm, parallel, res); err != nil {
					return err
				}
				p.settle()
			}
		}
		return nil
	})
}

func (p plan) settle() {
	fmt.Fprint(os.Stderr, ".")
	time.Sleep(p.pause)
}

// withContenders makes a lab with a host for each contender.
func withContenders(bin, plugins string, f func([]*contender) error) error {
	lab, err := netlab.Open(netlab.Options{Hosts: len(lineup), Bin: bin, PluginDirs: []string{plugins}, Timeout: time.Minute})
	if err != nil {
		return err
	}
	var all []*contender
	for i, name := range lineup {
		if name == ours && bin == "" {
			continue
		}
		c := &contender{name: name, host: lab.Host(i)}
		if err = c.prepare(bin); err != nil {
			break
		}
		all = append(all, c)
	}
	if err == nil {
		err = f(all)
	}
	return errors.Join(err, lab.Close())
}

// prepare makes a contender ready for its first call.
func (c *contender) prepare(bin string) (err error) {
	switch c.name {
	case floor:
		c.calls, err = newNetlink(c.host)
		return err
	case ours:
		if err := startRouter(c.host, bin); err != nil {
			return err
		}
		c.calls, err = newCNI(weaveList)
	case reference:
		c.calls, err = newCNI(bridgeList(true))
	case bare:
		c.calls, err = newCNI(bridgeList(false))
	case starts:
		c.calls, err = newCNI(nothingList)
	}
	if err != nil {
		return err
	}
	// Bridges, chains and directories are made by the first call ever; it is not timed.
	return c.once()
}

func startRouter(h *netlab.Host, bin string) error {
	r, err := h.StartRouter("--init", "new")
	if err != nil {
		return err
	}
	err = r.WaitFor(20*time.Second, "ADD can be served", func() error {
		_, err := h.Run(filepath.Join(bin, "weave"), "status")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(r.Log()))
	}
	return nil
}
