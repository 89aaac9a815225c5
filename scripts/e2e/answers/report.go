package answers

import (
	"fmt"
	"time"
)

// Measure is what a time was taken of.
type Measure string

// The measures. Those of a change are from the end of the ADD or DEL, or from when
// the two hosts said that they were connected again, if that was later. They end with
// the last answer that was behind; one that never was counts as nothing.
const (
	Known     Measure = "known on another host"
	Gone      Measure = "gone on another host"
	KnownHeal Measure = "known after a heal"
	GoneHeal  Measure = "gone after a heal"
	KnownLife Measure = "known after a start of a router"
	GoneLife  Measure = "gone after a start of a router"
	Restored  Measure = "back after the claim files were lost"
	Dead      Measure = "withdrawn after a router's death"
	Parted    Measure = "withdrawn after a parting"
	Taken     Measure = "an address that another one asked for"
	TakenAway Measure = "the same, where that host is out of reach"
	Interval  Measure = "between two answers to a question"
)

var measures = [...]Measure{Known, Gone, KnownHeal, GoneHeal, KnownLife, GoneLife, Restored, Dead, Parted, Taken, TakenAway, Interval}

// Rule is what an answer violates.
type Rule string

// The rules.
const (
	OwnShows   Rule = "a host does not show what its own container has"
	OwnForgets Rule = "a host shows what its own container had"
	Unheard    Rule = "a host shows what nobody ever had"
	NotKnown   Rule = "a host never learns what another one's container has"
	NotGone    Rule = "a host goes on showing what another one's container had"
	Flaps      Rule = "a host loses a name of another one that is there"
	Outlives   Rule = "names outlive their router"
	NotBack    Rule = "names that the peers know do not come back"
	Foreign    Rule = "a host shows an address that is another container's, after its rest"
)

// Violation is a rule with the answer that breaks it, and the binding that it is about.
type Violation struct {
	Rule    Rule
	Answer  Answer
	Binding Binding
	More    int // answers of the same binding and host that break it too
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %s; %s (%d more such answers)", v.Rule, v.Answer, v.Binding, v.More)
}

// Report is what a check found.
type Report struct {
	Violations []Violation
	Times      map[Measure][]time.Duration // sorted
	Worst      []string                    // what took longest, of each measure
	Answers    int
	Told       int // facts in them
	Lost       int // bindings that ended with the claim files, since those that were met first did not know them
	Stale      int // facts that did not hold any more, on other hosts, within the limits
}

// Part is the time that so many percent of a measure's do not exceed.
func (r Report) Part(m Measure, percent int) time.Duration {
	ts := r.Times[m]
	if len(ts) == 0 {
		return 0
	}
	return ts[(len(ts)*percent+99)/100-1]
}

// Table is the report's times, a line each.
func (r Report) Table() string {
	out := fmt.Sprintf("%-40s %8s %9s %9s %9s\n", "ms", "times", "p50", "p99", "max")
	for _, m := range measures {
		ms := func(percent int) float64 { return float64(r.Part(m, percent).Microseconds()) / 1000 }
		out += fmt.Sprintf("%-40s %8d %9.1f %9.1f %9.1f\n", m, len(r.Times[m]), ms(50), ms(99), ms(100))
	}
	return out + fmt.Sprintf("%d answers with %d facts; %d of another host's container that had just gone; %d bindings were lost with the claim files", r.Answers, r.Told, r.Stale, r.Lost)
}
