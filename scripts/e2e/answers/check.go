package answers

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Limits are what is promised of names, and how much more is still no violation.
type Limits struct {
	Grace time.Duration // names outlive their router so long, for those that knew them
	Late  time.Duration // a withdrawal after Grace
	Deaf  time.Duration // until a router notices that another one is cut off
	Worst time.Duration // any change, between hosts that are linked
	Rest  time.Duration // an address that was freed is given to nobody who does not ask for it
}

// Check judges a history.
func Check(h History, l Limits) Report {
	c := newChecker(h, l)
	for i := range c.h.Bindings {
		c.undo(&c.h.Bindings[i])
	}
	for i := range c.h.Bindings {
		b := &c.h.Bindings[i]
		c.firm[b] = c.lostAt(b)
		c.shown(b)
	}
	for _, a := range c.h.Answers {
		for _, f := range a.Facts {
			c.justified(a, f)
		}
	}
	c.forgotten()
	c.withdrawn()
	c.intervals()
	return c.report()
}

type asked struct {
	host int
	q    Question
}

type checker struct {
	h       History
	l       Limits
	w       *ways
	answers map[asked][]Answer
	byFact  map[Fact][]*Binding
	holds   map[string][]Hold          // by address
	firm    map[*Binding]time.Duration // until when it is to be shown
	lost    int                        // of them ended before their DEL

	told, stale int
	times       map[Measure][]time.Duration
	max         map[Measure]time.Duration
	worst       map[Measure]string
	late        map[lateness]time.Duration
	broken      map[breach]*Violation
	order       []breach
}

type lateness struct {
	b    *Binding
	host int
	q    Question
	heal bool
}

type breach struct {
	rule  Rule
	owner string
	fact  Fact
	host  int
}

func newChecker(h History, l Limits) *checker {
	c := &checker{h: h, l: l, w: waysOf(h), answers: map[asked][]Answer{}, byFact: map[Fact][]*Binding{}, holds: map[string][]Hold{},
		firm: map[*Binding]time.Duration{}, times: map[Measure][]time.Duration{}, max: map[Measure]time.Duration{}, worst: map[Measure]string{}, late: map[lateness]time.Duration{}, broken: map[breach]*Violation{}}
	for _, a := range h.Answers {
		k := asked{a.Host, a.Question}
		c.answers[k] = append(c.answers[k], a)
	}
	for _, list := range c.answers {
		slices.SortFunc(list, func(a, b Answer) int { return cmp.Compare(a.Begin, b.Begin) })
	}
	c.h.Bindings = slices.Clone(c.h.Bindings) // see undo
	for i := range c.h.Bindings {
		b := &c.h.Bindings[i]
		c.byFact[b.Fact] = append(c.byFact[b.Fact], b)
	}
	for _, o := range h.Holds {
		c.holds[o.Addr.String()] = append(c.holds[o.Addr.String()], o)
	}
	return c
}

func (c *checker) wrong(r Rule, a Answer, b Binding) {
	k := breach{r, b.Owner, b.Fact, a.Host}
	if v := c.broken[k]; v != nil {
		v.More++
		return
	}
	c.broken[k] = &Violation{Rule: r, Answer: a, Binding: b}
	c.order = append(c.order, k)
}

// note takes a time, of what happened to a binding on a host.
func (c *checker) note(m Measure, d time.Duration, b *Binding, host int) {
	if ts := c.times[m]; len(ts) == 0 || d > c.max[m] {
		c.max[m], c.worst[m] = d, fmt.Sprintf("%s: %.1f ms on h%d: %s", m, float64(d.Microseconds())/1000, host, b)
	}
	c.times[m] = append(c.times[m], d)
}

// within are the answers of a list that were begun and ended in a span.
func within(list []Answer, s span) []Answer {
	lo, _ := slices.BinarySearchFunc(list, s.from, func(a Answer, t time.Duration) int { return cmp.Compare(a.Begin, t) })
	hi, _ := slices.BinarySearchFunc(list, s.to, func(a Answer, t time.Duration) int { return cmp.Compare(a.Begin, t) })
	list = list[lo:max(lo, hi)]
	for len(list) > 0 && list[len(list)-1].End > s.to {
		list = list[:len(list)-1]
	}
	return list
}

func (c *checker) intervals() {
	for _, list := range c.answers {
		for i := range len(list) - 1 {
			if d := list[i+1].Begin - list[i].Begin; d < time.Second { // else nobody asked, or nobody answered
				c.times[Interval] = append(c.times[Interval], d)
			}
		}
	}
}

func (c *checker) report() Report {
	r := Report{Times: c.times, Answers: len(c.h.Answers), Told: c.told, Stale: c.stale, Lost: c.lost}
	for _, k := range c.order {
		r.Violations = append(r.Violations, *c.broken[k])
	}
	for _, m := range measures {
		slices.Sort(r.Times[m])
		if c.max[m] > 0 {
			r.Worst = append(r.Worst, c.worst[m])
		}
	}
	return r
}
