// Package addresses judges what hosts did with addresses: a history of who was
// given which one, and when it was given back. It also draws the faults under
// which the history is made. It does no I/O; the test beside it runs the hosts.
package addresses

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Never is the return of a call whose end nobody saw: it may have worked at any
// time since, or not at all.
const Never = time.Duration(1<<63 - 1)

// Kind is what a call did with an address.
type Kind string

// The two calls that succeed or fail for one address. An ADD that failed gave
// nothing that anybody could use, so it is in no history.
const (
	Add Kind = "ADD" // takes an address, which must be free
	Del Kind = "DEL" // gives it back
)

// Op is one call for one address. The times are since the start of the run; the
// address changes hands somewhere between them.
type Op struct {
	Kind         Kind
	Host         int
	Holder       string // unique in the run: one that is added again has another name
	Addr         netip.Addr
	Call, Return time.Duration
}

func (o Op) String() string {
	end := "        never"
	if o.Return != Never {
		end = fmt.Sprintf("%9.3f s", o.Return.Seconds())
	}
	return fmt.Sprintf("%9.3f to %s   h%d   %s   %-15s %s", o.Call.Seconds(), end, o.Host, o.Kind, o.Addr, o.Holder)
}

// History collects calls. Its methods may be called from any goroutine.
type History struct {
	mu  sync.Mutex
	ops []Op
}

// Record adds a call that has ended.
func (h *History) Record(ops ...Op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, ops...)
}

// Ops is a copy of all that was recorded.
func (h *History) Ops() []Op {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ops)
}

// Violation is one address whose history no order of its calls explains.
type Violation struct {
	Addr netip.Addr
	Ops  []Op // the fewest that are wrong together, by the time of their calls
}

func (v Violation) String() string {
	lines := make([]string, len(v.Ops))
	for i, o := range v.Ops {
		lines[i] = "\t" + o.String()
	}
	return fmt.Sprintf("%s had two holders, or was given back by one that did not hold it:\n%s", v.Addr, strings.Join(lines, "\n"))
}

// Check finds the addresses that had two holders at once, shortest history first.
func Check(ops []Op) []Violation {
	byAddr := map[netip.Addr][]Op{}
	for _, o := range ops {
		byAddr[o.Addr] = append(byAddr[o.Addr], o)
	}
	var bad []Violation
	for a, ops := range byAddr {
		if !unique(ops) {
			bad = append(bad, Violation{a, shrink(ops)})
		}
	}
	slices.SortFunc(bad, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(len(a.Ops), len(b.Ops)), a.Addr.Compare(b.Addr))
	})
	return bad
}

// unique reports whether an order of the calls exists in which each ADD finds
// the address free and each DEL gives back what its holder has. All are of one address.
func unique(ops []Op) bool {
	list := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		list[i] = porcupine.Operation{ClientId: o.Host, Input: o, Call: int64(o.Call), Return: int64(o.Return)}
	}
	return porcupine.CheckOperations(model, list)
}

// model is one address: its state is the holder's name, "" when it is free.
// A history is checked address by address, because they do not depend on each other.
var model = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		holder, o := state.(string), input.(Op)
		if o.Kind == Add {
			return holder == "", o.Holder
		}
		return holder == o.Holder, ""
	},
}

// shrink leaves out holders, with all their calls, as long as the rest is still wrong.
func shrink(ops []Op) []Op {
	for again := true; again; {
		again = false
		for _, holder := range holders(ops) {
			rest := slices.DeleteFunc(slices.Clone(ops), func(o Op) bool { return o.Holder == holder })
			if !unique(rest) {
				ops, again = rest, true
			}
		}
	}
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	return ops
}

func holders(ops []Op) (names []string) {
	for _, o := range ops {
		if !slices.Contains(names, o.Holder) {
			names = append(names, o.Holder)
		}
	}
	return names
}
