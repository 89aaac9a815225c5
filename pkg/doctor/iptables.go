package doctor

import (
	"net/netip"
	"strconv"
	"strings"
)

// parseSave reads what iptables-save says of the table filter. A line that is not
// understood is passed over, as a condition that is not is: the rule is vague then.
func parseSave(tool, family, text string) []Chain {
	var out []Chain
	at := map[string]int{}
	inFilter := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			inFilter = line == "*filter"
		case !inFilter:
		case strings.HasPrefix(line, ":"):
			f := strings.Fields(line[1:])
			if len(f) < 2 {
				continue
			}
			c := Chain{Tool: tool, Family: family, Table: "filter", Name: f[0], Policy: strings.ToLower(f[1])}
			if c.Name == "FORWARD" || c.Name == "INPUT" {
				c.Hook = strings.ToLower(c.Name)
			}
			at[c.Name] = len(out)
			out = append(out, c)
		case strings.HasPrefix(line, "-A "):
			words := words(line)
			if i, known := at[words[1]]; known {
				out[i].Rules = append(out[i].Rules, parseRule(words[2:]))
			}
		}
	}
	return out
}

// words splits a rule; what stands in double quotes is one word.
func words(line string) []string {
	var out []string
	var word strings.Builder
	quoted, begun := false, false
	end := func() {
		if begun {
			out = append(out, word.String())
		}
		word.Reset()
		begun = false
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == '"':
			quoted, begun = !quoted, true
		case c == ' ' && !quoted:
			end()
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	end()
	for len(out) < 2 {
		out = append(out, "")
	}
	return out
}

func parseRule(w []string) Rule {
	var r Rule
	not := false
	for i := 0; i < len(w); i++ {
		value := ""
		if i+1 < len(w) {
			value = w[i+1]
		}
		switch w[i] {
		case "!":
			not = true
			continue
		case "-i":
			r.In = Names{not, []string{value}}
		case "-o":
			r.Out = Names{not, []string{value}}
		case "-p":
			r.Proto, r.Vague = value, r.Vague || not
		case "--dport", "--dports":
			r.Ports, r.Vague = portList(value), r.Vague || not
		case "--ctstate", "--state":
			r.States, r.Vague = strings.Split(strings.ToLower(value), ","), r.Vague || not
		case "-d":
			p, err := prefix(value)
			r.To = To{Not: not, Addrs: p}
			r.Vague = r.Vague || err != nil
		case "--dst-type":
			r.To = To{Not: not, Kinds: strings.Split(strings.ToLower(value), ",")}
		case "-m", "--comment":
		case "-j", "-g":
			r.Verdict, r.Target = verdict(w[i], value)
			return r // what follows are the target's own options
		default:
			r.Vague = true
			not = false
			continue
		}
		not = false
		i++
	}
	return r
}

// prefix reads a prefix, or one address.
func prefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

func verdict(flag, target string) (string, string) {
	switch target {
	case "ACCEPT":
		return "accept", ""
	case "DROP", "REJECT":
		return "drop", ""
	case "RETURN":
		return "return", ""
	case "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "TRACE", "":
		return "", ""
	}
	if flag == "-g" {
		return "goto", target
	}
	return "jump", target
}

// portList reads 53, 1000:2000 and lists of them.
func portList(s string) []Ports {
	var out []Ports
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		a, errA := strconv.ParseUint(from, 10, 16)
		b, errB := strconv.ParseUint(to, 10, 16)
		if errA == nil && errB == nil {
			out = append(out, Ports{uint16(a), uint16(b)})
		}
	}
	if out == nil {
		out = []Ports{{1, 0}} // of none
	}
	return out
}
