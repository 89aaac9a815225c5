package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/weave-cni/weave-cni/pkg/netlab"
)

// run is what dnsperf says of one run.
type run struct {
	rate    float64         // answers a second
	answers int             // in all
	sent    float64         // queries a second
	lost    float64         // percent
	cost    time.Duration   // processor time of the server for an answer
	flood   float64         // queries a second of another container meanwhile
	bad     bool            // answers other than NOERROR
	latency []time.Duration // of each query, where -v was given; rising
}

func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(d.Seconds()))) }

// perf runs dnsperf in a container against a contender.
func (w *world) perf(ctx context.Context, from *netlab.Container, c *contender, args ...string) (run, error) {
	args = append([]string{"-s", c.addr, "-c", strconv.Itoa(w.clients)}, args...)
	before, _ := netlab.ProcessorTime(c.pid)
	out, err := from.Command(ctx, "dnsperf", args...).Output()
	if err != nil {
		return run{}, fmt.Errorf("dnsperf against %s: %w", c.name, err)
	}
	after, _ := netlab.ProcessorTime(c.pid)
	r, err := parsePerf(out)
	r.cost = max(0, after-before) / time.Duration(max(1, r.answers))
	if err == nil && r.bad && ctx.Err() == nil {
		err = fmt.Errorf("not every answer is a good one:\n%s", last(out, 1500))
	}
	if err != nil {
		return run{}, fmt.Errorf("dnsperf against %s: %w", c.name, err)
	}
	return r, nil
}

func last(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func parsePerf(out []byte) (r run, err error) {
	rate := regexp.MustCompile(`Queries per second:\s+([0-9.]+)`).FindSubmatch(out)
	lost := regexp.MustCompile(`Queries lost:\s+\d+ \(([0-9.]+)%\)`).FindSubmatch(out)
	if rate == nil || lost == nil {
		return r, fmt.Errorf("no figures in %q", last(out, 1500))
	}
	sent, took := regexp.MustCompile(`Queries sent:\s+(\d+)`).FindSubmatch(out), regexp.MustCompile(`Run time \(s\):\s+([0-9.]+)`).FindSubmatch(out)
	if sent == nil || took == nil {
		return r, fmt.Errorf("no numbers of queries in %q", last(out, 1500))
	}
	if done := regexp.MustCompile(`Queries completed:\s+(\d+)`).FindSubmatch(out); done != nil {
		r.answers, _ = strconv.Atoi(string(done[1]))
	}
	n, _ := strconv.ParseFloat(string(sent[1]), 64)
	secs, _ := strconv.ParseFloat(string(took[1]), 64)
	r.sent = n / max(secs, 1e-6)
	r.rate, _ = strconv.ParseFloat(string(rate[1]), 64)
	r.lost, _ = strconv.ParseFloat(string(lost[1]), 64)
	codes := regexp.MustCompile(`Response codes:[ \t]+([A-Z]\S*)[^,\n]*(,?)`).FindSubmatch(out)
	r.bad = codes != nil && (string(codes[1]) != "NOERROR" || len(codes[2]) > 0) // without any, all were lost
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == ">" {
			if s, err := strconv.ParseFloat(f[4], 64); err == nil {
				r.latency = append(r.latency, time.Duration(s*float64(time.Second)))
			}
		}
	}
	slices.Sort(r.latency)
	return r, nil
}

func (r run) quantile(q float64) time.Duration {
	if len(r.latency) == 0 {
		return 0
	}
	return r.latency[min(int(q*float64(len(r.latency))), len(r.latency)-1)]
}

// results are the runs of each contender, one a round.
type results map[string][]run

func (r results) rates(name string) []float64 {
	return r.rising(name, func(x run) float64 { return x.rate })
}

func (r results) rising(name string, of func(run) float64) (rising []float64) {
	for _, x := range r[name] {
		rising = append(rising, of(x))
	}
	slices.Sort(rising)
	return rising
}

func median(rising []float64) float64 {
	if len(rising) == 0 {
		return 0
	}
	return rising[len(rising)/2]
}

// ratio is the median over the rounds of our rate by another's.
func (r results) ratio(name string) float64 {
	var all []float64
	for i, x := range r[name] {
		if x.rate > 0 {
			all = append(all, r[ours][i].rate/x.rate)
		}
	}
	slices.Sort(all)
	return median(all)
}

func (r results) print(out io.Writer, title string) {
	fmt.Fprintf(out, "\n%s: answers a second\n", title)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "server\tmin\tmedian\tmax\tlost\tprocessor time each\tweave is\tbar")
	for _, name := range []string{ours, dnsmasq, coredns, aardvark, floor} {
		rates := r.rates(name)
		if len(rates) == 0 {
			continue
		}
		var lost float64
		for _, x := range r[name] {
			lost = max(lost, x.lost)
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%.2f %%\t%.1f µs\t%.2f x\t%s\n", name, rates[0], median(rates), rates[len(rates)-1], lost,
			1e6*median(r.rising(name, func(x run) float64 { return x.cost.Seconds() })), r.ratio(name), bar(title, name))
	}
	t.Flush()
}

