// Command netbench measures networks on a cluster of five hosts, as
// scripts/bench/networks.sh has it: how long it takes from `weave net create` on one
// host to a container on another, what many networks with many containers cost, how
// long the commands of weave take there, and whether anything stays behind.
//
// All of it happens in one lab, one part after the other; what the hosts looked like
// before the first is compared with what they look like after the last.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// plan says how much is measured.
type plan struct {
	bin      string
	plugins  string // the directory of the reference plugins, of which the list has one
	conflist string // the default network's, from which the routers make the others'
	hosts    int
	rounds   int // create, ADD, remove
	networks int // at once
	each     int // containers of each
	sample   int // ADDs one at a time, and pings, on the full cluster
	churn    int // networks that come and go
	batch    int // of the churn at once
	asks     int // calls of each command
	idle     time.Duration
}

func main() {
	p := plan{}
	flag.StringVar(&p.bin, "bin", "", "the directory of our programs")
	flag.StringVar(&p.plugins, "plugins", "", "the directory of the reference plugins")
	flag.StringVar(&p.conflist, "conflist", "conflist/10-weave.conflist", "the default network's list")
	flag.IntVar(&p.hosts, "hosts", 5, "hosts of the cluster, at least 2")
	flag.IntVar(&p.rounds, "rounds", 100, "networks created for a container on another host; 0: not measured")
	flag.IntVar(&p.networks, "networks", 200, "networks at once; 0: not measured")
	flag.IntVar(&p.each, "each", 20, "containers of each network")
	flag.IntVar(&p.sample, "sample", 100, "containers added one at a time when all is there, and as many pings")
	flag.IntVar(&p.churn, "churn", 1000, "networks that come and go; 0: not measured")
	flag.IntVar(&p.batch, "batch", 50, "of these at once")
	flag.IntVar(&p.asks, "asks", 10, "calls of each command of weave; 0: not measured")
	flag.DurationVar(&p.idle, "idle", 5*time.Second, "how long the idle routers' CPU is measured")
	flag.Parse()
	var err error
	if p.hosts < 2 {
		err = fmt.Errorf("-hosts %d: a network is used on another host than it is made on, so there must be two", p.hosts)
	}
	if err == nil {
		err = netlab.Isolate()
	}
	if err == nil {
		err = p.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "netbench:", err)
		os.Exit(1)
	}
}

// run does all parts on one cluster.
func (p plan) run() error {
	return p.withCluster(func(c *cluster) error {
		if _, err := c.round("warm-up", 0, 1); err != nil { // what the first call ever makes stays
			return err
		}
		before, err := c.look()
		if err != nil {
			return err
		}
		for _, part := range []func() error{c.measureCreate, c.measureMany, c.measureChurn} {
			if err := part(); err != nil {
				return err
			}
		}
		return c.compare(before)
	})
}
