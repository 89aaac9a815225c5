package replica

import (
	"slices"
	"testing"
)

// A life that was never confirmed is known all the same: a copy of an older state that
// counts up to its number is found out (simulator, restore, seed 2012372).
func TestALifeOnTrialIsRememberedAgainstCopies(t *testing.T) {
	w := three(t, 31)
	h, a := w.hosts[2], w.hosts[0]
	h.kill()
	w.run(twinTicks + 1)
	first, second := copyOf(t, h, h.store.Copy(), 1), copyOf(t, h, h.store.Copy(), 2)
	for _, o := range asks(first, a) {
		if got := a.deliver(first, o); !slices.Contains(got, kindAnswer) && o.ID != 0 {
			t.Fatalf("the first was answered %v", got)
		}
	}
	var got []uint8
	for _, o := range asks(second, a) {
		got = append(got, a.deliver(second, o)...)
	}
	if !slices.Contains(got, kindGone) || slices.Contains(got, kindAnswer) {
		t.Errorf("the second was answered %v", got)
	}
}
