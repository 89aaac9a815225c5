package netlab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// object is one thing that ip or bridge shows, decoded from their JSON.
type object map[string]any

func (o object) str(key string) string {
	if v, ok := o[key]; ok && v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

// list is the strings of an array.
func (o object) list(key string) (out []string) {
	values, _ := o[key].([]any)
	for _, v := range values {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

func (o object) object(key string) object {
	m, _ := o[key].(map[string]any)
	return m
}

// words are "key value" for each of the keys that o has, in their order; a key whose value is true stands alone.
func (o object) words(keys ...string) string {
	var b strings.Builder
	for _, k := range keys {
		switch v := o.str(k); v {
		case "", "false", "<nil>":
		case "true":
			b.WriteString(" " + k)
		default:
			b.WriteString(" " + k + " " + v)
		}
	}
	return b.String()
}

// rest are the words of all keys but those, sorted.
func (o object) rest(but ...string) string {
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(o)), func(k string) bool {
		_, nested := o[k].(map[string]any)
		return nested || slices.Contains(but, k)
	})
	return o.words(keys...)
}

// show runs a JSON-writing tool on a script and returns the array of each of
// its lines. It asks again when the kernel's tables changed under the answer.
func (s *Space) show(script string, tool ...string) ([][]object, error) {
	for range 30 {
		ctx, cancel := context.WithTimeout(context.Background(), s.limit)
		cmd := s.Command(ctx, tool[0], tool[1:]...)
		var complaint strings.Builder
		cmd.Stdin, cmd.Stderr = strings.NewReader(script), &complaint
		out, err := cmd.Output()
		cancel()
		if strings.Contains(complaint.String(), "interrupted") {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%w%s", err, indented(complaint.String()))
		}
		return answers(out, strings.Count(script, "\n"))
	}
	return nil, fmt.Errorf("%v on %s: the kernel's tables do not hold still", tool, s.where)
}

// answers decodes so many arrays, one after the other.
func answers(out []byte, want int) (arrays [][]object, err error) {
	dec := json.NewDecoder(bytes.NewReader(out))
	dec.UseNumber()
	for len(arrays) < want {
		var array []object
		if err := dec.Decode(&array); err != nil {
			return nil, fmt.Errorf("answer %d of %d: %w", len(arrays)+1, want, err)
		}
		arrays = append(arrays, array)
	}
	return arrays, nil
}

// addLinks adds links and all that is IPv4.
func (s *Space) addLinks(w World, o WorldOptions) error {
	all, err := s.show("link show\n"+questions(o), "ip", "-d", "-4", "-j", "-batch", "-")
	if err != nil {
		return err
	}
	for _, l := range all[0] {
		w.addLink(l)
	}
	w.addFamily("0.0.0.0/0", all[1:], o)
	return nil
}

// addIPv6 adds all that is IPv6.
func (s *Space) addIPv6(w World, o WorldOptions) error {
	all, err := s.show(questions(o), "ip", "-6", "-j", "-batch", "-")
	if err != nil {
		return err
	}
	w.addFamily("::/0", all, o)
	return nil
}

// questions are what addFamily takes the answers to.
func questions(o WorldOptions) string {
	states := "permanent"
	if o.Dynamic {
		states = "all"
	}
	return "addr show\nroute show table all\nrule show\nneigh show proxy\nneigh show nud " + states + "\n"
}

// addFamily adds the answers to questions for the family whose every address is in all.
func (w World) addFamily(all string, answers [][]object, o WorldOptions) {
	for _, l := range answers[0] {
		addrs, _ := l["addr_info"].([]any)
		for _, a := range addrs {
			addr, _ := a.(map[string]any)
			w.addAddr(l.str("ifname"), addr)
		}
	}
	for _, r := range answers[1] {
		if r.str("dst") == "default" {
			r["dst"] = all
		}
		w.addRoute(r)
	}
	for _, r := range answers[2] {
		if r.str("src") == "all" {
			r["src"] = all
		}
		w.add("rule", "%s:%s", r.str("priority"), r.rest("priority", "protocol"))
	}
	for _, n := range answers[3] {
		w.add("neigh", "%s dev %s proxy", n.str("dst"), n.str("dev"))
	}
	for _, n := range answers[4] {
		state := strings.Join(n.list("state"), ",")
		if o.Dynamic && state == "NOARP" {
			continue // multicast groups
		}
		w.add("neigh", "%s dev %s lladdr %s %s", n.str("dst"), n.str("dev"), n.str("lladdr"), state)
	}
}

func (w World) addLink(l object) {
	info := l.object("linkinfo")
	kind := info.str("info_kind")
	if kind == "" {
		kind = l.str("link_type")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s type %s mtu %s", l.str("ifname"), kind, l.str("mtu"))
	b.WriteString(l.words("master", "address"))
	if peer := l.str("link"); peer != "" {
		b.WriteString(" peer " + peer)
	}
	if g := l.str("group"); g != "default" {
		b.WriteString(" group " + g)
	}
	for _, f := range l.list("flags") {
		if f == "UP" || f == "PROMISC" {
			b.WriteString(" " + strings.ToLower(f))
		}
	}
	if alias, ok := l["ifalias"]; ok {
		fmt.Fprintf(&b, " alias %q", alias)
	}
	b.WriteString(linkData(kind, info.object("info_data")))
	if port := info.object("info_slave_data"); port != nil {
		b.WriteString(" port [" + strings.TrimPrefix(port.words(portFlags[:]...), " ") + "]")
	}
	w.add("link", "%s", b.String())
}

// portFlags are the settings of a bridge port that say what it forwards.
var portFlags = [...]string{"learning", "locked", "flood", "mcast_flood", "bcast_flood", "neigh_suppress", "hairpin", "guard", "isolated", "proxy_arp", "mcast_to_unicast"}

// linkData are the settings of a kind of link.
func linkData(kind string, data object) string {
	switch kind {
	case "bridge": // the rest are timers and elections
		return data.words("vlan_filtering", "stp_state", "mcast_snooping", "ageing_time", "nf_call_iptables", "nf_call_ip6tables")
	case "vxlan":
		return data.words("id", "local", "local6", "group", "link", "port", "learning", "collect_metadata", "proxy", "udp_csum", "udp_zero_csum6_rx", "udp_zero_csum6_tx")
	default:
		return data.rest()
	}
}

func (w World) addAddr(dev string, a object) {
	if a.str("local") == "" {
		return
	}
	peer := ""
	if p := a.str("address"); p != "" {
		peer = " peer " + p
	}
	w.add("addr", "%s/%s dev %s scope %s%s%s", a.str("local"), a.str("prefixlen"), dev, a.str("scope"), peer, a.words("secondary", "noprefixroute", "home", "mngtmpaddr"))
}

// addRoute adds a route, but for those that the kernel keeps in table local for each address.
func (w World) addRoute(r object) {
	if r.str("table") == "local" && r.str("protocol") == "kernel" {
		return
	}
	line := r.str("dst") + r.words("gateway", "via", "dev", "table")
	if hops, ok := r["nexthops"].([]any); ok {
		for _, h := range hops {
			hop, _ := h.(map[string]any)
			line += " nexthop" + object(hop).words("gateway", "via", "dev", "weight")
		}
	}
	kind := ""
	if t := r.str("type"); t != "" && t != "unicast" {
		kind = t + " "
	}
	w.add("route", "%s%s%s", kind, line, r.rest("type", "dst", "gateway", "via", "dev", "table", "nexthops", "flags", "expires", "cache", "used", "users", "age", "pref"))
}

// addFDB adds forwarding entries, but for the groups that links listen to.
func (s *Space) addFDB(w World, o WorldOptions) error {
	all, err := s.show("fdb show\n", "bridge", "-j", "-batch", "-")
	if err != nil {
		return err
	}
	for _, e := range all[0] {
		flags := e.list("flags")
		state := e.str("state")
		static := state == "permanent" || state == "static" || slices.Contains(flags, "extern_learn")
		group := (strings.HasPrefix(e.str("mac"), "33:33:") || strings.HasPrefix(e.str("mac"), "01:00:5e:")) && e.str("dst") == ""
		if group || !static && !o.Dynamic {
			continue
		}
		w.add("fdb", "%s dev %s%s", e.str("mac"), e.str("ifname"), e.words("master", "vlan", "dst", "port", "vni", "src_vni", "state")+" "+strings.Join(flags, ","))
	}
	return nil
}

// addRuleset adds the nft ruleset. In its text a block's parts are lines that
// end with "{"; each line gets the blocks that it is in before it, and each
// element of a set a line of its own.
func (s *Space) addRuleset(w World) error {
	out, err := s.Run("nft", "-s", "list", "ruleset")
	if err != nil {
		return err
	}
	var blocks []string
	var elements strings.Builder
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case elements.Len() > 0 || strings.HasPrefix(line, "elements = {"):
			elements.WriteString(strings.TrimPrefix(line, "elements = {") + " ")
			if !closed(elements.String()) {
				continue
			}
			list, _ := strings.CutSuffix(strings.TrimSpace(elements.String()), "}")
			for _, e := range splitElements(list) {
				w.add("nft", "%s element %s", strings.Join(blocks, " "), e)
			}
			elements.Reset()
		case line == "":
		case line == "}":
			blocks = blocks[:len(blocks)-1]
		case strings.HasSuffix(line, "{"):
			blocks = append(blocks, strings.TrimSuffix(line, " {"))
			w.add("nft", "%s", strings.Join(blocks, " "))
		default:
			w.add("nft", "%s: %s", strings.Join(blocks, " "), line)
		}
	}
	return nil
}

// closed reports whether the text of a set's elements has come to its closing brace.
func closed(text string) bool {
	depth, quoted := 1, false
	for _, r := range text {
		switch {
		case r == '"':
			quoted = !quoted
		case quoted:
		case r == '{':
			depth++
		case r == '}':
			depth--
		}
	}
	return depth == 0
}

// splitElements splits at the commas that are not in quotes.
func splitElements(list string) (out []string) {
	quoted, start := false, 0
	for i, r := range list + "," {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			out = append(out, strings.TrimSpace(list[start:i]))
			start = i + 1
		}
	}
	return out
}
