package names

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

func TestWhoIsAdmitted(t *testing.T) {
	all := map[netip.Addr]Listener{}
	net1 := []netip.Prefix{netip.MustParsePrefix("10.48.0.1/20"), testZones[2]}
	for _, l := range []Listener{
		{"net1", netip.MustParseAddr("10.48.0.1"), net1, false},
		{"net1", netip.MustParseAddr("fd00:1::1"), net1, false},
		{"net2", netip.MustParseAddr("10.49.0.1"), []netip.Prefix{testZones[1]}, true},
		{"net2", netip.MustParseAddr("fd00:2::1"), []netip.Prefix{netip.MustParsePrefix("fd00:2::/64")}, true},
	} {
		all[l.Addr] = l
	}
	f := newFence(all[netip.MustParseAddr("10.48.0.1")], newServed(all))
	for client, want := range map[string]bool{
		"10.48.0.2":        true, // a container of it
		"::ffff:10.48.0.2": true,
		"10.48.15.255":     true, // another host's
		"fd00:1::2":        true,
		"10.49.0.2":        false, // a container of the other
		"::ffff:10.49.0.2": false,
		"10.49.15.255":     false,
		"fd00:2::2":        false,
		"fe80::2":          false, // of whichever bridge
		"fe80::2%3":        false,
		"10.48.0.1":        true, // this host
		"10.49.0.1":        true,
		"fd00:2::1":        true,
		"127.0.0.1":        true,
		"::1":              true,
		"192.0.2.9":        true, // its neighbours, and whatever else runs on it
		"10.244.0.7":       true, // a pod of another network plugin
		"2001:db8::9":      true,
	} {
		if got := f.admits(netip.MustParseAddr(client)); got != want {
			t.Errorf("%s: admitted %v", client, got)
		}
	}
}

// neighbour is a container: a namespace on a bridge of the one of the test.
func neighbour(t *testing.T, bridge, addr4, addr6, gw4, gw6 string) (run func(line string) string) {
	t.Helper()
	c := exec.Command("sleep", "infinity")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	pid := c.Process.Pid
	run = func(line string) string {
		t.Helper()
		return shell(t, fmt.Sprintf("nsenter -t %d -n sh -c '%s'", pid, line))
	}
	shell(t, fmt.Sprintf("ip link add v%d type veth peer name eth0 netns %d && ip link set v%d master %s up", pid, pid, pid, bridge))
	run(fmt.Sprintf("ip link set lo up && ip addr add %s dev eth0 && ip addr add %s dev eth0 nodad && ip link set eth0 addrgenmode none up && "+
		"ip addr add fe80::1:%x/64 dev eth0 nodad && ip route add default via %s && ip -6 route add default via %s", addr4, addr6, pid&0xffff, gw4, gw6))
	return run
}

