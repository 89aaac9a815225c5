package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// way is one thing that must pass the host's firewalls, and how it is said.
type way struct {
	road
	what string
	do   func(Chain, way) string // the cure at a chain
}

// firewalls are chains of others that drop what we send.
func firewalls(s Snapshot) []Finding {
	const check = "firewall"
	var out []Finding
	for _, u := range s.Firewall.Unread {
		out = append(out, warn(check, u, ""))
	}
	dropped := false
	for _, w := range s.ways() {
		for _, c := range s.Firewall.Chains {
			if c.Hook != w.hook || !w.family(c.Family) {
				continue
			}
			fate := follow(c, s.Firewall.Chains, w.road)
			if !fate.dropped {
				continue
			}
			dropped = true
			f := s.stopped(c, w, fate.accepted)
			if !slices.ContainsFunc(out, func(o Finding) bool { return o.Cure == f.Cure && o.Advice == f.Advice }) { // one cure is enough for two ways
				out = append(out, f)
			}
		}
	}
	if !dropped && !s.Firewall.Late {
		what := "no other firewall drops packets of weave"
		if len(s.Firewall.Known) > 0 {
			what += "; here are " + strings.Join(s.Firewall.Known, ", ")
		}
		out = append(out, ok(check, what))
	}
	return out
}

// stopped is what is to be said of a chain that drops, or may drop, what must pass.
func (s Snapshot) stopped(c Chain, w way, perhaps bool) Finding {
	const check = "firewall"
	cure, advice := cureAt(s.Firewall.Known, c, w)
	if !perhaps {
		return Finding{check, Problem, fmt.Sprintf("%s drops %s", place(c), w.what), cure, advice}
	}
	if cure != "" {
		advice = "if it does, this lets them pass: " + cure
	}
	return advise(check, Warning, fmt.Sprintf("%s may drop %s: rules on the way have conditions that are not understood here", place(c), w.what), advice)
}

func place(c Chain) string {
	if c.Tool == "nft" {
		return fmt.Sprintf("nftables, table %s %s, chain %s,", c.Family, c.Table, c.Name)
	}
	return fmt.Sprintf("%s, chain %s,", c.Tool, c.Name)
}

// ways are what our packets pass. Of the bridges one stands for all, unless a rule
// treats it otherwise: each is tried, and the same cure is not said twice.
func (s Snapshot) ways() []way {
	under, own, found := s.underlay()
	if !found {
		return nil
	}
	out := []way{
		{road{hook: "input", in: under.Name, to: own, proto: "tcp", port: s.gossip(), six: own.Is6()}, "gossip of the other hosts", cureInput},
		{road{hook: "input", in: under.Name, to: own, proto: "udp", port: s.vxlan(), six: own.Is6()}, "the packets of containers on other hosts (VXLAN)", cureInput},
	}
	bridges := s.bridges()
	const most = 20
	for _, b := range bridges[:min(len(bridges), most)] {
		families := []bool{false}
		if s.has6() {
			families = append(families, true)
		}
		for _, six := range families {
			out = append(out,
				way{road{hook: "forward", in: b, out: under.Name, six: six}, "what containers on bridge " + b + " send beyond their network", cureForward},
				way{road{hook: "input", in: b, proto: "udp", port: 53, six: six}, "questions for names from bridge " + b, cureInput})
			if s.Sysctls[bridgeFilter(six)] == "1" {
				out = append(out, way{road{hook: "forward", in: b, out: b, six: six},
					"what containers on bridge " + b + " send each other (the kernel filters bridges here)", cureForward})
			}
		}
	}
	return out
}

func bridgeFilter(six bool) string {
	if six {
		return "net/bridge/bridge-nf-call-ip6tables"
	}
	return "net/bridge/bridge-nf-call-iptables"
}

// gossip is the router's TCP port: as it says; else the one that it listens at, if there is
// only one beside the usual.
func (s Snapshot) gossip() uint16 {
	if s.Router.Status != nil && s.Router.Status.Port != 0 {
		return s.Router.Status.Port
	}
	var all []uint16
	for _, p := range s.Ports {
		if p.Proto == "tcp" && s.routers(p) && p.Addr.Port() != 53 && p.Addr.Addr().IsUnspecified() {
			all = append(all, p.Addr.Port())
		}
	}
	all = slices.Compact(slices.Sorted(slices.Values(all))) // one of IPv4 and IPv6
	if len(all) == 1 {
		return all[0]
	}
	return gossipPort
}

// vxlan is the UDP port of the tunnels: the one that the kernel has, if there is only one.
func (s Snapshot) vxlan() uint16 {
	var kernels []uint16
	for _, p := range s.Ports {
		if s.kernels(p) && !slices.Contains(kernels, p.Addr.Port()) {
			kernels = append(kernels, p.Addr.Port())
		}
	}
	if len(kernels) == 1 {
		return kernels[0]
	}
	return vxlanPort
}

// cureAt is how a firewall is told, by the tool that its user has for it.
func cureAt(known []string, c Chain, w way) (cure, advice string) {
	firewalld := c.Table == "firewalld"
	ufw := c.Tool != "nft" && slices.Contains(known, "ufw")
	service := w.hook == "input" && w.port != 53
	switch {
	case firewalld && service:
		return allow(w.in, fmt.Sprintf("--add-port=%d/%s", w.port, w.proto)), ""
	case firewalld && w.hook == "input":
		return allow(w.in, "--add-service=dns"), ""
	case firewalld:
		return "", fmt.Sprintf("put %s into a zone that lets through what is forwarded. trusted is one, and opens this host to the containers as well: "+
			"firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", w.in, w.in)
	case ufw && service:
		return fmt.Sprintf("ufw allow %d/%s", w.port, w.proto), ""
	case ufw && w.hook == "input":
		return fmt.Sprintf("ufw allow in on %s to any port 53", w.in), ""
	case ufw:
		return fmt.Sprintf("ufw route allow in on %s", w.in), ""
	}
	return w.do(c, w), ""
}

// allow changes the zone of firewalld that a device is in: the default one, if none has it.
func allow(device, what string) string {
	return fmt.Sprintf("firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface=%s 2>/dev/null || firewall-cmd --get-default-zone) %s && firewall-cmd --reload", device, what)
}

func cureInput(c Chain, w way) string {
	if c.Tool == "nft" {
		on := ""
		if w.port == 53 {
			on = fmt.Sprintf("iifname %q ", w.in)
		}
		return fmt.Sprintf("nft insert rule %s %s %s %s%s dport %d accept", c.Family, c.Table, c.Name, on, w.proto, w.port)
	}
	on := ""
	if w.port == 53 {
		on = "-i " + w.in + " "
	}
	return fmt.Sprintf("%s -I %s %s-p %s --dport %d -j ACCEPT", c.Tool, c.Name, on, w.proto, w.port)
}

// cureForward lets connections begin at a bridge, and answers come back.
func cureForward(c Chain, w way) string {
	if c.Tool == "nft" {
		return fmt.Sprintf("nft insert rule %[1]s %[2]s %[3]s iifname %[4]q accept && nft insert rule %[1]s %[2]s %[3]s oifname %[4]q ct state established,related accept",
			c.Family, c.Table, c.Name, w.in)
	}
	return fmt.Sprintf("%[1]s -I %[2]s -i %[3]s -j ACCEPT && %[1]s -I %[2]s -o %[3]s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT   # the router does so by itself",
		c.Tool, c.Name, w.in)
}
