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
			f := follow(c, s.Firewall.Chains, w.road)
			if !f.dropped {
				continue
			}
			dropped = true
			cure := cureAt(s.Firewall.Known, c, w)
			if slices.ContainsFunc(out, func(f Finding) bool { return f.Cure == cure }) {
				continue // one cure is enough for two ways
			}
			level, what := Problem, fmt.Sprintf("%s drops %s", place(c), w.what)
			if f.perhaps {
				level, what = Warning, what+", unless a rule lets it pass whose conditions are not understood here"
			}
			out = append(out, Finding{check, level, what, cure})
		}
	}
	if !dropped {
		what := "no other firewall drops packets of weave"
		if len(s.Firewall.Known) > 0 {
			what += "; here are " + strings.Join(s.Firewall.Known, ", ")
		}
		out = append(out, ok(check, what))
	}
	return out
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
		{road{hook: "input", in: under.Name, proto: "tcp", port: s.gossip(), six: own.Is6()}, "gossip of the other hosts", cureInput},
		{road{hook: "input", in: under.Name, proto: "udp", port: s.vxlan(), six: own.Is6()}, "the packets of containers on other hosts (VXLAN)", cureInput},
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

// gossip is the TCP port of the router: the one that it listens at, if it runs.
func (s Snapshot) gossip() uint16 {
	for _, p := range s.Ports {
		if p.Proto == "tcp" && p.Owner == "weaver" && p.Addr.Port() != 53 && p.Addr.Addr().IsUnspecified() {
			return p.Addr.Port()
		}
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
func cureAt(known []string, c Chain, w way) string {
	firewalld := c.Table == "firewalld"
	ufw := c.Tool != "nft" && slices.Contains(known, "ufw")
	service := w.hook == "input" && w.port != 53
	switch {
	case firewalld && service:
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/%s && firewall-cmd --reload", w.port, w.proto)
	case firewalld:
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload", w.in)
	case ufw && service:
		return fmt.Sprintf("ufw allow %d/%s", w.port, w.proto)
	case ufw && w.hook == "input":
		return fmt.Sprintf("ufw allow in on %s to any port 53", w.in)
	case ufw:
		return fmt.Sprintf("ufw route allow in on %s", w.in)
	}
	return w.do(c, w)
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
