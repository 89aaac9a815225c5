// Command dnsbench measures name servers with dnsperf, as scripts/bench/dns.sh has it.
//
// All contenders serve one bridge of a host made of namespaces, each on an address of
// its own, in their default configuration but for what they serve; dnsperf is in a
// container on that bridge, as it comes. They take turns, in an order drawn anew each
// round, so that what else the machine does falls on all of them alike, and a ratio is
// that of one round. Ours is pkg/names, served by this program: a router is given its
// names one container at a time, which for 100,000 takes longer than the rest together.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// plan says how much is measured.
type plan struct {
	coredns, aardvark string // programs; "": left out
	sizes             []int  // of the tables
	rounds            int
	length            time.Duration // of each run
	clients           int           // sockets that dnsperf asks from
	flood             int           // queries a second
	floods            int           // turns of each kind of flood
	dir               string        // of the contenders' files
}

func main() {
	if len(os.Args) == 3 && daemons()[os.Args[1]] != nil {
		if err := daemons()[os.Args[1]](os.Args[2]); err != nil {
			fail(err)
		}
		return
	}
	p := plan{}
	flag.StringVar(&p.coredns, "coredns", "", "CoreDNS; without it, it is left out")
	flag.StringVar(&p.aardvark, "aardvark", "", "aardvark-dns; without it, it is left out")
	sizes := flag.String("names", "1000,100000", "names in the tables")
	flag.IntVar(&p.rounds, "rounds", 5, "turns of each contender")
	flag.DurationVar(&p.length, "length", 4*time.Second, "of each turn, at least 1s")
	flag.IntVar(&p.clients, "clients", 1, "sockets that dnsperf asks from")
	flag.IntVar(&p.flood, "flood", 20000, "queries a second of the other container; 0: no flood")
	flag.IntVar(&p.floods, "floods", 0, "turns of each kind of flood; 0: as many as -rounds, at least one")
	flag.Parse()
	if p.floods == 0 {
		p.floods = max(1, p.rounds)
	}
	err := p.parseSizes(*sizes)
	if err == nil {
		err = netlab.Isolate()
	}
	if err == nil {
		err = p.run()
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "dnsbench:", err)
	os.Exit(1)
}

func (p *plan) parseSizes(list string) error {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 200_000 {
			return fmt.Errorf("%q: want numbers up to 200000 with commas", list)
		}
		p.sizes = append(p.sizes, n)
	}
	return nil
}

// run measures all, and prints each table when it is there.
func (p plan) run() (err error) {
	if p.dir, err = os.MkdirTemp("", "dnsbench."); err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	w, err := p.open()
	if err != nil {
		return err
	}
	return errors.Join(w.measure(), w.lab.Close())
}

func (w *world) measure() error {
	medians := map[int]results{}
	for _, n := range w.sizes {
		res, err := w.withServers(n, local)
		if err != nil {
			return err
		}
		res.print(os.Stdout, fmt.Sprintf("%d names of ours", n))
		medians[n] = res
	}
	flat(os.Stdout, w.sizes, medians)
	res, err := w.withServers(w.sizes[0], cached)
	if err != nil {
		return err
	}
	res.print(os.Stdout, fmt.Sprintf("%d names of others, cached", forwardedNames))
	if w.flood == 0 {
		return nil
	}
	return w.underFlood(os.Stdout)
}
