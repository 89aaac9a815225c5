package answers

import (
	"slices"
	"time"
)

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
	met, _ := c.metAfter(b, l, true)
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
		if _, all := c.metAfter(b, l, true); !all {
			c.lost++
			return l.Start
		}
	}
	return b.OffCall
}

// undo puts off the end of a name that a container lost lately when the claim files were
// lost: those whom its host meets first may not have heard of the end, and tell it that
// the container has the name. That is so until its names are given anew, or it is gone.
func (c *checker) undo(b *Binding) {
	for _, l := range c.w.lives[b.Host] {
		if !l.Lost || b.OffReturn >= l.Start {
			continue
		}
		stays := slices.ContainsFunc(c.holds[b.Addr.String()], func(o Hold) bool { return o.Owner == b.Owner && o.To > l.Start })
		if _, all := c.metAfter(b, l, false); all || !stays {
			continue
		}
		b.OffReturn = Never
		for _, o := range c.h.Bindings {
			for _, t := range []time.Duration{o.OnReturn, o.OffReturn} {
				if o.Owner == b.Owner && t > l.Start {
					b.OffReturn = min(b.OffReturn, t)
				}
			}
		}
	}
}

// metAfter is when a host met the first others in a life, and whether all of them had
// answered before with the binding, or without it after its end.
func (c *checker) metAfter(b *Binding, l Life, with bool) (first time.Duration, all bool) {
	const together = 1500 * time.Millisecond
	first = Never
	since := b.OnReturn
	if !with {
		since = b.OffReturn
	}
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
			knows[s.from] = (knew || !told) && ok && c.answered(b, with, other, span{max(o.Start, since), l.Start})
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

func (c *checker) answered(b *Binding, with bool, host int, s span) bool {
	for _, q := range questions(b.Fact) {
		if slices.ContainsFunc(within(c.answers[asked{host, q}], s), func(a Answer) bool { return a.shows(b.Fact) == with }) {
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
			if late > c.l.Worst && !c.heldLately(b, host, a) {
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
		last := Never // when it was shown
		for _, a := range within(list, span{max(b.OnReturn, l.Start), min(c.firm[b], l.End)}) {
			switch {
			case a.shows(b.Fact):
				last = a.Begin // it is of some time from here to its end
			case last != Never && c.w.away(host, b.Host, span{last, a.End}) < c.l.Grace && !c.heldLately(b, host, a):
				c.wrong(Flaps, a, *b)
			}
		}
	}
}

// heldLately reports whether a host may just have heard of an earlier holder of a binding's
// address, elsewhere, and not of its end yet: until then that one counts there as the later.
func (c *checker) heldLately(b *Binding, host int, a Answer) bool {
	return slices.ContainsFunc(c.h.Bindings, func(o Binding) bool {
		if o.Addr != b.Addr || o.Owner == b.Owner || o.Host == b.Host || o.Host == host || o.OnCall > b.OnCall {
			return false
		}
		heard := o.OffReturn // or when the two were linked again
		links := c.w.linked[pair(host, o.Host)]
		if i := slices.IndexFunc(links, func(s span) bool { return s.to >= heard }); i >= 0 {
			heard = max(heard, links[i].from)
		}
		return a.End >= o.OnCall && a.Begin-heard <= c.l.Worst
	})
}
