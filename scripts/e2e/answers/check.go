package answers

import (
	"cmp"
	"fmt"
	"net/netip"
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

// Check judges a history.
func Check(h History, l Limits) Report {
	c := newChecker(h, l)
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
				c.learned(b, host, list, s)
			}
		}
	}
}

// shownAtHome: at once, and for as long as it lives; but a router that began without the
// claim files has the names of before from its peers, when it has met one that knows them.
func (c *checker) shownAtHome(b *Binding, list []Answer) {
	for _, l := range c.w.lives[b.Host] {
		s := span{max(b.OnReturn, l.Start), min(c.firm[b], l.End)}
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
	met, _ := c.metAfter(b, l)
	if s.from = max(s.from, met); s.from < s.to {
		c.behind(Restored, NotBack, b, b.Host, within(list, s), s)
	}
}

// lostAt is until when a binding is to be shown: its DEL, or the loss of the claim files
// at a time when those whom its host met first did not all know it. It takes what the
// first one tells.
func (c *checker) lostAt(b *Binding) time.Duration {
	for _, l := range c.w.lives[b.Host] {
		if !l.Lost || b.OnReturn >= l.Start || b.OffCall <= l.Start {
			continue
		}
		if _, all := c.metAfter(b, l); !all {
			c.lost++
			return l.Start
		}
	}
	return b.OffCall
}

// metAfter is when a host met the first others in a life, and whether all of them had
// answered with the binding before.
func (c *checker) metAfter(b *Binding, l Life) (first time.Duration, all bool) {
	const together = 1500 * time.Millisecond
	first = Never
	knows := map[time.Duration]bool{}
	for other := range c.h.Hosts {
		if other == b.Host {
			continue
		}
		for _, s := range c.w.linked[pair(b.Host, other)] {
			if s.from < l.Start || s.from >= l.End {
				continue
			}
			o, ok := c.w.life(other, s.from)
			first = min(first, s.from)
			knew, told := knows[s.from]
			knows[s.from] = (knew || !told) && ok && c.knew(b, other, span{max(o.Start, b.OnReturn), l.Start})
			break // the later ones do not count
		}
	}
	for at, knew := range knows {
		if at <= first+together && !knew {
			return first, false
		}
	}
	return first, first != Never
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
func (c *checker) behind(m Measure, r Rule, b *Binding, host int, list []Answer, s span) {
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
	c.note(m, late, b, host)
}

// learned looks at one time for which the hosts were linked.
func (c *checker) learned(b *Binding, host int, list []Answer, linked span) {
	s, m := span{b.OnReturn, min(c.firm[b], linked.to)}, Known
	if linked.from > b.OnReturn {
		s.from, m = linked.from, KnownHeal
		if c.began(host, b.Host, linked.from) {
			m = KnownLife
		}
	}
	if s.from < s.to {
		c.behind(m, NotKnown, b, host, within(list, s), s)
	}
}

// began reports whether two hosts were linked for the first time in the life of one of
// their routers: that has all to learn.
func (c *checker) began(a, b int, linked time.Duration) bool {
	before := time.Duration(-1)
	for _, s := range c.w.linked[pair(a, b)] {
		if s.from < linked {
			before = max(before, s.from)
		}
	}
	return slices.ContainsFunc(append(slices.Clone(c.w.lives[a]), c.w.lives[b]...), func(l Life) bool { return before < l.Start && l.Start <= linked && l.Start > 0 })
}

// steady looks that what was shown goes on being shown, until the host's router has been
// out of reach for Grace, or this one has ended.
func (c *checker) steady(b *Binding, host int, list []Answer) {
	for _, l := range c.w.lives[host] {
		had := false
		for _, a := range within(list, span{max(b.OnReturn, l.Start), min(c.firm[b], l.End)}) {
			away := max(c.w.unlinked(host, b.Host, a.Begin), c.w.unlinked(host, b.Host, a.End)) // it is of some time between
			switch {
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
		e := c.excuse(a, b)
		e.foreign = slices.ContainsFunc(c.others(a, b), func(o Hold) bool { return o.From-b.OffReturn >= c.l.Rest })
		if best == nil || e.better(why) || !why.better(e) && cmp.Or(cmp.Compare(e.late, why.late), cmp.Compare(best.OffReturn, b.OffReturn)) < 0 {
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
	if why.foreign {
		c.wrong(Foreign, a, *best)
	}
	for _, o := range c.others(a, best) {
		m := TakenAway
		if why.linked {
			m = Taken
		}
		c.note(m, min(a.Begin-o.From, why.late), best, a.Host)
	}
}

// excuse is why a host may still show what has ended; with a rule it may not, nor where
// its address is another's after its rest.
type excuse struct {
	rule         Rule
	foreign      bool
	linked, heal bool
	late         time.Duration
}

func (e excuse) holds() bool { return e.rule == "" && !e.foreign }

func (e excuse) better(than excuse) bool { return e.holds() && !than.holds() }

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
	// Out of reach it may stay until it is withdrawn.
	if s, ok := containing(c.w.apart[p], a.Begin); ok {
		e := excuse{late: a.Begin - max(s.from, b.OffReturn)}
		if a.Begin-s.from > c.l.Grace+c.l.Deaf+c.l.Late {
			e.rule = NotGone
		}
		return e
	}
	// One of them may hear the other, or one that hears it.
	e := excuse{late: a.Begin - b.OffReturn}
	if away := c.w.unlinked(a.Host, b.Host, a.Begin); min(away, e.late) > c.l.Rest {
		e.rule = NotGone
	}
	return e
}

// had reports whether a container was called so before a time: then it is that container's
// old name that is shown.
func (c *checker) had(owner string, f Fact, t time.Duration) bool {
	return slices.ContainsFunc(c.byFact[f], func(b *Binding) bool { return b.Owner == owner && b.OnCall < t })
}

// About are the bindings and holds of an address that were there in a time, for people.
func About(h History, a netip.Addr, from, to time.Duration) (lines []string) {
	for _, b := range h.Bindings {
		if b.Addr == a && b.OnCall <= to && b.OffReturn >= from {
			lines = append(lines, b.String())
		}
	}
	for _, o := range h.Holds {
		if o.Addr == a && o.From <= to && o.To >= from {
			lines = append(lines, fmt.Sprintf("%s held by %s from %s to %s", a, o.Owner, at(o.From), at(o.To)))
		}
	}
	slices.Sort(lines)
	return lines
}

// others are those who hold the address of a stale answer by then.
func (c *checker) others(a Answer, was *Binding) (out []Hold) {
	for _, o := range c.holds[was.Addr.String()] {
		if o.From <= a.Begin && o.To >= a.End && !c.had(o.Owner, was.Fact, a.Begin) {
			out = append(out, o)
		}
	}
	return out
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
			c.note(Gone, c.late[lateness{b, host, q, false}], b, host)
		case before <= b.OffReturn && b.OffReturn < s.from && len(within(list, s)) > 0:
			m := GoneHeal
			if c.began(host, b.Host, s.from) {
				m = GoneLife
			}
			c.note(m, c.late[lateness{b, host, q, true}], b, host)
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
	if _, up := c.w.life(gone, s.from); up || c.w.unlinked(host, gone, s.from-1) > 0 || c.cutAbout(s.from) {
		m, limit = Parted, limit+c.l.Deaf // nobody says that the connection has ended
	}
	if !alive || s.to-s.from < c.l.Grace+time.Second {
		return
	}
	last, whose := time.Duration(-1), (*Binding)(nil)
	for _, list := range lists {
		for _, a := range within(list, s) {
			for _, f := range a.Facts {
				if b := c.onlyOf(f, gone, a, s); b != nil {
					if a.Begin-s.from > last {
						last, whose = a.Begin-s.from, b
					}
					if a.Begin-s.from > limit {
						c.wrong(Outlives, a, *b)
					}
				}
			}
		}
	}
	if last >= 0 && s.to-s.from-last > time.Second { // else it may have ended before the withdrawal
		c.note(m, last, whose, host)
	}
}

// cutAbout reports whether routers may not yet have noticed whom they reach at a time.
func (c *checker) cutAbout(t time.Duration) bool {
	const died = 300 * time.Millisecond // until all that are connected have been told by the kernel
	return slices.ContainsFunc(c.h.Cuts, func(x Cut) bool { return x.Start > t-c.l.Deaf && x.Start < t+died })
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
