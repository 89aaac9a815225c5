package simtest

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// open makes a simulator for one test. Tests that use it do not run in parallel.
func open(t *testing.T) *Simulator {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// seeds is how many of each scenario a test plays; SIM_SEEDS says otherwise.
func seeds(t *testing.T) uint64 {
	if n, err := strconv.ParseUint(os.Getenv("SIM_SEEDS"), 10, 32); err == nil {
		return n
	}
	if testing.Short() {
		return 30
	}
	return 200
}

// explain fails a test with the end of the trace of a bad seed.
func explain(t *testing.T, s *Simulator, sc *Scenario, seed uint64, mistake Mutation) {
	t.Helper()
	v := s.Replay(sc, seed, mistake)
	lines := v.Trace[max(0, len(v.Trace)-60):]
	t.Fatalf("scenario %s, seed %d (again: go run ./pkg/simtest/cmd/sim -scenario %s -replay %d):\n%s", sc.Name, seed, sc.Name, seed, strings.Join(lines, "\n"))
}

func TestNoScenarioGivesAnAddressTwiceOrLosesOne(t *testing.T) {
	for _, sc := range Scenarios() {
		t.Run(sc.Name, func(t *testing.T) {
			s := open(t)
			for seed := range seeds(t) {
				if v := s.Run(sc, seed+1, None); v.Bad != "" {
					explain(t, s, sc, seed+1, None)
				}
			}
		})
	}
}

// TestEverySeedThatWasEverBadIsGood: what each found is said beside it. Schedules change
// when the simulator does, so a seed keeps its meaning only for as long; the mistake that
// it found has a test of its own where it was corrected.
func TestEverySeedThatWasEverBadIsGood(t *testing.T) {
	s := open(t)
	for _, was := range []struct {
		scenario string
		seed     uint64
		what     string
	}{
		{"network", 38, "two hosts took the last address from each other at the speed of the log, both early"},
		{"network", 54, "the same"},
		{"voters", 9, "two of three voters left at once, each with its state: nobody could decide any more"},
		{"voters", 153, "the same, of one voter"},
		{"misuse", 23, "a host without a vote was retired while it was down, and never heard of it"},
		{"restore", 145, "not a mistake: forgotten entries after a majority was lost"},
		{"restore", 560180760674, "a copy took part under the number of a life that the others, started again, had forgotten"},
		{"everything", 55377, "not a mistake: the operator of the simulator went on with a host that had left, not with the one that was there"},
		{"voters", 529968762428, "all hosts left at once, and none was there to be joined"},
	} {
		if v := s.Run(ByName(was.scenario), was.seed, None); v.Bad != "" {
			t.Errorf("%s, seed %d (%s): %s", was.scenario, was.seed, was.what, v.Bad)
		}
	}
}

// TestEveryMistakeIsCaught is the simulator's own test: with a mistake made on purpose
// some schedule must be bad, and good without it.
func TestEveryMistakeIsCaught(t *testing.T) {
	s := open(t)
	for _, m := range Mutations() {
		tried, sc := uint64(1), m.Scenario()
		for tried <= 2000 && (s.Run(sc, tried, m).Bad == "" || s.Run(sc, tried, None).Bad != "") {
			tried++
		}
		if tried > 2000 {
			t.Errorf("%s: not caught in 2000 schedules of scenario %s", m, sc.Name)
			continue
		}
		t.Logf("%s: caught in schedule %d of scenario %s", m, tried, sc.Name)
	}
}

func TestASeedIsOneSchedule(t *testing.T) {
	s := open(t)
	for _, sc := range Scenarios() {
		first, second := s.Replay(sc, 7, None), s.Replay(sc, 7, None)
		if !slices.Equal(first.Trace, second.Trace) || first.Steps != second.Steps {
			t.Errorf("%s: seed 7 played twice differs", sc.Name)
		}
		if other := s.Replay(sc, 8, None); slices.Equal(first.Trace, other.Trace) {
			t.Errorf("%s: seeds 7 and 8 are the same", sc.Name)
		}
		if quiet := s.Run(sc, 7, None); quiet.Steps != first.Steps || quiet.Bad != first.Bad {
			t.Errorf("%s: to be watched changes the run", sc.Name)
		}
	}
}

func TestThereIsOneSimulatorAProcess(t *testing.T) {
	open(t)
	if _, err := New(); err == nil {
		t.Error("two simulators share crypto/rand's reader")
	}
}
