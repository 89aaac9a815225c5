package netdev

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkAttach is one container at a time, as a plugin does it: a namespace
// opened, a link made and configured. Only Attach is timed.
func BenchmarkAttach(b *testing.B) {
	for _, bc := range []struct {
		name    string
		prefill int
		addrs   []string
	}{
		{"v4", 0, []string{"10.32.0.5/12"}},
		{"dual", 0, []string{"10.32.0.5/12", "fd00::5/64"}},
		{"v4_at_200", 200, []string{"10.32.0.5/12"}},
		{"v4_at_800", 800, []string{"10.32.0.5/12"}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			h := newBridge(b, "10.32.0.1/12", "fd00::1/64")
			attachMany(b, h, bc.prefill)
			var took []time.Duration
			h.in(func() error {
				for b.Loop() {
					v := vethFor(1001, newSpace(b).NS, bc.addrs...)
					start := time.Now()
					if err := Attach(v); err != nil {
						return err
					}
					took = append(took, time.Since(start))
					if err := Detach(v.Host, hashOf(v)); err != nil {
						return err
					}
				}
				return nil
			})
			slices.Sort(took)
			b.ReportMetric(0, "ns/op") // that would be the pair
			b.ReportMetric(float64(took[0].Microseconds()), "min-µs")
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

func BenchmarkDetach(b *testing.B) {
	h := newBridge(b, "10.32.0.1/12")
	c := newSpace(b)
	h.in(func() error {
		for b.Loop() {
			b.StopTimer()
			v := vethFor(1, c.NS, "10.32.0.5/12")
			if err := Attach(v); err != nil {
				return err
			}
			b.StartTimer()
			if err := Detach(v.Host, hashOf(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

func BenchmarkDeleteBatch(b *testing.B) {
	for _, n := range []int{20, 100, 250} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newBridge(b)
			for b.Loop() {
				b.StopTimer()
				links := attachMany(b, h, n)
				b.StartTimer()
				for _, err := range deleteBatch(h, testGroup, links) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkPorts(b *testing.B) {
	h := newBridge(b)
	attachMany(b, h, 800)
	h.in(func() error {
		for b.Loop() {
			if _, err := Ports(); err != nil {
				return err
			}
		}
		return nil
	})
}
