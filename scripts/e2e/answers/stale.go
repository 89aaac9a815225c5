package answers

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

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
		// It rests on what ended last, rather than on what ended long before a parting.
		if best == nil || e.better(why) || !why.better(e) && cmp.Or(cmp.Compare(best.OffReturn, b.OffReturn), cmp.Compare(e.late, why.late)) < 0 {
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
