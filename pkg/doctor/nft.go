package doctor

import (
	"encoding/json"
	"fmt"
	"slices"
)

// parseNFT reads `nft -j list ruleset`: the chains at the hooks forward and input, and
// those that they may lead to. Our own tables are left out.
func parseNFT(text []byte) ([]Chain, error) {
	var all struct {
		Nftables []struct {
			Chain *struct{ Family, Table, Name, Hook, Policy string }
			Rule  *struct {
				Family, Table, Chain string
				Expr                 []map[string]json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("nft's list is not understood: %w", err)
	}
	var out []Chain
	for _, o := range all.Nftables {
		if c := o.Chain; c != nil && c.Table != "weave" && slices.Contains([]string{"ip", "ip6", "inet"}, c.Family) {
			hook := c.Hook
			if hook != "forward" && hook != "input" && hook != "" {
				continue
			}
			out = append(out, Chain{Tool: "nft", Family: c.Family, Table: c.Table, Name: c.Name, Hook: hook, Policy: c.Policy})
		}
	}
	for _, o := range all.Nftables {
		if r := o.Rule; r != nil {
			i := slices.IndexFunc(out, func(c Chain) bool { return c.Family == r.Family && c.Table == r.Table && c.Name == r.Chain })
			if i >= 0 {
				out[i].Rules = append(out[i].Rules, nftRule(r.Expr))
			}
		}
	}
	return out, nil
}

func nftRule(exprs []map[string]json.RawMessage) Rule {
	var r Rule
	for _, e := range exprs {
		for kind, body := range e {
			r.add(kind, body)
		}
	}
	return r
}

// add takes one statement of a rule.
func (r *Rule) add(kind string, body json.RawMessage) {
	switch kind {
	case "accept", "drop", "return":
		r.Verdict = kind
	case "reject":
		r.Verdict = "drop"
	case "jump", "goto":
		var to struct{ Target string }
		if json.Unmarshal(body, &to) == nil {
			r.Verdict, r.Target = kind, to.Target
		}
	case "match":
		r.addMatch(body)
	case "counter", "log", "comment", "mangle", "notrack":
	case "vmap":
		r.addMap(body)
	default:
		r.Vague = true // xt, limit, fib, …
	}
}

// nftLeft is what a match or a map looks at.
type nftLeft struct {
	Meta    *struct{ Key string }
	CT      *struct{ Key string }
	Payload *struct{ Protocol, Field string }
}

// addMap takes a map of verdicts: one of states decides about known connections only,
// any other may accept.
func (r *Rule) addMap(body json.RawMessage) {
	var m struct{ Key nftLeft }
	if json.Unmarshal(body, &m) == nil && m.Key.CT != nil {
		r.States, r.Verdict = []string{"established"}, "accept"
		return
	}
	r.Vague, r.Verdict = true, "accept"
}

func (r *Rule) addMatch(body json.RawMessage) {
	var m struct {
		Op    string
		Left  nftLeft
		Right json.RawMessage
	}
	if json.Unmarshal(body, &m) != nil {
		r.Vague = true
		return
	}
	names, ports, known := values(m.Right)
	not := m.Op == "!="
	left := m.Left
	switch {
	case !known:
		r.Vague = true
	case left.Meta != nil && (left.Meta.Key == "iifname" || left.Meta.Key == "iif"):
		r.In = Names{not, names}
	case left.Meta != nil && (left.Meta.Key == "oifname" || left.Meta.Key == "oif"):
		r.Out = Names{not, names}
	case left.Meta != nil && left.Meta.Key == "l4proto" && len(names) == 1 && !not:
		r.Proto = names[0]
	case left.CT != nil && left.CT.Key == "state" && !not:
		r.States = names
	case left.Payload != nil && left.Payload.Field == "dport" && !not:
		r.Ports = ports
		if p := left.Payload.Protocol; p != "th" {
			r.Proto = p
		}
	default:
		r.Vague = true
		if left.Payload != nil && slices.Contains([]string{"tcp", "udp", "icmp", "icmpv6", "sctp"}, left.Payload.Protocol) {
			r.Proto = left.Payload.Protocol // whatever else: it is about no other
		}
	}
}

// values reads the right side of a match: a word, a number, a range, or a set of them.
func values(raw json.RawMessage) (names []string, ports []Ports, known bool) {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		return []string{name}, nil, name != "" && name[0] != '@' // that is a set with a name
	}
	var port uint16
	if json.Unmarshal(raw, &port) == nil {
		return nil, []Ports{{port, port}}, true
	}
	var span struct{ Range []uint16 }
	if json.Unmarshal(raw, &span) == nil && len(span.Range) == 2 {
		return nil, []Ports{{span.Range[0], span.Range[1]}}, true
	}
	var set struct{ Set []json.RawMessage }
	list := []json.RawMessage(nil)
	switch {
	case json.Unmarshal(raw, &list) == nil:
	case json.Unmarshal(raw, &set) == nil && len(set.Set) > 0:
		list = set.Set
	default:
		return nil, nil, false
	}
	for _, one := range list {
		n, p, ok := values(one)
		if !ok {
			return nil, nil, false
		}
		names, ports = append(names, n...), append(ports, p...)
	}
	return names, ports, len(list) > 0
}
