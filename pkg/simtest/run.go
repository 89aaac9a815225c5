package simtest

import (
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"io"
	mrand "math/rand/v2"
)

// Simulator runs seeds, one after the other. While it is open it has taken the place of
// crypto/rand's Reader in this process, since raft draws its election timeouts there:
// so there is one at a time, and nothing that needs secrets may run beside it.
type Simulator struct {
	draws  *draws
	before io.Reader
	seed   maphash.Seed
}

// draws is a reader of numbers that repeat.
type draws struct{ rng *mrand.PCG }

func (d *draws) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(d.rng.Uint64() >> 32)
	}
	return len(b), nil
}

// New opens a simulator; an error when another is open.
func New() (*Simulator, error) {
	if _, ok := rand.Reader.(*draws); ok {
		return nil, fmt.Errorf("simtest: one simulator a process")
	}
	s := &Simulator{draws: &draws{mrand.NewPCG(0, 0)}, before: rand.Reader, seed: maphash.MakeSeed()}
	rand.Reader = s.draws
	return s, nil
}

// Close puts crypto/rand's Reader back.
func (s *Simulator) Close() { rand.Reader = s.before }

// Verdict is what became of a seed.
type Verdict struct {
	Bad   string // what must not be; "" when all was well
	Ticks int
	Steps int      // times that a router acted
	Trace []string // of Replay
}

// Run plays a seed of a scenario, with a mistake or without.
func (s *Simulator) Run(sc *Scenario, seed uint64, mistake Mutation) Verdict {
	return s.play(sc, seed, mistake, false)
}

// Replay plays it again and tells what happens.
func (s *Simulator) Replay(sc *Scenario, seed uint64, mistake Mutation) Verdict {
	return s.play(sc, seed, mistake, true)
}

func (s *Simulator) play(sc *Scenario, seed uint64, mistake Mutation, trace bool) (v Verdict) {
	s.draws.rng.Seed(seed, 3)
	w := &World{
		seed: seed, rng: mrand.NewPCG(seed, hash(sc.Name)), mistake: mistake, scenario: sc,
		applied: make(map[point]uint64), tracing: trace, nextID: 1000,
	}
	w.net.w, w.judge.seed = w, s.seed
	defer func() {
		v.Ticks, v.Steps, v.Trace = w.tick, w.steps, w.trace
		switch e := recover().(type) {
		case nil:
		case bad:
			v.Bad = e.what
			w.tracef("BAD: %s", e.what)
			v.Trace = w.trace
		default:
			panic(fmt.Sprintf("scenario %s, seed %d, tick %d: %v", sc.Name, seed, w.tick, e))
		}
	}()
	w.play()
	return v
}

// hash tells the scenarios' schedules of one seed apart.
func hash(name string) (h uint64) {
	for i := range len(name) {
		h = h*131 + uint64(name[i])
	}
	return h
}
