package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// showDNSTraffic tells of the cache, and of each upstream that was asked.
func (a *app) showDNSTraffic(d ctl.DNSTraffic) {
	c := d.Cache
	if asked := c.Hits + c.Misses; asked > 0 {
		fmt.Fprintf(a.out, "cache %s, %s of %s, %d %% of %d lookups\n",
			count(uint64(c.Entries), "answer"), size(float64(c.Bytes)), size(float64(c.Limit)), 100*c.Hits/asked, asked)
	}
	if d.Waiting > 0 {
		fmt.Fprintf(a.out, "waiting for their client's turn to ask an upstream: %d\n", d.Waiting)
	}
	if len(d.Upstreams) == 0 {
		return
	}
	fmt.Fprintln(a.out)
	rows := [][]string{{"UPSTREAM", "ANSWERED", "FAILED", "ON AVERAGE"}}
	for _, u := range d.Upstreams {
		mean := time.Duration(u.MeanSeconds * float64(time.Second)).Round(100 * time.Microsecond)
		rows = append(rows, []string{cmp.Or(u.Addr, "others"), fmt.Sprint(u.Answered), fmt.Sprint(u.Failed), mean.String()})
	}
	table(a.out, rows)
}
