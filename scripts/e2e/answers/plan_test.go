package answers

import (
	"fmt"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/scripts/e2e/addresses"
)

func TestAPlanIsTheSeedsAndHasEveryKindOfFault(t *testing.T) {
	for seed := range uint64(300) {
		for _, length := range []time.Duration{30 * time.Second, 5 * time.Minute} {
			plan := Plan(seed, 5, length)
			if again := Plan(seed, 5, length); fmt.Sprint(plan) != fmt.Sprint(again) {
				t.Fatalf("seed %d has two plans", seed)
			}
			count, long := map[addresses.FaultKind]int{}, 0
			for _, f := range plan {
				count[f.Kind]++
				if f.At+f.For > length {
					t.Fatalf("seed %d, %v: %v ends too late", seed, length, f)
				}
				if f.Kind == addresses.Crash && f.For > 8*time.Second {
					long++
				}
			}
			if count[Forget] == 0 || count[addresses.OneWay] == 0 || count[addresses.Partition] == 0 || count[addresses.Lossy] != 0 || long == 0 {
				t.Fatalf("seed %d, %v: not all kinds: %v in\n%v", seed, length, count, plan)
			}
		}
	}
}
