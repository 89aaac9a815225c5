package addresses

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// FaultKind is what goes wrong.
type FaultKind string

// What the hosts of a Fault suffer.
const (
	Crash     FaultKind = "kill -9"     // their routers, which start again
	Lose      FaultKind = "state lost"  // a Crash, and the state directory is gone
	Partition FaultKind = "partition"   // cut off from all others, both ways
	OneWay    FaultKind = "one-way cut" // what they send to the others is dropped
	Lossy     FaultKind = "lossy"       // a part of their packets is lost
)

// Network reports whether the fault is one of the underlay, healed at its end;
// else it is one of processes.
func (k FaultKind) Network() bool { return k != Crash && k != Lose }

// Fault happens to some hosts At a time since the start, For so long.
type Fault struct {
	Kind    FaultKind
	At, For time.Duration
	Hosts   []int
}

func (f Fault) String() string {
	return fmt.Sprintf("%7.2f s for %5.2f s  %s of %v", f.At.Seconds(), f.For.Seconds(), f.Kind, f.Hosts)
}

// Other is the other side of a partition among n hosts.
func (f Fault) Other(n int) (rest []int) {
	for i := range n {
		if !slices.Contains(f.Hosts, i) {
			rest = append(rest, i)
		}
	}
	return rest
}

// Plan draws the faults of a run, in order. Those of the underlay follow each
// other and so do those of processes, but one of each may meet. The last heal is
// at the end of the run; every router has been started again before. One state
// directory is lost, past the first third.
func Plan(seed uint64, hosts int, length time.Duration) []Fault {
	plan := append(networkFaults(seed, hosts, length), processFaults(seed, hosts, length)...)
	slices.SortStableFunc(plan, func(a, b Fault) int { return cmp.Compare(a.At, b.At) })
	return plan
}

func networkFaults(seed uint64, hosts int, length time.Duration) (plan []Fault) {
	r := rand.New(rand.NewPCG(seed, 1))
	const shortest = 4 * time.Second
	for at, n := between(r, 2, 4), 0; at < length-shortest; n++ {
		f := Fault{Kind: []FaultKind{Partition, OneWay, Partition, Lossy}[n%4], At: at, For: between(r, 4, 10), Hosts: some(r, hosts, hosts-1)}
		if length >= time.Minute && r.IntN(4) == 0 {
			f.For += 15 * time.Second // longer than gossip and raft take to notice
		}
		next := at + f.For + between(r, 2, 6)
		if next >= length-shortest { // it is the last one
			f.For = length - at
			if f.Kind == Lossy {
				f.Kind = Partition
			}
		}
		plan, at = append(plan, f), next
	}
	return plan
}

func processFaults(seed uint64, hosts int, length time.Duration) (plan []Fault) {
	r := rand.New(rand.NewPCG(seed, 2))
	lost := false
	for at := between(r, 2, 5); at < length-4*time.Second; {
		f := Fault{Kind: Crash, At: at, For: between(r, 0, 3), Hosts: some(r, hosts, 1)}
		switch {
		case !lost && at > length/3:
			f.Kind, lost = Lose, true
		case r.IntN(10) == 0:
			f.Hosts = some(r, hosts, hosts)
		case r.IntN(4) == 0:
			f.Hosts = some(r, hosts, 3)
		}
		plan, at = append(plan, f), at+f.For+between(r, 2, 6)
	}
	return plan
}

func between(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from)*time.Second + time.Duration(r.Int64N(int64(to-from)*int64(time.Second)))
}

// some draws one to most of n hosts.
func some(r *rand.Rand, n, most int) []int {
	hosts := r.Perm(n)[:1+r.IntN(most)]
	slices.Sort(hosts)
	return hosts
}
