package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// key names a measurement.
type key struct {
	contender, verb    string
	existing, parallel int
}

// results are all runs of each measurement, a run a round.
type results map[key][]run

func (r results) put(k key, x run) { r[k] = append(r[k], x) }

func (r results) errors() (n int) {
	for _, runs := range r {
		for _, x := range runs {
			n += x.errors
		}
	}
	return n
}

// quantile is over the calls of all rounds; 0 when there are none.
func (r results) quantile(k key, q float64) time.Duration {
	var all []time.Duration
	for _, x := range r[k] {
		all = append(all, x.took...)
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(int(q*float64(len(all))), len(all)-1)]
}

// cpu is the mean of a call over all rounds.
func (r results) cpu(k key) time.Duration {
	var sum time.Duration
	n := 0
	for _, x := range r[k] {
		sum += x.cpu
		n += len(x.took) + x.errors
	}
	return sum / time.Duration(max(1, n))
}

// total is the mean over the rounds.
func (r results) total(k key) (sum time.Duration) {
	for _, x := range r[k] {
		sum += x.total
	}
	return sum / time.Duration(max(1, len(r[k])))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

// ratio is "-" where one of the two was not measured.
func ratio(a, b time.Duration) string {
	if a == 0 || b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

func (r results) print(out io.Writer, p plan) {
	fmt.Fprintf(out, "One at a time, %d containers, %d rounds (ms; CPU: of all programs and the router, a call; ×ref: the median as a multiple of the reference's)\n\n", p.pairs, p.rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "existing\tcontender\tADD p50\tp99\tCPU\t×ref\tDEL p50\tp99\tCPU\t×ref\terrors\t")
	for _, existing := range p.existing {
		for _, c := range lineup {
			r.pairRow(w, c, existing)
		}
	}
	w.Flush()
	fmt.Fprintf(out, "\nStorms of %d containers (×ref: the total as a multiple of the reference's)\n\n", p.storm)
	fmt.Fprintln(w, "at once\tcontender\tADD total s\tp50 ms\tp99\tCPU\t×ref\tDEL total s\tp50 ms\tp99\tCPU\t×ref\terrors\t")
	for _, parallel := range p.parallel {
		for _, c := range lineup {
			r.stormRow(w, c, parallel)
		}
	}
	w.Flush()
	r.bars(out, p)
}

func (r results) pairRow(w io.Writer, c string, existing int) {
	add, del := key{c, "ADD", existing, 1}, key{c, "DEL", existing, 1}
	if len(r[add]) == 0 {
		return
	}
	fmt.Fprintf(w, "%d\t%s\t", existing, c)
	for _, k := range []key{add, del} {
		ref := k
		ref.contender = reference
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t", ms(r.quantile(k, .5)), ms(r.quantile(k, .99)), ms(r.cpu(k)), ratio(r.quantile(k, .5), r.quantile(ref, .5)))
	}
	fmt.Fprintf(w, "%d\t\n", r.failed(add)+r.failed(del))
}

func (r results) stormRow(w io.Writer, c string, parallel int) {
	add, del := key{c, "ADD", 0, parallel}, key{c, "DEL", 0, parallel}
	if len(r[add]) == 0 {
		return
	}
	fmt.Fprintf(w, "%d\t%s\t", parallel, c)
	for _, k := range []key{add, del} {
		ref := k
		ref.contender = reference
		fmt.Fprintf(w, "%.2f\t%s\t%s\t%s\t%s\t", r.total(k).Seconds(), ms(r.quantile(k, .5)), ms(r.quantile(k, .99)), ms(r.cpu(k)), ratio(r.total(k), r.total(ref)))
	}
	fmt.Fprintf(w, "%d\t\n", r.failed(add)+r.failed(del))
}

func (r results) failed(k key) (n int) {
	for _, x := range r[k] {
		n += x.errors
	}
	return n
}

// bars says of each promise whether it is kept.
func (r results) bars(out io.Writer, p plan) {
	last := p.existing[len(p.existing)-1]
	p50 := func(c, verb string, existing int) time.Duration { return r.quantile(key{c, verb, existing, 1}, .5) }
	type bar struct {
		what string
		a, b time.Duration
		most float64
	}
	list := []bar{
		{"ADD alone / reference", p50(ours, "ADD", 0), p50(reference, "ADD", 0), 0.5},
		{fmt.Sprintf("ADD with %d existing / itself with none", last), p50(ours, "ADD", last), p50(ours, "ADD", 0), 1.5},
		{"DEL alone / reference", p50(ours, "DEL", 0), p50(reference, "DEL", 0), 0.4},
	}
	for _, n := range p.parallel {
		list = append(list,
			bar{fmt.Sprintf("ADD of a storm, %d at once / reference", n), r.total(key{ours, "ADD", 0, n}), r.total(key{reference, "ADD", 0, n}), 0.25},
			bar{fmt.Sprintf("DEL of a storm, %d at once / reference", n), r.total(key{ours, "DEL", 0, n}), r.total(key{reference, "DEL", 0, n}), 0.12})
	}
	fmt.Fprint(out, "\nBars\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, b := range list {
		verdict := "pass"
		switch {
		case b.a == 0 || b.b == 0:
			verdict = "not measured"
		case float64(b.a) > b.most*float64(b.b):
			verdict = "miss"
		}
		fmt.Fprintf(w, "%s\t≤ %.2f\t%s\t%s\n", b.what, b.most, ratio(b.a, b.b), verdict)
	}
	w.Flush()
}
