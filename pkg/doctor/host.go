package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// underlayMTU compares the networks' MTUs with what the underlay carries.
func underlayMTU(s Snapshot) []Finding {
	const check = "mtu"
	under, own, found := s.underlay()
	if !found {
		return []Finding{warn(check, "no device leads to other hosts: there is no default route", "ip route show default")}
	}
	var out []Finding
	biggest := 0
	for _, n := range s.networks() {
		biggest = max(biggest, n.mtu)
		if d, there := s.device(n.bridge); there && n.mtu != d.MTU {
			out = append(out, bad(check, fmt.Sprintf("bridge %s has an MTU of %d, its network one of %d", n.bridge, d.MTU, n.mtu),
				fmt.Sprintf("ip link set dev %s mtu %d", n.bridge, n.mtu)))
		}
	}
	need := biggest + overhead(own)
	switch {
	case biggest == 0:
	case under.MTU < need:
		out = append(out, advise(check, Problem, fmt.Sprintf("%s carries %d bytes, and packets of %d to other hosts need %d: the big ones are lost",
			under.Name, under.MTU, biggest, need), fmt.Sprintf("where every switch between the hosts carries %d bytes, raise the MTU of %s on all of them; else found the cluster with --mtu %d",
			need, under.Name, under.MTU-overhead(own))))
	case len(out) == 0:
		out = append(out, ok(check, fmt.Sprintf("%s carries %d bytes, %d are needed", under.Name, under.MTU, need)))
	}
	return out
}

type netMTU struct {
	bridge string
	mtu    int
}

// networks are ours with their MTUs: as the router says, else as the kernel has them.
func (s Snapshot) networks() []netMTU {
	var out []netMTU
	if s.Router.Status != nil {
		for _, n := range s.Router.Status.Networks {
			out = append(out, netMTU{n.Bridge, n.MTU})
		}
		return out
	}
	for _, b := range s.bridges() {
		d, _ := s.device(b)
		out = append(out, netMTU{b, d.MTU})
	}
	return out
}

// pathMTU is whether packets of full size arrive.
func pathMTU(s Snapshot) []Finding {
	const check = "path mtu"
	var out []Finding
	var silent []string
	passed := 0
	for _, p := range s.Paths {
		switch {
		case p.Full:
			passed++
		case p.Error != "":
			out = append(out, warn(check, fmt.Sprintf("the path to %s (%s) was not tried: %s", p.Host, p.Addr, p.Error), "sudo weave doctor"))
		case p.Limit > 0 || p.Small:
			what := fmt.Sprintf("packets of %d bytes do not reach %s (%s), small ones do", p.Size, p.Host, p.Addr)
			if p.Limit > 0 {
				what = fmt.Sprintf("packets to %s (%s) are cut at %d bytes, %d are needed", p.Host, p.Addr, p.Limit, p.Size)
			}
			out = append(out, bad(check, what, fmt.Sprintf("ping -M do -s %d %s   # find the hop that is too small; else found the cluster with a smaller --mtu", p.Size-headers(p.Addr), p.Addr)))
		default:
			silent = append(silent, p.Host)
		}
	}
	if passed > 0 {
		out = append(out, ok(check, fmt.Sprintf("packets of full size reach %d of %d other hosts", passed, len(s.Paths))))
	}
	if len(silent) > 0 {
		out = append(out, warn(check, "not known: pings are not answered by "+list(silent), "weave status peers"))
	}
	return out
}

// headers of an echo: IP and ICMP, in bytes.
func headers(a netip.Addr) int {
	if a.Is6() {
		return 48
	}
	return 28
}

