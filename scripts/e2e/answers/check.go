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

// Measure is what a time was taken of.
type Measure string

// The measures. Those of a change are from the end of the ADD or DEL, or from when
// the two hosts said that they were connected again, if that was later. They end with
// the last answer that was behind; one that never was counts as nothing.
const (
	Known     Measure = "known on another host"
	Gone      Measure = "gone on another host"
	KnownHeal Measure = "known after a heal or a start"
	GoneHeal  Measure = "gone after a heal or a start"
	Restored  Measure = "back after the claim files were lost"
	Dead      Measure = "withdrawn after a router's death"
	Parted    Measure = "withdrawn after a parting"
	Anothers  Measure = "another's, who asked for the address"
	Interval  Measure = "between two answers to a question"
)

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
	Answers    int
	Told       int // facts in them
	Stale      int // facts that did not hold any more, on other hosts, within the limits
}

// Check judges a history.
func Check(h History, l Limits) Report {
	c := newChecker(h, l)
	for i := range c.h.Bindings {
		c.shown(&c.h.Bindings[i])
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
	holds   map[string][]Hold // by address

	told, stale int
	times       map[Measure][]time.Duration
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
		times: map[Measure][]time.Duration{}, late: map[lateness]time.Duration{}, broken: map[breach]*Violation{}}
	for _, a := range h.Answers {
		k := asked{a.Host, a.Question}
		c.answers[k] = append(c.answers[k], a)
	}
	for _, list := range c.answers {
		slices.SortFunc(list, func(a, b Answer) int { return cmp.Compare(a.Begin, b.Begin) })
	}
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

func (c *checker) note(m Measure, d time.Duration) { c.times[m] = append(c.times[m], d) }

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

func questions(f Fact) []Question {
	return []Question{{Name: f.Name, V6: f.Addr.Is6()}, {Addr: f.Addr}}
}

// shown looks that a binding is answered while it holds.
func (c *checker) shown(b *Binding) {
	if b.OnReturn == Never {
		return
	}
	for _, q := range questions(b.Fact) {
		for host := range c.h.Hosts {
			list := c.answers[asked{host, q}]
			if host == b.Host {
				c.shownAtHome(b, list)
				continue
			}
			c.steady(b, host, list)
			for _, s := range c.w.linked[pair(host, b.Host)] {
				c.learned(b, list, s)
			}
		}
	}
}

// shownAtHome: at once, and for as long as it lives; but a router that began without the
// claim files has the names of before from its peers, when it has met one that knows them.
func (c *checker) shownAtHome(b *Binding, list []Answer) {
	for _, l := range c.w.lives[b.Host] {
		s := span{max(b.OnReturn, l.Start), min(b.OffCall, l.End)}
		if l.Lost && b.OnReturn < l.Start {
			c.restored(b, list, l, s)
			continue
		}
		for _, a := range within(list, s) {
			if !a.shows(b.Fact) {
				c.wrong(OwnShows, a, *b)
			}
		}
	}
}

func (c *checker) restored(b *Binding, list []Answer, l Life, s span) {
	if s.from = c.metOneThatKnows(b, l); s.from >= s.to {
		return
	}
	c.behind(Restored, NotBack, b, within(list, s), s)
}

// metOneThatKnows is when, in a life, a host has met another one that has answered with
// the binding and has not been started since.
func (c *checker) metOneThatKnows(b *Binding, l Life) time.Duration {
	first := Never
	for other := range c.h.Hosts {
		if other == b.Host {
			continue
		}
		for _, s := range c.w.linked[pair(b.Host, other)] {
			if s.from < l.Start || s.from >= l.End {
				continue
			}
			if o, ok := c.w.life(other, s.from); ok && c.knew(b, other, span{max(o.Start, b.OnReturn), l.Start}) {
				first = min(first, s.from)
			}
		}
	}
	return first
}

func (c *checker) knew(b *Binding, host int, s span) bool {
	for _, q := range questions(b.Fact) {
		if slices.ContainsFunc(within(c.answers[asked{host, q}], s), func(a Answer) bool { return a.shows(b.Fact) }) {
			return true
		}
	}
	return false
}

// behind notes how long after the begin of a span answers still lacked a binding. It must
// not be longer than Worst.
func (c *checker) behind(m Measure, r Rule, b *Binding, list []Answer, s span) {
	if len(list) == 0 {
		return
	}
	var late time.Duration
	for _, a := range list {
		if !a.shows(b.Fact) {
			late = a.Begin - s.from
			if late > c.l.Worst {
				c.wrong(r, a, *b)
			}
		}
	}
	if late > 0 && !list[len(list)-1].shows(b.Fact) && s.to-s.from < time.Second {
		return // it ended before anybody could tell
	}
	c.note(m, late)
}

// learned looks at one time for which the hosts were linked.
func (c *checker) learned(b *Binding, list []Answer, linked span) {
	s, m := span{b.OnReturn, min(b.OffCall, linked.to)}, Known
	if linked.from > b.OnReturn {
		s.from, m = linked.from, KnownHeal
	}
	if s.from < s.to {
		c.behind(m, NotKnown, b, within(list, s), s)
	}
}

// steady looks that what was shown goes on being shown, until the host's router has been
// out of reach for Grace, or this one has ended.
func (c *checker) steady(b *Binding, host int, list []Answer) {
	for _, l := range c.w.lives[host] {
		had := false
		for _, a := range within(list, span{max(b.OnReturn, l.Start), min(b.OffCall, l.End)}) {
			switch away := c.w.unlinked(host, b.Host, a.End); {
			case away >= c.l.Grace:
				had = false
			case a.shows(b.Fact):
				had = true
			case had:
				c.wrong(Flaps, a, *b)
			}
		}
	}
}

// justified looks that a fact in an answer holds, or held until lately.
func (c *checker) justified(a Answer, f Fact) {
	c.told++
	var best *Binding
	var why excuse
	for _, b := range c.byFact[f] {
		switch {
		case b.OnCall > a.End:
			continue
		case b.OffReturn >= a.Begin:
			return
		}
		if e := c.excuse(a, b); best == nil || e.better(why) || e.late < why.late && !why.better(e) {
			best, why = b, e
		}
	}
	if best == nil {
		c.wrong(Unheard, a, Binding{Fact: f, Host: a.Host, OnCall: Never, OnReturn: Never, OffCall: Never, OffReturn: Never})
		return
	}
	if why.rule != "" {
		c.wrong(why.rule, a, *best)
	} else {
		c.stale++
	}
	if why.linked {
		k := lateness{best, a.Host, a.Question, why.heal}
		c.late[k] = max(c.late[k], why.late)
	}
	c.another(a, f, best)
}

// excuse is why a host may still show what has ended; with a rule it may not.
type excuse struct {
	rule         Rule
	linked, heal bool
	late         time.Duration
}

func (e excuse) better(than excuse) bool { return e.rule == "" && than.rule != "" }

func (c *checker) excuse(a Answer, b *Binding) excuse {
	if b.Host == a.Host {
		return excuse{rule: OwnForgets, late: a.Begin - b.OffReturn}
	}
	p := pair(a.Host, b.Host)
	if s, ok := containing(c.w.linked[p], a.Begin); ok {
		e := excuse{linked: true, heal: s.from > b.OffReturn, late: a.Begin - max(b.OffReturn, s.from)}
		if e.late > c.l.Worst {
			e.rule = NotGone
		}
		return e
	}
	// Out of reach it may stay until it is withdrawn; what comes of that is withdrawn's to say.
	away := min(c.w.unlinked(a.Host, b.Host, a.Begin), a.Begin)
	e := excuse{late: min(away, a.Begin-b.OffReturn)}
	if e.late > c.l.Grace+c.l.Deaf+c.l.Worst {
		e.rule = NotGone
	}
	return e
}

// another looks whether the address of a stale answer is somebody else's by now.
func (c *checker) another(a Answer, f Fact, was *Binding) {
	for _, o := range c.holds[f.Addr.String()] {
		if o.From > a.Begin || o.To < a.End || o.Owner == was.Owner {
			continue
		}
		if o.From-was.OffReturn >= c.l.Rest {
			c.wrong(Foreign, a, *was)
		}
		c.note(Anothers, a.Begin-o.From)
	}
}

// forgotten takes, of each binding that has ended, how long the others still showed it.
func (c *checker) forgotten() {
	for i := range c.h.Bindings {
		b := &c.h.Bindings[i]
		if b.OffReturn == Never || b.OnReturn == Never {
			continue
		}
		for _, q := range questions(b.Fact) {
			for host := range c.h.Hosts {
				if host != b.Host {
					c.forgottenOn(b, host, q)
				}
			}
		}
	}
}

func (c *checker) forgottenOn(b *Binding, host int, q Question) {
	list, before := c.answers[asked{host, q}], time.Duration(0)
	for _, s := range c.w.linked[pair(host, b.Host)] {
		switch {
		case s.has(b.OffReturn) && len(within(list, span{b.OffReturn, s.to})) > 0:
			c.note(Gone, c.late[lateness{b, host, q, false}])
		case before <= b.OffReturn && b.OffReturn < s.from && len(within(list, s)) > 0:
			c.note(GoneHeal, c.late[lateness{b, host, q, true}])
		}
		before = s.to
	}
}

// withdrawn looks at each time for which a host was out of another one's reach.
func (c *checker) withdrawn() {
	for host := range c.h.Hosts {
		lists := map[Question][]Answer{}
		for k, list := range c.answers {
			if k.host == host {
				lists[k.q] = list
			}
		}
		for gone := range c.h.Hosts {
			if gone == host {
				continue
			}
			for _, s := range c.w.apart[pair(host, gone)] {
				c.withdrawnIn(lists, host, gone, s)
			}
		}
	}
}

func (c *checker) withdrawnIn(lists map[Question][]Answer, host, gone int, s span) {
	l, alive := c.w.life(host, s.from-1)
	if !alive || l.End < s.to {
		s.to = min(s.to, l.End)
	}
	m, limit := Dead, c.l.Grace+c.l.Late
	if _, up := c.w.life(gone, s.from); up {
		m, limit = Parted, limit+c.l.Deaf
	}
	if !alive || s.to-s.from < limit {
		return
	}
	last := time.Duration(-1)
	for _, list := range lists {
		for _, a := range within(list, s) {
			for _, f := range a.Facts {
				if b := c.onlyOf(f, gone, a, s); b != nil {
					last = max(last, a.Begin-s.from)
					if a.Begin-s.from > limit {
						c.wrong(Outlives, a, *b)
					}
				}
			}
		}
	}
	if last >= 0 {
		c.note(m, last)
	}
}

// onlyOf is the binding of a host that an answer in a span rests on, if it rests on no other's.
func (c *checker) onlyOf(f Fact, host int, a Answer, s span) (found *Binding) {
	for _, b := range c.byFact[f] {
		if b.OnCall > a.End || b.OffReturn < s.from {
			continue
		}
		if b.Host != host {
			return nil
		}
		found = b
	}
	return found
}

func (c *checker) intervals() {
	for _, list := range c.answers {
		for i := range len(list) - 1 {
			if d := list[i+1].Begin - list[i].Begin; d < time.Second { // else nobody asked, or nobody answered
				c.note(Interval, d)
			}
		}
	}
}

func (c *checker) report() Report {
	r := Report{Times: c.times, Answers: len(c.h.Answers), Told: c.told, Stale: c.stale}
	for _, k := range c.order {
		r.Violations = append(r.Violations, *c.broken[k])
	}
	for _, ts := range r.Times {
		slices.Sort(ts)
	}
	return r
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
	for _, m := range []Measure{Known, Gone, KnownHeal, GoneHeal, Restored, Dead, Parted, Anothers, Interval} {
		ms := func(percent int) float64 { return float64(r.Part(m, percent).Microseconds()) / 1000 }
		out += fmt.Sprintf("%-40s %8d %9.1f %9.1f %9.1f\n", m, len(r.Times[m]), ms(50), ms(99), ms(100))
	}
	return out + fmt.Sprintf("%d answers with %d facts; %d of another host's container that had just gone", r.Answers, r.Told, r.Stale)
}
