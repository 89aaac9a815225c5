package names

import (
	"slices"
	"testing"
	"time"
)

func TestDurationsAreCountedUpToEachBound(t *testing.T) {
	var d durations
	for _, took := range []time.Duration{time.Microsecond, 50 * time.Microsecond, 51 * time.Microsecond, 2 * time.Second, time.Hour} {
		d.note(took)
	}
	h := d.histogram()
	if want := []uint64{2, 3, 3, 3, 3, 3, 3, 3, 4, 4}; !slices.Equal(h.Counts, want) || h.Count != 5 || len(h.Bounds) != len(want) {
		t.Errorf("%+v", h)
	}
	if !slices.IsSorted(h.Bounds) || h.Sum < 3602 || h.Sum > 3603 {
		t.Errorf("bounds %v, sum %v", h.Bounds, h.Sum)
	}
}
