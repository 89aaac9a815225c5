package answers

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/scripts/e2e/addresses"
)

// Forget is a Crash after which the claim files are gone too.
const Forget addresses.FaultKind = "kill -9, claim files lost"

// OfNetwork reports whether a fault is one of the underlay; else it is one of routers.
func OfNetwork(f addresses.Fault) bool { return f.Kind != Forget && f.Kind.Network() }

// Plan draws the faults of a run, in order: those of the underlay are as for the
// addresses, without mere loss; of the routers, one dies for longer than its names live.
func Plan(seed uint64, hosts int, length time.Duration) (plan []addresses.Fault) {
	for _, f := range addresses.Plan(seed, hosts, length) {
		if f.Kind == addresses.Lossy {
			f.Kind = addresses.OneWay
		}
		if f.Kind.Network() {
			plan = append(plan, f)
		}
	}
	plan = append(plan, processFaults(seed, hosts, length)...)
	slices.SortStableFunc(plan, func(a, b addresses.Fault) int { return cmp.Compare(a.At, b.At) })
	return plan
}

func processFaults(seed uint64, hosts int, length time.Duration) (plan []addresses.Fault) {
	r := rand.New(rand.NewPCG(seed, 3))
	for at, n := between(r, 2, 4), 0; at < length-4*time.Second; n++ {
		f := addresses.Fault{Kind: addresses.Crash, At: at, For: between(r, 0, 2), Hosts: r.Perm(hosts)[:1]}
		switch n % 4 {
		case 0:
			f.Kind = Forget
		case 1:
			f.For += 8 * time.Second
		case 3:
			f.Hosts = r.Perm(hosts)[:2+r.IntN(hosts-2)]
			slices.Sort(f.Hosts)
		}
		f.For = min(f.For, length-2*time.Second-at)
		plan, at = append(plan, f), at+f.For+between(r, 3, 6)
	}
	return plan
}

func between(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from)*time.Second + time.Duration(r.Int64N(int64(to-from)*int64(time.Second)))
}