func list(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// ports are those of the router, where somebody else has them.
func ports(s Snapshot) []Finding {
	const check = "ports"
	out := namePorts(s)
	for _, want := range []struct {
		proto string
		port  uint16
		flag  string
	}{{"tcp", gossipPort, "--port"}, {"udp", vxlanPort, "--vxlan-port"}, {"tcp", meshPort, "--mesh-port"}} {
		for _, p := range s.Ports {
			if p.Proto != want.proto || p.Addr.Port() != want.port || s.routers(p) || s.kernels(p) {
				continue
			}
			f := bad(check, "a tunnel of the kernel that is not weave's", "ip -d link show type vxlan")
			if p.Owner != "" {
				f = advise(check, Problem, fmt.Sprintf("%s (process %d)", p.Owner, p.PID), "move that program to another port, or give weaver on all hosts another "+want.flag)
			} else if p.Proto == "tcp" { // it may be weaver
				f = warn(check, "a program that cannot be seen", fmt.Sprintf("sudo ss -ltnp 'sport = :%d'", want.port))
			}
			f.What = fmt.Sprintf("%s %d is taken by %s", strings.ToUpper(want.proto), want.port, f.What)
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		out = append(out, ok(check, fmt.Sprintf("TCP %d and %d, UDP %d are the router's, or free", gossipPort, meshPort, vxlanPort)))
	}
	return slices.Compact(out)
}

// routers reports whether a port is that of the router: by the process that it is, or by its
// name where it cannot be asked.
func (s Snapshot) routers(p Port) bool {
	return p.Owner == "weaver" || p.PID != 0 && p.PID == s.Router.PID
}

// kernels reports whether a port is that of our own VXLAN devices, which the kernel has.
func (s Snapshot) kernels(p Port) bool {
	return p.Proto == "udp" && p.Owner == "" && slices.ContainsFunc(s.Devices, func(d Device) bool { return isTunnel(d.Name) })
}

// forwarding is whether the host forwards at all.
func forwarding(s Snapshot) []Finding {
	const check = "forwarding"
	var out []Finding
	for _, f := range []struct{ sysctl, key, family string }{
		{"net/ipv4/ip_forward", "net.ipv4.ip_forward", "IPv4"}, {"net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding", "IPv6"},
	} {
		v, there := s.Sysctls[f.sysctl]
		if f.family == "IPv6" && !s.has6() {
			continue
		}
		what := fmt.Sprintf("the host does not forward %s: containers do not reach beyond their networks", f.family)
		cure := fmt.Sprintf("sysctl -w %s=1", f.key)
		switch {
		case !there || v != "0":
		case s.Router.Status == nil:
			out = append(out, warn(check, what+"; the router turns it on when it starts", cure))
		default:
			out = append(out, bad(check, what, cure+"   # and look who turns it off: grep -r ip_forward /etc/sysctl.d /etc/sysctl.conf"))
		}
	}
	if len(out) == 0 {
		out = append(out, ok(check, "on"))
	}
	return out
}

// has6 reports whether a network has a subnet of IPv6.
func (s Snapshot) has6() bool {
	if s.Router.Status == nil {
		return false
	}
	for _, n := range s.Router.Status.Networks {
		if slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
			return true
		}
	}
	return false
}

// reversePath is strict reverse path filtering where packets of a peer come in by another
// device than the one that leads to it.
func reversePath(s Snapshot) []Finding {
	const check = "rp_filter"
	under, own, found := s.underlay()
	if !found || !own.Is4() {
		return nil
	}
	var crossed []string
	for host, source := range s.Sources {
		if source.Is4() && source != own {
			crossed = append(crossed, host)
		}
	}
	slices.Sort(crossed)
	strict := max(number(s.Sysctls["net/ipv4/conf/all/rp_filter"]), number(s.Sysctls["net/ipv4/conf/"+under.Name+"/rp_filter"])) == 1
	switch {
	case len(crossed) == 0:
		return []Finding{ok(check, "every known host is reached by the device that its packets come in by")}
	case strict:
		return []Finding{bad(check, fmt.Sprintf("packets from %s come in at %s (%s), and the way back leads elsewhere: the strict filter drops them", list(crossed), under.Name, own),
			fmt.Sprintf("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.%s.rp_filter=2", under.Name))}
	}
	return []Finding{warn(check, fmt.Sprintf("the way to %s does not lead over %s (%s), where the others reach this host", list(crossed), under.Name, own),
		"ip route   # or start weaver with another --advertise")}
}

func number(s string) int {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 0
	}
	return n
}

// managers are other programs that take our links for theirs.
func managers(s Snapshot) []Finding {
	const check = "managers"
	var out []Finding
	for _, m := range s.Managed {
		cure := `printf '[keyfile]\nunmanaged-devices=interface-name:weave*;interface-name:wv-*;interface-name:wx-*;interface-name:sb-*;interface-name:veth*\n' ` +
			`> /etc/NetworkManager/conf.d/weave.conf && nmcli general reload`
		if m.By == "systemd-networkd" {
			cure = `printf '[Match]\nName=weave weave-vx wv-* wx-* sb-* veth*\n[Link]\nUnmanaged=yes\n' > /etc/systemd/network/05-weave.network && networkctl reload`
		}
		out = append(out, bad(check, fmt.Sprintf("%s manages %s: it may take its addresses away", m.By, m.Device), cure))
	}
	if len(out) == 0 {
		out = append(out, ok(check, "neither NetworkManager nor systemd-networkd manages a link of weave"))
	}
	return out
}

// features that the data plane needs, and the modules that bring them.
var features = []string{"bridge", "veth", "vxlan", "nf_tables"}

// kernel is whether it is new enough and has what is needed.
func kernel(s Snapshot) []Finding {
	const check = "kernel"
	var out []Finding
	if major, minor, known := release(s.Kernel.Release); known && (major < 5 || major == 5 && minor < 18) {
		out = append(out, advise(check, Problem, fmt.Sprintf("Linux %s: bridge ports cannot be locked before 5.18, so no container can be added", s.Kernel.Release),
			"boot Linux 5.18 or later"))
	}
	for _, f := range features {
		if have, known := s.Kernel.Features[f]; known && !have {
			out = append(out, advise(check, Problem, fmt.Sprintf("Linux %s was built without %s", s.Kernel.Release, f), "boot a kernel that has it, as those of distributions have"))
		}
	}
	if len(out) == 0 {
		out = append(out, ok(check, "Linux "+s.Kernel.Release))
	}
	return out
}

// release reads the first two numbers of 6.1.0-18-amd64.
func release(s string) (major, minor int, known bool) {
	n, err := fmt.Sscanf(s, "%d.%d", &major, &minor)
	return major, minor, err == nil && n == 2
}
