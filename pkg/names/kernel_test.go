package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const inside = "NAMES_TEST_INSIDE_A_NAMESPACE"

// elsewhere runs the calling test, or benchmark, again as a process in a network
// namespace of its own, where port 53 is free. It reports whether this process is
// not that one, and so has nothing more to do than to log what the other printed.
func elsewhere(t testing.TB, kind string) (parent bool) {
	t.Helper()
	if os.Getenv(inside) != "" {
		return false
	}
	for _, p := range []string{"ip", "dig", "dnsperf"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: %v", p, err)
		}
	}
	name := strings.TrimPrefix(t.Name(), "Benchmark")
	args := []string{"-test.v", "-test.run=^" + t.Name() + "$"}
	if kind == "bench" {
		args = []string{"-test.run=^$", "-test.bench=^Benchmark" + name + "$", "-test.benchtime=1x"}
	}
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := c.CombinedOutput()
	switch {
	case err != nil && len(out) == 0:
		t.Skipf("needs root or user namespaces: %v", err)
	case err != nil:
		t.Fatalf("in the namespace: %v\n%s", err, out)
	}
	t.Logf("in the namespace:\n%s", out)
	return true
}

func shell(t testing.TB, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// serveOnBridge serves net1 on a bridge's addresses, port 53, as the router does.
func serveOnBridge(t testing.TB, tab *Table, upstreams ...string) *Server {
	t.Helper()
	shell(t, "ip link set lo up && ip link add weave type bridge && ip addr add 10.48.0.1/20 dev weave && ip addr add fd00:1::1/64 dev weave nodad && ip link set weave up")
	s := New(Config{Domain: "weave.local", Table: tab, Log: quiet(), Upstreams: func() []string { return upstreams }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	ls := []Listener{
		{"net1", netip.MustParseAddr("10.48.0.1"), testZones[:1], false},
		{"net1", netip.MustParseAddr("fd00:1::1"), testZones[2:], false},
	}
	eventually(t, "both addresses are served", func() bool {
		if err := s.Sync(ctx, ls); err != nil {
			return false
		}
		st := s.Stats().Listeners
		return len(st) == 2 && st[0].Error == "" && st[1].Error == ""
	})
	return s
}

func TestDigUnderstandsEveryAnswer(t *testing.T) {
	if elsewhere(t, "test") {
		return
	}
	u := newUpstream(t, answerA)
	s := serveOnBridge(t, testTable(), "10.48.0.1:53", u.addr)
	for _, c := range []struct{ args, want string }{
		{"web.weave.local A", `status: NOERROR.*flags: qr aa rd ra;.*EDNS: version: 0, flags:; udp: 1232.*web.weave.local.\s+1\s+IN\s+A\s+10.48.0.[23]`},
		{"web A", `status: NOERROR.*web.\s+1\s+IN\s+A\s+10.48.0.[23]`},
		{"+tcp +noedns web.net1.weave.local AAAA", `AAAA\s+fd00:1::2.*\(TCP\)`},
		{"-x 10.48.0.2", `2.0.48.10.in-addr.arpa.\s+1\s+IN\s+PTR\s+web.weave.local.`},
		{"-x fd00:1::2", `PTR\s+web.weave.local.`},
		{"nosuch.weave.local", `status: NXDOMAIN.*AUTHORITY SECTION.*weave.local.\s+1\s+IN\s+SOA`},
		{"only4.weave.local AAAA", `status: NOERROR.*ANSWER: 0, AUTHORITY: 1.*SOA`},
		{"web.weave.local ANY +notcp", `HINFO\s+"RFC8482"`},
		{"web.weave.local A CH", `status: REFUSED`},
		{"weave.local AXFR +noall +comments +tcp", `Transfer failed|status: REFUSED`},
		{"+opcode=NOTIFY web.weave.local", `status: NOTIMP`},
		{"+edns=1 +noednsneg web.weave.local", `status: BADVERS`},
		{"example.com A", `status: NOERROR.*flags: qr rd ra;.*A\s+198.51.100.7`},
		{"+tcp example.com A", `A\s+198.51.100.7`},
	} {
		for _, server := range []string{"@10.48.0.1", "@fd00:1::1"} {
			out := shell(t, "dig +tries=1 +time=30 "+server+" "+c.args)
			if ok := regexp.MustCompile(`(?s)` + c.want).MatchString(out); !ok || strings.Contains(out, "Warning") || strings.Contains(out, "malformed") {
				t.Errorf("dig %s %s: want %s in\n%s", server, c.args, c.want, out)
			}
		}
	}
	if n := u.asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times, want 1", n)
	}
	if st := s.Stats(); st.Queries["panicked"] != 0 {
		t.Errorf("stats %+v", st)
	}

	// The bridge goes and comes back with the same address: the sockets serve again.
	shell(t, "ip link del weave && ip link add weave type bridge && ip addr add 10.48.0.1/20 dev weave && ip link set weave up")
	if out := shell(t, "dig +tries=3 +time=10 @10.48.0.1 web.weave.local +short"); !strings.Contains(out, "10.48.0.") {
		t.Errorf("after the bridge's return:\n%s", out)
	}
}

func TestAnAddressThatDoesNotResolveHoldsUpNobodysAnswers(t *testing.T) {
	if elsewhere(t, "test") {
		return
	}
	serveOnBridge(t, testTable())
	// For as long as the test lasts, the kernel looks for the address and keeps the answers.
	shell(t, "echo 3600000 > /proc/sys/net/ipv4/neigh/weave/retrans_time_ms")
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bad error
		err := c.Control(func(fd uintptr) { bad = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
		return errors.Join(err, bad)
	}}
	c, err := lc.ListenPacket(t.Context(), "udp4", "10.48.0.200:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wire, _ := question("web.", dns.TypeA).Pack()
	for range 2000 {
		if _, err := c.WriteTo(wire, &net.UDPAddr{IP: net.IPv4(10, 48, 0, 1), Port: 53}); err != nil {
			t.Fatal(err)
		}
	}
	resolve(t, "10.48.0.1:53", "web.")
	if out := shell(t, "ip neigh show 10.48.0.200"); !strings.Contains(out, "INCOMPLETE") {
		t.Errorf("the address was not looked for all the time: %s", out)
	}
}

func BenchmarkDnsperf(b *testing.B) {
	if elsewhere(b, "bench") {
		return
	}
	const names = 1000
	tab := NewTable()
	var list strings.Builder
	for i := range names {
		tab.Put(fmt.Sprint(i), []Record{{Name: fmt.Sprint("c", i), Network: "net1", Addr: netip.AddrFrom4([4]byte{10, 48, byte(i >> 8), byte(i)})}})
		fmt.Fprintf(&list, "c%d.weave.local A\n", i)
	}
	file := filepath.Join(b.TempDir(), "names")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	s := serveOnBridge(b, tab)
	for b.Loop() {
		out := shell(b, "dnsperf -s 10.48.0.1 -d "+file+" -l 5 -c 8 -q 200")
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); strings.Contains(line, "Queries per second:") && len(f) == 4 {
				qps, _ := strconv.ParseFloat(f[3], 64)
				b.ReportMetric(qps, "queries/s")
			}
		}
		b.Log(out)
	}
	b.Log(s.Stats())
}
