// Command sim plays seeds of the simulator's scenarios.
//
//	sim -scenario crash -first 1000 -seeds 500      plays seeds 1000 to 1499
//	sim -scenario crash -seconds 60                 plays random seeds for a minute
//	sim -scenario crash -replay 1234                tells what happens in a seed
//	sim -mutation "offer not durable" -seeds 2000   how many seeds until the mistake is caught
//	sim -list, sim -mutations                       the names of both
//
// A line for each: scenario, seeds, bad, seconds of CPU, first seed, first bad seed (or -). It exits 1 when something is bad.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/weave-cni/weave-cni/pkg/simtest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

type options struct {
	scenario, mutation, profile string
	first, seeds                uint64
	seconds                     float64
	replay                      int64
	tail                        int
	list, mutations, safety     bool
}

func run() error {
	var o options
	flag.StringVar(&o.scenario, "scenario", "", "which scenario; empty: all")
	flag.StringVar(&o.mutation, "mutation", "", "make this mistake and play until it is caught")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile there")
	flag.Uint64Var(&o.first, "first", 1, "first seed")
	flag.Uint64Var(&o.seeds, "seeds", 500, "how many")
	flag.Float64Var(&o.seconds, "seconds", 0, "play for so long instead, from a random first seed")
	flag.Int64Var(&o.replay, "replay", -1, "play this seed and tell what happens")
	flag.IntVar(&o.tail, "tail", 80, "lines of a trace to show, 0 for all")
	flag.BoolVar(&o.safety, "safety", false, "with -mutation: that hosts end up stuck does not count as caught")
	flag.BoolVar(&o.list, "list", false, "list the scenarios")
	flag.BoolVar(&o.mutations, "mutations", false, "list the mistakes")
	flag.Parse()
	debug.SetGCPercent(2000) // the heap is small and short-lived
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return o.act()
}

func (o options) act() error {
	switch {
	case o.list:
		for _, s := range simtest.Scenarios() {
			fmt.Printf("%s\t%s\n", s.Name, s.About)
		}
		return nil
	case o.mutations:
		for _, m := range simtest.Mutations() {
			fmt.Println(m)
		}
		return nil
	}
	scenarios := simtest.Scenarios()
	if o.scenario != "" {
		s := simtest.ByName(o.scenario)
		if s == nil {
			return fmt.Errorf("there is no scenario %q; see -list", o.scenario)
		}
		scenarios = []*simtest.Scenario{s}
	}
	sim, err := simtest.New()
	if err != nil {
		return err
	}
	defer sim.Close()
	m, err := mistake(o.mutation)
	switch {
	case err != nil:
		return err
	case o.replay >= 0:
		return o.tell(sim, scenarios[0], m)
	case m != simtest.None:
		if o.scenario == "" {
			scenarios = []*simtest.Scenario{m.Scenario()}
		}
		return o.hunt(sim, scenarios, m)
	}
	anyBad := false
	for _, s := range scenarios {
		anyBad = o.play(sim, s) || anyBad
	}
	if anyBad {
		return fmt.Errorf("there are bad seeds")
	}
	return nil
}

func mistake(name string) (simtest.Mutation, error) {
	if name == "" {
		return simtest.None, nil
	}
	for _, m := range simtest.Mutations() {
		if m.String() == name {
			return m, nil
		}
	}
	return simtest.None, fmt.Errorf("there is no mistake %q; see -mutations", name)
}

// play plays seeds and prints the line of a scenario.
func (o options) play(sim *simtest.Simulator, s *simtest.Scenario) (bad bool) {
	start, used, first, n, bads, example := time.Now(), cpu(), o.first, uint64(0), 0, "-"
	if o.seconds > 0 {
		first, o.seeds = rand.Uint64N(1<<40), 1<<62
	}
	for ; n < o.seeds && (o.seconds == 0 || time.Since(start).Seconds() < o.seconds); n++ {
		v := sim.Run(s, first+n, simtest.None)
		if v.Bad == "" {
			continue
		}
		if bads++; bads == 1 {
			example = fmt.Sprint(first + n)
		}
		if bads <= 5 {
			fmt.Fprintf(os.Stderr, "BAD scenario %s seed %d after %d ticks: %s\n", s.Name, first+n, v.Ticks, v.Bad)
		}
	}
	fmt.Printf("%s\t%d\t%d\t%.3f\t%d\t%s\n", s.Name, n, bads, cpu()-used, first, example)
	return bads > 0
}

func (o options) tell(sim *simtest.Simulator, s *simtest.Scenario, m simtest.Mutation) error {
	v := sim.Replay(s, uint64(o.replay), m)
	lines := v.Trace
	if o.tail > 0 && len(lines) > o.tail {
		lines = lines[len(lines)-o.tail:]
	}
	fmt.Println(strings.Join(lines, "\n"))
	fmt.Printf("%d ticks, %d steps\n", v.Ticks, v.Steps)
	if v.Bad != "" {
		return fmt.Errorf("scenario %s, seed %d: %s", s.Name, o.replay, v.Bad)
	}
	return nil
}

// hunt plays the scenarios in turn until the mistake is caught.
func (o options) hunt(sim *simtest.Simulator, scenarios []*simtest.Scenario, m simtest.Mutation) error {
	tried := uint64(0)
	for seed := o.first; tried < o.seeds; seed++ {
		for _, s := range scenarios {
			tried++
			if v := sim.Run(s, seed, m); v.Bad != "" && (!o.safety || !strings.HasPrefix(v.Bad, "after ")) && sim.Run(s, seed, simtest.None).Bad == "" {
				what, _, _ := strings.Cut(v.Bad, "\n")
				fmt.Printf("%s\t%d\t%s\t%d\t%s\n", m, tried, s.Name, seed, what)
				return nil
			}
		}
	}
	fmt.Printf("%s\t%d\t-\t-\tNOT CAUGHT\n", m, tried)
	return fmt.Errorf("mistake %q was not caught in %d seeds", m, tried)
}

// cpu is how many seconds of a processor this process has used.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
