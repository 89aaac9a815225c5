package answers

import (
	"slices"
	"time"
)

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
