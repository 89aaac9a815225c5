// Command ipambench times the giving of an address, as scripts/bench/ipam.sh has it.
//
// Both plugins are started for each call, as a runtime starts them, with the same
// configuration but for the ipam section. Each number of existing reservations has a
// host of its own, twice: one with a router, one with host-local's store. All take
// turns, one ADD and DEL each, in an order drawn anew every time, so that what else
// the machine does falls on all of them alike. Only the call is timed.
//
// Everything lies on a tmpfs. For weave-ipam that is so on any machine; host-local's
// store is on a disk elsewhere, and slower.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// plan says how much is measured.
type plan struct {
	bin, plugins string
	allocator    string // the test binary of pkg/ipam
	benchtime    string
	existing     []int // with so many reservations already there, rising
	pairs        int   // ADD and DEL of each contender
	calls        int   // allocate and release over the socket, of each router
	parallel     []int
	members      []int // of the ledgers
	pause        time.Duration
}

func main() {
	p := plan{parallel: []int{1, 8}}
	flag.StringVar(&p.bin, "bin", "", "the directory of our programs")
	flag.StringVar(&p.plugins, "plugins", "", "the directory of the reference plugins")
	flag.StringVar(&p.allocator, "allocator", "", "the test binary of pkg/ipam; without it the allocator alone is left out")
	flag.StringVar(&p.benchtime, "benchtime", "1s", "of the allocator alone, as go test has it")
	flag.IntVar(&p.pairs, "n", 300, "ADD and DEL of each contender")
	flag.IntVar(&p.calls, "calls", 5000, "allocations over the socket of each router")
	flag.DurationVar(&p.pause, "pause", 3*time.Second, "for the routers to provide for more, before anything is timed")
	existing := flag.String("existing", "0,1000,5000,20000", "reservations already there, rising")
	members := flag.String("members", "10,100,1000", "hosts of the ledgers")
	flag.Parse()
	var err error
	if p.existing, err = numbers(*existing); err == nil {
		p.members, err = numbers(*members)
	}
	if err == nil {
		err = netlab.Isolate()
	}
	var res results
	if err == nil {
		res, err = p.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ipambench:", err)
		os.Exit(1)
	}
	if res.errors() > 0 {
		os.Exit(1)
	}
}

func numbers(list string) (out []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || len(out) > 0 && n <= out[len(out)-1] {
			return nil, fmt.Errorf("%q: want numbers with commas, rising", list)
		}
		out = append(out, n)
	}
	return out, nil
}

// run measures all, and prints each table when it is there.
func (p plan) run() (results, error) {
	res := results{}
	if err := p.withHosts(func(all []*contender) error { return p.measure(all, res) }); err != nil {
		return nil, err
	}
	if err := p.allocatorAlone(os.Stdout); err != nil {
		return nil, err
	}
	return res, p.printLedgers(os.Stdout)
}

func (p plan) measure(all []*contender, res results) error {
	if err := p.takeTurns(all, res); err != nil {
		return err
	}
	res.print(os.Stdout, p)
	return p.printCalls(os.Stdout, all)
}

// takeTurns times ADD and DEL of every contender.
func (p plan) takeTurns(all []*contender, res results) error {
	for i := range p.pairs + 1 {
		for _, at := range rand.Perm(len(all)) {
			c := all[at]
			add, del, err := c.pair(fmt.Sprintf("bench-%05d", i))
			if err != nil {
				return err
			}
			if i > 0 { // the first is for the caches
				res.put(c.key, add, del)
			}
		}
		if i%50 == 0 {
			fmt.Fprint(os.Stderr, ".")
		}
	}
	fmt.Fprintln(os.Stderr)
	return nil
}

// withHosts makes a lab with a host for each contender, filled.
func (p plan) withHosts(f func([]*contender) error) error {
	lab, err := netlab.Open(netlab.Options{Hosts: 2 * len(p.existing), Bin: p.bin, PluginDirs: []string{p.plugins}, Timeout: time.Minute})
	if err != nil {
		return err
	}
	var all []*contender
	for i, h := range lab.Hosts() {
		c := &contender{key: key{ours, p.existing[i/2]}, host: h}
		if i%2 == 1 {
			c.name = reference
		}
		if err = c.prepare(); err != nil {
			break
		}
		all = append(all, c)
	}
	if err == nil {
		fmt.Fprintf(os.Stderr, "%d hosts are filled", len(all))
		time.Sleep(p.pause)
		err = f(all)
	}
	return errors.Join(err, lab.Close())
}
