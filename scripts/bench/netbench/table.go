package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// times are of calls that succeeded.
type times []time.Duration

func (t times) quantile(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	t = slices.Sorted(slices.Values(t))
	return t[min(int(q*float64(len(t))), len(t)-1)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

// row is the least, the median, the 99th percentile and the most, in ms.
func (t times) row() string {
	return strings.Join([]string{ms(t.quantile(0)), ms(t.quantile(.5)), ms(t.quantile(.99)), ms(t.quantile(1))}, "\t")
}

// title begins a part. The load is of the last minute, our own included.
func title(format string, args ...any) {
	b, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(b), " ")
	fmt.Printf("\n"+format+" (load %s)\n\n", append(args, load)...)
}

// table prints rows of cells that are parted by tabs.
func table(rows ...string) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, r := range rows {
		fmt.Fprintln(w, r+"\t")
	}
	w.Flush()
}

// bar tells whether what was measured is within what was promised.
func bar(what string, got, most time.Duration) {
	verdict := "pass"
	if got > most {
		verdict = "miss"
	}
	fmt.Printf("\n%s: %s ms, promised ≤ %d ms: %s\n", what, ms(got), most.Milliseconds(), verdict)
}
