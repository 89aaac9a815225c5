package names

import (
	"sync/atomic"
	"time"
)

// Histogram is how long something took: Counts[i] times at most Bounds[i] seconds,
// Count times in all, Sum seconds together.
type Histogram struct {
	Bounds []float64 `json:"bounds"`
	Counts []uint64  `json:"counts"`
	Count  uint64    `json:"count"`
	Sum    float64   `json:"sum"`
}

const bounds = 10

// durationBounds are from what an answer of our own takes to what one gives an upstream.
func durationBounds() [bounds]time.Duration {
	return [bounds]time.Duration{
		50 * time.Microsecond, 200 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond,
		100 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
	}
}

// durations counts without a lock, so the numbers of one reading may differ by the
// queries that end meanwhile. The zero value is ready.
type durations struct {
	counts [bounds + 1]atomic.Uint64 // the last: longer than any bound
	sum    atomic.Int64              // nanoseconds
}

func (d *durations) note(took time.Duration) {
	i := 0
	for _, b := range durationBounds() {
		if took <= b {
			break
		}
		i++
	}
	d.counts[i].Add(1)
	d.sum.Add(int64(took))
}

func (d *durations) histogram() Histogram {
	h := Histogram{Sum: time.Duration(d.sum.Load()).Seconds()}
	for i, b := range durationBounds() {
		h.Count += d.counts[i].Load()
		h.Bounds, h.Counts = append(h.Bounds, b.Seconds()), append(h.Counts, h.Count)
	}
	h.Count += d.counts[bounds].Load()
	return h
}
