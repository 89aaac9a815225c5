package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// chunks is in how many parts the calls of each router are made, in turns.
const chunks = 10

// printCalls times allocate and release over the socket of each router, without plugins.
func (p plan) printCalls(out io.Writer, all []*contender) error {
	fmt.Fprintf(out, "\nThe router over its socket, %d times allocate and release\n\n", p.calls)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "existing\tat once\ta second\tp50 µs\tp99\t")
	for _, parallel := range p.parallel {
		total, took := map[*contender]time.Duration{}, map[*contender]times{}
		for chunk := range chunks {
			for _, c := range all {
				if c.name != ours {
					continue
				}
				start := time.Now()
				t, err := c.calls(max(1, p.calls/chunks), parallel, fmt.Sprint(parallel, "-", chunk))
				if err != nil {
					return fmt.Errorf("over the socket, with %d existing: %w", c.existing, err)
				}
				total[c] += time.Since(start)
				took[c] = append(took[c], t...)
			}
		}
		for _, c := range all {
			if t := took[c]; len(t) > 0 {
				fmt.Fprintf(w, "%d\t%d\t%.0f\t%d\t%d\t\n", c.existing, parallel, float64(len(t))/total[c].Seconds(), t.quantile(.5).Microseconds(), t.quantile(.99).Microseconds())
			}
		}
	}
	return w.Flush()
}

// calls makes so many pairs of calls, and tells how long each pair took.
func (c *contender) calls(n, parallel int, name string) (took times, err error) {
	var mu sync.Mutex
	err = c.each(n, parallel, func(client *ctl.Client, i int) error {
		k := attachment.Key{Network: "weave", ContainerID: fmt.Sprintf("call-%s-%d", name, i), IfName: "eth0"}
		start := time.Now()
		if err := allocate(client, k, ctl.DecidedByVeth); err != nil {
			return err
		}
		if err := release(client, k); err != nil {
			return err
		}
		t := time.Since(start)
		mu.Lock()
		defer mu.Unlock()
		took = append(took, t)
		return nil
	})
	return took, err
}

var benchLine = regexp.MustCompile(`(?m)^BenchmarkAllocateRelease/(\d+)\S*\s+\d+\s+(\d+)\S* ns/op`)

// allocatorAlone runs the Go benchmark of pkg/ipam.
func (p plan) allocatorAlone(out io.Writer) error {
	if p.allocator == "" {
		return nil
	}
	text, err := exec.Command(p.allocator, "-test.run", "^$", "-test.bench", "^BenchmarkAllocateRelease$", "-test.benchtime", p.benchtime).CombinedOutput()
	found := benchLine.FindAllSubmatch(text, -1)
	if err != nil || len(found) == 0 {
		return fmt.Errorf("the allocator alone: %w\n%s", err, text)
	}
	fmt.Fprint(out, "\nThe allocator in one process, with the files of its claims: allocate and release\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "existing\ta second\tmean µs\t")
	for _, m := range found {
		ns, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			fmt.Fprintln(os.Stderr, "ipambench:", err)
			continue
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.1f\t\n", m[1], 1e9/ns, ns/1e3)
	}
	return w.Flush()
}
