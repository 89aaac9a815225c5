package answers

import (
	"cmp"
	"slices"
	"time"
)

// span is a time in which something held.
type span struct{ from, to time.Duration }

func (s span) has(t time.Duration) bool { return s.from <= t && t < s.to }

// ways is when hosts could hear each other.
type ways struct {
	hosts  int
	lives  [][]Life          // by host, in order
	linked map[[2]int][]span // from when both say that they are connected until a cut or a death
	apart  map[[2]int][]span // no way leads from one to the other, over others neither
}

func pair(a, b int) [2]int { return [2]int{min(a, b), max(a, b)} }

func waysOf(h History) *ways {
	w := &ways{hosts: h.Hosts, lives: make([][]Life, h.Hosts), linked: map[[2]int][]span{}, apart: map[[2]int][]span{}}
	for _, l := range h.Lives {
		w.lives[l.Host] = append(w.lives[l.Host], l)
	}
	for _, ls := range w.lives {
		slices.SortFunc(ls, func(a, b Life) int { return cmp.Compare(a.Start, b.Start) })
	}
	some := map[[2]int][]span{}
	for a := range h.Hosts {
		for b := a + 1; b < h.Hosts; b++ {
			there, back := w.able(h, a, b), w.able(h, b, a)
			some[pair(a, b)] = append(there, back...)
			w.linked[pair(a, b)] = linked(common(there, back), h.Meetings, a, b)
		}
	}
	w.part(h, some)
	return w
}

// able is when both routers ran and the way from one to the other was not cut.
func (w *ways) able(h History, a, b int) (out []span) {
	for _, x := range w.lives[a] {
		for _, y := range w.lives[b] {
			s := span{max(x.Start, y.Start), min(x.End, y.End)}
			if s.from < s.to {
				out = append(out, s)
			}
		}
	}
	for _, c := range h.Cuts {
		if c.From == a && c.To == b {
			out = without(out, span{c.Start, c.End})
		}
	}
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	return out
}

// common is when both held; each list is in order, without overlaps.
func common(a, b []span) (out []span) {
	for _, x := range a {
		for _, y := range b {
			if s := (span{max(x.from, y.from), min(x.to, y.to)}); s.from < s.to {
				out = append(out, s)
			}
		}
	}
	return out
}

func without(from []span, gap span) (out []span) {
	for _, s := range from {
		for _, rest := range []span{{s.from, min(s.to, gap.from)}, {max(s.from, gap.to), s.to}} {
			if rest.from < rest.to {
				out = append(out, rest)
			}
		}
	}
	return out
}

// linked cuts the front off until the first meeting.
func linked(able []span, meetings []Meeting, a, b int) (out []span) {
	for _, s := range able {
		first := Never
		for _, m := range meetings {
			if pair(m.A, m.B) == pair(a, b) && s.has(m.At) {
				first = min(first, m.At)
			}
		}
		if first != Never {
			out = append(out, span{first, s.to})
		}
	}
	return out
}

// part finds when no way led from one host to another.
func (w *ways) part(h History, able map[[2]int][]span) {
	times := []time.Duration{0, h.End}
	for _, l := range h.Lives {
		times = append(times, l.Start, l.End)
	}
	for _, c := range h.Cuts {
		times = append(times, c.Start, c.End)
	}
	times = slices.DeleteFunc(times, func(t time.Duration) bool { return t > h.End })
	slices.Sort(times)
	times = slices.Compact(times)
	for i := range len(times) - 1 {
		s := span{times[i], times[i+1]}
		side := sides(h.Hosts, func(p [2]int) bool {
			return slices.ContainsFunc(able[p], func(a span) bool { return a.has(s.from) })
		})
		for a := range h.Hosts {
			for b := a + 1; b < h.Hosts; b++ {
				if side[a] != side[b] {
					w.apart[pair(a, b)] = joined(w.apart[pair(a, b)], s)
				}
			}
		}
	}
}

// sides numbers the hosts by with whom they have a way.
func sides(n int, way func([2]int) bool) []int {
	side := make([]int, n)
	for i := range side {
		side[i] = i
	}
	for range n { // the longest way has so many steps
		for a := range n {
			for b := a + 1; b < n; b++ {
				if way(pair(a, b)) {
					side[a] = min(side[a], side[b])
					side[b] = side[a]
				}
			}
		}
	}
	return side
}

// joined adds a span that begins where the last one ends, or later.
func joined(list []span, s span) []span {
	if n := len(list); n > 0 && list[n-1].to == s.from {
		list[n-1].to = s.to
		return list
	}
	return append(list, s)
}

func containing(list []span, t time.Duration) (span, bool) {
	i := slices.IndexFunc(list, func(s span) bool { return s.has(t) })
	if i < 0 {
		return span{}, false
	}
	return list[i], true
}

// unlinked is for how long two hosts have not been linked; 0 while they are, Never
// if they never were.
func (w *ways) unlinked(a, b int, t time.Duration) time.Duration {
	for _, s := range slices.Backward(w.linked[pair(a, b)]) {
		if s.has(t) {
			return 0
		}
		if s.to <= t {
			return t - s.to
		}
	}
	return Never
}

// away is for how long two hosts had not been linked, at most, at any time of a span.
func (w *ways) away(a, b int, s span) time.Duration {
	longest := max(w.unlinked(a, b, s.from), w.unlinked(a, b, s.to))
	for _, l := range w.linked[pair(a, b)] {
		if s.from < l.from && l.from <= s.to {
			longest = max(longest, w.unlinked(a, b, l.from-1))
		}
	}
	return longest
}

func (w *ways) life(host int, t time.Duration) (Life, bool) {
	i := slices.IndexFunc(w.lives[host], func(l Life) bool { return l.Start <= t && t < l.End })
	if i < 0 {
		return Life{}, false
	}
	return w.lives[host][i], true
}