// bar is what is promised beside another server.
func bar(title, name string) string {
	cached := strings.Contains(title, "cached")
	switch {
	case name == coredns && cached:
		return ">= 1.0"
	case name == coredns:
		return ">= 1.8"
	case name == dnsmasq && !cached:
		return ">= 1.0"
	}
	return ""
}

// flat says what many names cost beside few.
func flat(out io.Writer, sizes []int, all map[int]results) {
	few, many := sizes[0], sizes[len(sizes)-1]
	if few == many {
		return
	}
	fmt.Fprintf(out, "\n%d names beside %d: our median rate is %.2f x\n", many, few, median(all[many].rates(ours))/median(all[few].rates(ours)))
}

// nothing is the flood that is none.
const nothing = "nothing"

// underFlood asks for names of ours, 1000 a second, while another container floods the
// server: with nothing, with names of ours, and with names of others whose upstream is
// silent. They take turns, in an order drawn anew each round, each at a server that has
// just begun: what one flood has left behind is not to be another's.
func (w *world) underFlood(out io.Writer) error {
	silent, err := w.start("silent", deadUpstream)
	if err != nil {
		return err
	}
	defer func() { _ = silent.Stop() }()
	if err := w.queries(local, w.sizes[0], "c%d.weave.local A\n"); err != nil {
		return err
	}
	kinds, res := []string{nothing, local, misses}, results{}
	for range w.floods {
		for _, at := range rand.Perm(len(kinds)) {
			r, err := w.anewUnder(kinds[at])
			if err != nil {
				return err
			}
			res[kinds[at]] = append(res[kinds[at]], r)
		}
		fmt.Fprint(os.Stderr, ".")
	}
	fmt.Fprintln(os.Stderr)
	return res.printFloods(out, w.flood, kinds)
}

// anewUnder starts the server, measures it under a flood of that kind, and ends it.
func (w *world) anewUnder(kind string) (run, error) {
	d, err := w.start("ours", serverAddr(0).String()+" "+strconv.Itoa(w.sizes[0])+" "+deadUpstream)
	if err != nil {
		return run{}, err
	}
	defer func() { _ = d.Stop() }()
	c := &contender{name: ours, addr: serverAddr(0).String()}
	if err := w.answers(c); err != nil {
		return run{}, err
	}
	return w.floodOf(c, kind)
}

// printFloods has of each kind the medians of its rounds, and how far their p99 is apart.
func (r results) printFloods(out io.Writer, rate int, kinds []string) error {
	fmt.Fprintf(out, "\n%d queries a second from one container; what another waits for names of ours, in %d rounds\n", rate, len(r[nothing]))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "flood of\tqueries/s\tp50\tp99 min\tmedian\tmax\tlost\tbar of the median p99")
	for _, kind := range kinds {
		middle := func(of func(run) float64) float64 { return median(r.rising(kind, of)) }
		p99 := r.rising(kind, func(x run) float64 { return x.quantile(.99).Seconds() })
		fmt.Fprintf(t, "%s\t%.0f\t%v\t%v\t%v\t%v\t%.2f %%\t%s\n", kind, middle(func(x run) float64 { return x.flood }),
			micros(middle(func(x run) float64 { return x.quantile(.5).Seconds() })), micros(p99[0]), micros(median(p99)), micros(p99[len(p99)-1]),
			middle(func(x run) float64 { return x.lost }), floodBar(kind))
	}
	return t.Flush()
}

// floodBar is what is promised under a flood.
func floodBar(kind string) string {
	if kind == nothing {
		return ""
	}
	return "<= 5ms"
}

func micros(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Microsecond)
}

// floodOf measures under a flood of names of that kind.
func (w *world) floodOf(c *contender, kind string) (r run, err error) {
	ctx, stop := context.WithTimeout(context.Background(), w.length+patience)
	defer stop()
	var flood sync.WaitGroup
	var rate float64
	var floodErr error
	if kind != nothing {
		flood.Go(func() {
			var out []byte
			var f run
			out, floodErr = w.flooder.Command(ctx, "dnsperf", "-s", c.addr, "-d", w.file(kind), "-Q", strconv.Itoa(w.flood), "-q", "60000", "-t", "1",
				"-l", seconds(w.length+2*time.Second)).Output()
			if floodErr == nil {
				f, floodErr = parsePerf(out)
			}
			rate = f.sent
		})
		select {
		case <-time.After(time.Second): // it is under way
		case <-ctx.Done():
		}
	}
	r, err = w.perf(ctx, w.client, c, "-d", w.file(local), "-l", seconds(w.length), "-Q", "1000", "-v")
	flood.Wait()
	r.flood = rate
	return r, errors.Join(err, floodErr)
}
