package addresses

import (
	"fmt"
	"testing"
	"time"
)

func TestAPlanIsTheSeedsAndHasEveryKindOfFault(t *testing.T) {
	for seed := range uint64(500) {
		for _, length := range []time.Duration{40 * time.Second, 5 * time.Minute} {
			plan := Plan(seed, 5, length)
			if again := Plan(seed, 5, length); fmt.Sprint(plan) != fmt.Sprint(again) {
				t.Fatalf("seed %d has two plans", seed)
			}
			if err := sound(plan, length); err != nil {
				t.Fatalf("seed %d, %v: %v in\n%v", seed, length, err, plan)
			}
		}
	}
}

func sound(plan []Fault, length time.Duration) error {
	count := map[FaultKind]int{}
	ends := map[bool]time.Duration{} // of the last fault of the underlay, of processes
	for _, f := range plan {
		count[f.Kind]++
		if f.At < ends[f.Kind.Network()] {
			return fmt.Errorf("%v begins before the last one has ended", f)
		}
		if f.Kind.Network() && (len(f.Hosts) == 5 || len(f.Other(5))+len(f.Hosts) != 5) {
			return fmt.Errorf("%v has no other side", f)
		}
		ends[f.Kind.Network()] = f.At + f.For
	}
	if count[Partition] == 0 || count[OneWay] == 0 || count[Crash] < 3 || count[Lose] != 1 {
		return fmt.Errorf("not all kinds: %v", count)
	}
	if ends[true] != length || ends[false] > length {
		return fmt.Errorf("the last heal is at %v, the last start at %v", ends[true], ends[false])
	}
	return nil
}
