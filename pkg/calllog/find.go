package calllog

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// Kept is what was found, the oldest call first.
type Kept struct {
	ContainerID string // Find's
	Calls       []ctl.TracedCall
	Since       time.Time // nothing is known of what was before
	Missed      uint64    // calls that made room for others
}

// Latest gives the last n calls, all of them for n 0, those that run among them.
func (l *Log) Latest(n int) Kept {
	k := l.all()
	explain(k.Calls)
	k.Calls = last(k.Calls, n)
	return k
}

// Find gives the last n calls about a container, all of them for n 0, by its id or a
// beginning of that. known are ids of containers that may have no call here. Where
// several containers begin so, it gives no call but their ids.
func (l *Log) Find(prefix string, n int, known ...string) (k Kept, candidates []string) {
	k = l.all()
	id, candidates := resolve(k.Calls, known, prefix)
	if len(candidates) > 0 {
		k.Calls = nil
		return k, candidates
	}
	k.ContainerID = id
	k.Calls = slices.DeleteFunc(k.Calls, func(c ctl.TracedCall) bool { return id == "" || c.Key.ContainerID != id })
	explain(k.Calls)
	k.Calls = last(k.Calls, n)
	return k, nil
}

// Named gives the container that was given a name last; "" when none is known.
func (l *Log) Named(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range slices.Backward(l.calls) {
		if slices.ContainsFunc(c.Names, func(n string) bool { return strings.EqualFold(n, name) }) {
			return c.Key.ContainerID
		}
	}
	return ""
}

// resolve finds the one container that is called so or begins so; "" when there is none.
func resolve(calls []ctl.TracedCall, known []string, prefix string) (id string, candidates []string) {
	ids := slices.Clone(known)
	for _, c := range calls {
		ids = append(ids, c.Key.ContainerID)
	}
	for _, has := range ids {
		switch {
		case has == prefix:
			return prefix, nil
		case strings.HasPrefix(has, prefix) && !slices.Contains(candidates, has):
			candidates = append(candidates, has)
		}
	}
	slices.Sort(candidates)
	if len(candidates) == 1 {
		return candidates[0], nil
	}
	return "", candidates
}

// all copies what is kept and what runs, in the order in which it began.
func (l *Log) all() Kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := Kept{Calls: slices.Clone(l.calls), Since: l.since, Missed: l.missed}
	for o := range l.open {
		o.mu.Lock()
		c := o.call
		c.Steps, c.Took = slices.Clone(c.Steps), l.now().Sub(c.At)
		o.mu.Unlock()
		k.Calls = append(k.Calls, c)
	}
	slices.SortStableFunc(k.Calls, func(a, b ctl.TracedCall) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Key.ContainerID, b.Key.ContainerID))
	})
	return k
}

func last(calls []ctl.TracedCall, n int) []ctl.TracedCall {
	if n > 0 && len(calls) > n {
		return calls[len(calls)-n:]
	}
	return calls
}
