// Package answers judges what the name servers of several hosts said of
// containers: a history of which container had which name and address, of what
// happened to the routers and the network between them, and of every answer. It
// also draws the faults under which the history is made. It does no I/O; the
// test beside it runs the hosts and asks.
//
// All times are of one clock, since the start of the run.
package answers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Never is the end of what did not end, or whose end nobody saw.
const Never = time.Duration(1<<63 - 1)

// Fact is that a name has an address.
type Fact struct {
	Name string
	Addr netip.Addr
}

func (f Fact) String() string { return f.Name + "=" + f.Addr.String() }

// Binding is a fact for as long as a container makes it one. It comes to hold
// somewhere between OnCall and OnReturn and ends between OffCall and OffReturn:
// the ADD and the DEL of a container, or of its names. With OnReturn Never the
// ADD failed: it may have held, until OffReturn.
type Binding struct {
	Fact
	Owner string // unique in the run
	Host  int

	OnCall, OnReturn, OffCall, OffReturn time.Duration
}

func (b Binding) String() string {
	return fmt.Sprintf("%s of %s on h%d, ADD %s to %s, DEL %s to %s", b.Fact, b.Owner, b.Host, at(b.OnCall), at(b.OnReturn), at(b.OffCall), at(b.OffReturn))
}

func at(d time.Duration) string {
	if d == Never {
		return "never"
	}
	return fmt.Sprintf("%.3f", d.Seconds())
}

// Hold is that a container has an address, with whatever names or none.
type Hold struct {
	Owner    string
	Addr     netip.Addr
	From, To time.Duration // ADD has returned, DEL is called
}

// Question is for the addresses of a name, of one family, or for the names of an address.
type Question struct {
	Name string
	V6   bool
	Addr netip.Addr // valid: PTR
}

// Covers reports whether an answer to the question would tell the fact.
func (q Question) Covers(f Fact) bool {
	if q.Addr.IsValid() {
		return q.Addr == f.Addr
	}
	return q.Name == f.Name && q.V6 == f.Addr.Is6()
}

func (q Question) String() string {
	switch {
	case q.Addr.IsValid():
		return "PTR " + q.Addr.String()
	case q.V6:
		return "AAAA " + q.Name
	}
	return "A " + q.Name
}

// Answer is what a host's server said. A question that was not answered is none.
type Answer struct {
	Host       int
	Question   Question
	Begin, End time.Duration // of the query
	Facts      []Fact
}

func (a Answer) shows(f Fact) bool { return slices.Contains(a.Facts, f) }

func (a Answer) String() string {
	facts := make([]string, len(a.Facts))
	for i, f := range a.Facts {
		facts[i] = f.String()
	}
	return fmt.Sprintf("at %s h%d answered %s with [%s]", at(a.Begin), a.Host, a.Question, strings.Join(facts, " "))
}

// Life is one life of a host's router.
type Life struct {
	Host       int
	Start, End time.Duration
	Lost       bool // it began without the claim files
}

// Cut is that nothing which one host sends reaches the other.
type Cut struct {
	From, To   int
	Start, End time.Duration
}

// Meeting is that two routers both said that they are connected with each other,
// asked at a time.
type Meeting struct {
	A, B int
	At   time.Duration
}

// History is all of a run.
type History struct {
	Hosts    int
	End      time.Duration // of the asking
	Bindings []Binding
	Holds    []Hold
	Answers  []Answer
	Lives    []Life
	Cuts     []Cut
	Meetings []Meeting
}
