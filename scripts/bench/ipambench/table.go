package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// flat is what a full host may cost, as a multiple of an empty one.
const flat = 1.10

// times are of calls that succeeded.
type times []time.Duration

func (t times) quantile(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	t = slices.Sorted(slices.Values(t))
	return t[min(int(q*float64(len(t))), len(t)-1)]
}

// run is all calls of a contender.
type run struct {
	add, del, both times
	errors         int
}

type results map[key]*run

// put enters a pair; a call that failed took 0.
func (r results) put(k key, add, del time.Duration) {
	x := r[k]
	if x == nil {
		x = &run{}
		r[k] = x
	}
	if add == 0 || del == 0 {
		x.errors++
		return
	}
	x.add, x.del, x.both = append(x.add, add), append(x.del, del), append(x.both, add+del)
}

func (r results) errors() (n int) {
	for _, x := range r {
		n += x.errors
	}
	return n
}

func (r results) median(name string, existing int) time.Duration {
	if x := r[key{name, existing}]; x != nil {
		return x.both.quantile(.5)
	}
	return 0
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

// ratio is "-" where one of the two was not measured.
func ratio(a, b time.Duration) string {
	if a == 0 || b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

func (r results) print(out io.Writer, p plan) {
	least, most := p.existing[0], p.existing[len(p.existing)-1]
	fmt.Fprintf(out, "Through the exec'd plugins, %d ADD and DEL each (ms; ×%d: the median of both as a multiple of its own with %d existing; ×ref: of host-local's)\n\n", p.pairs, least, least)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "existing\tcontender\tADD p50\tp99\tDEL p50\tp99\tboth p50\tp99\t×%d\t×ref\terrors\t\n", least)
	for _, existing := range p.existing {
		for _, name := range []string{ours, reference} {
			x := r[key{name, existing}]
			fmt.Fprintf(w, "%d\t%s\t", existing, name)
			for _, t := range []times{x.add, x.del, x.both} {
				fmt.Fprintf(w, "%s\t%s\t", ms(t.quantile(.5)), ms(t.quantile(.99)))
			}
			own := x.both.quantile(.5)
			fmt.Fprintf(w, "%s\t%s\t%d\t\n", ratio(own, r.median(name, least)), ratio(own, r.median(reference, existing)), x.errors)
		}
	}
	w.Flush()
	a, b := r.median(ours, most), r.median(ours, least)
	verdict := "pass"
	switch {
	case a == 0 || b == 0 || most == least:
		verdict = "not measured"
	case float64(a) > flat*float64(b):
		verdict = "miss"
	}
	fmt.Fprint(out, "\nBars\n\n")
	fmt.Fprintf(w, "ADD and DEL with %d existing / with %d\t≤ %.2f\t%s\t%s\t\n", most, least, flat, ratio(a, b), verdict)
	fmt.Fprintf(w, "the same of host-local\tno bar\t%s\t\t\n", ratio(r.median(reference, most), r.median(reference, least)))
	w.Flush()
}
