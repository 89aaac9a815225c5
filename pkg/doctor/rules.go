package doctor

import (
	"net/netip"
	"slices"
	"strings"
)

// Firewall is what other programs' rules do at the two hooks that our packets pass.
type Firewall struct {
	Chains []Chain
	Unread []string // what could not be read, and why
	Known  []string // firewalls that are at work here: "docker"
	Late   bool     // there was no time to read all
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
	To      To
	Vague   bool   // it has conditions besides, of which nothing is known here
	Verdict string // "accept", "drop", "jump", "goto", "return"; "" goes on
	Target  string // of jump and goto
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

// To is where packets go that a rule is about.
type To struct {
	Not   bool
	Addrs netip.Prefix // of which; none is any
	Kinds []string     // of addresses: "local" is this host, "unicast" another; none is any
}

// match reports whether packets of a road may go there; sure is false where that depends
// on more than is known of them.
func (t To) match(p road) (is, sure bool) {
	is, sure = true, true
	switch {
	case len(t.Kinds) > 0:
		is = slices.Contains(t.Kinds, map[string]string{"input": "local", "forward": "unicast"}[p.hook])
	case !t.Addrs.IsValid():
		return true, true
	case t.Addrs.Addr().IsLoopback(): // as kube-proxy has it; none of ours is
		is = false
	case p.to.IsValid():
		is = t.Addrs.Contains(p.to)
	default:
		return true, false
	}
	return is != t.Not, sure
}

// road is a packet that must pass: the first of a connection.
type road struct {
	hook    string
	to      netip.Addr // where it goes, if that is known
	in, out string     // devices
	proto   string     // "" of the first packet of whatever goes through
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
	if to, _ := r.To.match(p); !to {
		return false
	}
	return len(r.States) == 0 || slices.Contains(r.States, "new")
}

// vague reports whether a rule that matches may not hold all the same.
func (r Rule) vague(p road) bool {
	_, sure := r.To.match(p)
	return r.Vague || !sure
}

// fate is what chains may do to a packet: one of these, or several where rules on the way
// have conditions that are not understood here.
type fate struct {
	accepted, dropped bool
	left              bool // it came to the end of the chain, or was sent back
}

func (f fate) or(g fate) fate {
	return fate{f.accepted || g.accepted, f.dropped || g.dropped, f.left || g.left}
}

const deepest = 16 // chains that lead to each other

// follow takes a packet through a chain that stands at a hook. all are the chains of
// its table.
func follow(base Chain, all []Chain, p road) fate {
	w := walk{all: all, base: base, road: p}
	f := w.through(base, 0)
	if f.left {
		f = f.or(fate{accepted: base.Policy != "drop", dropped: base.Policy == "drop"})
	}
	f.left = false
	return f
}

type walk struct {
	all  []Chain
	base Chain
	road road
}

// through follows a packet to where it leaves a chain. A rule that is vague may hold, and
// may not: then both ways are followed.
func (w walk) through(c Chain, depth int) (f fate) {
	for _, r := range c.Rules {
		if !r.match(w.road) {
			continue
		}
		does, ends := w.does(r, depth)
		f = f.or(does)
		if ends && !r.vague(w.road) {
			return f
		}
	}
	f.left = true
	return f
}

// does is what one rule does to a packet that it holds for; ends reports whether none is
// left for the next rule.
func (w walk) does(r Rule, depth int) (f fate, ends bool) {
	switch r.Verdict {
	case "accept":
		return fate{accepted: true}, true
	case "drop":
		return fate{dropped: true}, true
	case "return":
		return fate{left: true}, true
	case "jump", "goto":
		to, found := w.chain(r.Target)
		if !found || depth == deepest {
			return f, false
		}
		f = w.through(to, depth+1)
		ends = r.Verdict == "goto" || !f.left
		f.left = f.left && r.Verdict == "goto"
		return f, ends
	}
	return f, false
}

func (w walk) chain(name string) (Chain, bool) {
	for _, c := range w.all {
		if c.Name == name && c.Tool == w.base.Tool && c.Family == w.base.Family && c.Table == w.base.Table {
			return c, true
		}
	}
	return Chain{}, false
}
