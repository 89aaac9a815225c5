package doctor

import (
	"slices"
	"strings"
)

// Firewall is what other programs' rules do at the two hooks that our packets pass.
type Firewall struct {
	Chains []Chain
	Unread []string // what could not be read, and why
	Known  []string // firewalls that are at work here: "docker"
}

// Chain is a chain of nftables or iptables, as far as it matters.
type Chain struct {
	Tool   string // "nft", "iptables", "ip6tables-legacy"
	Family string // "ip", "ip6", "inet"
	Table  string
	Name   string
	Hook   string // "forward", "input"; "" of one that others jump to
	Policy string // "accept", "drop"
	Rules  []Rule
}

// Rule is one rule.
type Rule struct {
	In, Out Names
	Proto   string
	Ports   []Ports
	States  []string // conntrack's, in lower case
	Vague   bool     // it has conditions besides, of which nothing is known here
	Verdict string   // "accept", "drop", "jump", "goto", "return"; "" goes on
	Target  string   // of jump and goto
}

// Names are names of devices; one that ends in * or + is the beginning of one. None is
// any device.
type Names struct {
	Not  bool
	List []string
}

func (n Names) match(device string) bool {
	if len(n.List) == 0 {
		return true
	}
	is := slices.ContainsFunc(n.List, func(pattern string) bool {
		if begin := strings.TrimRight(pattern, "*+"); begin != pattern {
			return strings.HasPrefix(device, begin)
		}
		return device == pattern
	})
	return is != n.Not
}

// Ports is a range of ports.
type Ports struct{ From, To uint16 }

// road is a packet that must pass: the first of a connection.
type road struct {
	hook    string
	in, out string // devices
	proto   string // "" of the first packet of whatever goes through
	port    uint16
	six     bool
}

func (r road) family(f string) bool { return f == "inet" || f == "ip6" && r.six || f == "ip" && !r.six }

func (r Rule) match(p road) bool {
	if !r.In.match(p.in) || !r.Out.match(p.out) {
		return false
	}
	if r.Proto != "" && r.Proto != p.proto {
		return false
	}
	if len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, func(q Ports) bool { return q.From <= p.port && p.port <= q.To }) {
		return false
	}
	return len(r.States) == 0 || slices.Contains(r.States, "new")
}

// fate is what a chain does to a packet. Perhaps: a rule whose conditions are not
// understood here may accept it before it is dropped.
type fate struct {
	dropped, perhaps bool
}

const deepest = 16 // chains that lead to each other

// follow takes a packet through a chain that stands at a hook. all are the chains of
// its table.
func follow(base Chain, all []Chain, p road) fate {
	w := walk{all: all, base: base, road: p}
	switch w.through(base, 0) {
	case "drop":
		return fate{true, w.perhaps}
	case "accept":
		return fate{}
	}
	return fate{base.Policy == "drop", w.perhaps}
}

type walk struct {
	all     []Chain
	base    Chain
	road    road
	perhaps bool
}

// through gives "accept", "drop", or "" where the chain ends or returns.
func (w *walk) through(c Chain, depth int) string {
	for _, r := range c.Rules {
		if !r.match(w.road) {
			continue
		}
		if r.Vague {
			w.perhaps = w.perhaps || r.Verdict == "accept" || w.accepts(r)
			continue
		}
		switch r.Verdict {
		case "accept", "drop":
			return r.Verdict
		case "return":
			return ""
		case "jump", "goto":
			to, found := w.chain(r.Target)
			if !found || depth == deepest {
				continue
			}
			if v := w.through(to, depth+1); v != "" || r.Verdict == "goto" {
				return v
			}
		}
	}
	return ""
}

// accepts reports whether a vague jump may lead to an accept.
func (w *walk) accepts(r Rule) bool {
	to, found := w.chain(r.Target)
	return found && slices.ContainsFunc(to.Rules, func(r Rule) bool { return r.Verdict == "accept" && r.match(w.road) })
}

func (w *walk) chain(name string) (Chain, bool) {
	for _, c := range w.all {
		if c.Name == name && c.Tool == w.base.Tool && c.Family == w.base.Family && c.Table == w.base.Table {
			return c, true
		}
	}
	return Chain{}, false
}