// serveTwo serves net1 and the internal net2, each on a bridge of its own.
func serveTwo(t *testing.T, upstream string) {
	t.Helper()
	shell(t, "ip link set lo up && for i in 1 2; do ip link add br$i type bridge && ip addr add 10.$((47+i)).0.1/20 dev br$i && "+
		"ip addr add fd00:$i::1/64 dev br$i nodad && "+
		"ip addr add fe80::1/64 dev br$i nodad && ip link set br$i up; done")
	s := New(Config{Domain: "weave.local", Table: testTable(), Log: quiet(), Upstreams: func() []string { return []string{upstream} }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	subnets := map[string][]netip.Prefix{"net1": {testZones[0], testZones[2]}, "Net2": {testZones[1], netip.MustParsePrefix("fd00:2::/64")}}
	ls := []Listener{
		{"net1", netip.MustParseAddr("10.48.0.1"), subnets["net1"], false},
		{"net1", netip.MustParseAddr("fd00:1::1"), subnets["net1"], false},
		{"Net2", netip.MustParseAddr("10.49.0.1"), subnets["Net2"], true},
		{"Net2", netip.MustParseAddr("fd00:2::1"), subnets["Net2"], true},
	}
	eventually(t, "all addresses are served", func() bool {
		if s.Sync(ctx, ls) != nil {
			return false
		}
		for _, l := range s.Stats().Listeners {
			if l.Error != "" {
				return false
			}
		}
		return true
	})
}

func TestAContainerIsRefusedByTheListenersOfOtherNetworks(t *testing.T) {
	if elsewhere(t, "test") {
		return
	}
	u := newUpstream(t, answerA)
	serveTwo(t, u.addr)
	c1 := neighbour(t, "br1", "10.48.0.9/20", "fd00:1::9/64", "10.48.0.1", "fd00:1::1")
	c2 := neighbour(t, "br2", "10.49.0.9/20", "fd00:2::9/64", "10.49.0.1", "fd00:2::1")
	linked := neighbour(t, "br2", "10.49.0.10/20", "fd00:2::10/64", "10.49.0.1", "fd00:2::1")
	linked("ip -6 addr del fd00:2::10/64 dev eth0 && ip -6 route replace fd00:1::1 via fe80::1 dev eth0 onlink")
	host := func(line string) string { return shell(t, line) }
	const ok, no, none = "NOERROR", "REFUSED", "NXDOMAIN"
	for _, c := range []struct {
		who        string
		run        func(string) string
		from       string // instead of what the kernel takes
		at4, at6   string
		name, want string
	}{
		{"a container of net1", c1, "", "10.48.0.1", "fd00:1::1", "web.weave.local", ok},
		{"a container of net1", c1, "", "10.48.0.1", "fd00:1::1", "example.com", ok},
		{"a container of net2", c2, "", "10.49.0.1", "fd00:2::1", "web.weave.local", ok},
		{"a container of net2", c2, "", "10.49.0.1", "fd00:2::1", "outside.example.com", none},
		{"a container of net2 at net1", c2, "", "10.48.0.1", "fd00:1::1", "web.weave.local", no},
		{"a container of net2 at net1", c2, "", "10.48.0.1", "fd00:1::1", "gone.weave.local", no},
		{"a container of net2 at net1", c2, "", "10.48.0.1", "fd00:1::1", "outside.example.com", no},
		{"a container of net2 at net1", c2, "", "10.48.0.1", "fd00:1::1", "2.0.48.10.in-addr.arpa PTR", no},
		{"a container of net1 at net2", c1, "", "10.49.0.1", "fd00:2::1", "web.weave.local", no},
		{"a container of net2 without an address of it", linked, "", "", "fd00:1::1", "web.weave.local", no},
		{"this host", host, "", "10.48.0.1", "fd00:1::1", "web.weave.local", ok},
		{"this host", host, "", "10.49.0.1", "fd00:2::1", "web.weave.local", ok},
		{"this host, by the other network's address", host, "-b 10.49.0.1", "10.48.0.1", "", "web.weave.local", ok},
	} {
		for _, server := range []string{c.at4, c.at6} {
			for _, proto := range []string{"+notcp", "+tcp"} {
				if server == "" {
					continue
				}
				out := c.run(fmt.Sprintf("dig +tries=3 +time=10 %s %s @%s %s", proto, c.from, server, c.name))
				if !strings.Contains(out, "status: "+c.want) || c.want == no && !strings.Contains(out, "ANSWER: 0, AUTHORITY: 0") {
					t.Errorf("%s, %s %s %s, want %s:\n%s", c.who, server, proto, c.name, c.want, out)
				}
			}
		}
	}
	for _, name := range u.seen() {
		if name != "example.com." {
			t.Errorf("the upstream was asked for %s", name)
		}
	}
}

func TestTheFenceFollowsTheNetworks(t *testing.T) {
	s := start(t)
	client := &dns.Client{Timeout: patience, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}}}
	theirs := testListeners()
	theirs[1].Subnets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/28")}
	for i, c := range []struct {
		ls   []Listener
		want int
	}{{theirs, dns.RcodeRefused}, {testListeners(), dns.RcodeSuccess}, {theirs, dns.RcodeRefused}, {theirs[:1], dns.RcodeSuccess}} {
		if err := s.Sync(t.Context(), c.ls); err != nil {
			t.Fatal(err)
		}
		answer, _, err := client.Exchange(question("web.", dns.TypeA), s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Rcode != c.want {
			t.Errorf("%d: %s, want %s", i, dns.RcodeToString[answer.Rcode], dns.RcodeToString[c.want])
		}
	}
	if n := s.Stats().Queries["refused"]; n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
}
