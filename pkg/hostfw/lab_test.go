package hostfw

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// space is a network namespace with the thread that lives in it.
type space struct {
	t    testing.TB
	path string // of the namespace, for ip(8)
	work chan func()
}

// newSpace makes an empty namespace, with lo up. It goes away with the test: its
// thread ends, and nothing else names it.
func newSpace(t testing.TB) *space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	s := &space{t: t, work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not fit for others
		err := unix.Unshare(unix.CLONE_NEWNET)
		s.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- err
		for f := range s.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Skipf("needs root: unshare: %v", err)
	}
	t.Cleanup(func() { close(s.work) })
	s.sh("ip link set lo up")
	return s
}

// do runs f in the namespace.
func (s *space) do(f func()) {
	done := make(chan struct{})
	s.work <- func() { defer close(done); f() }
	<-done
}

// sh runs a command in the namespace and returns what it prints.
func (s *space) sh(line string) string {
	s.t.Helper()
	out, err := s.try(line)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

func (s *space) try(line string) (string, error) {
	var out []byte
	var err error
	s.do(func() { out, err = exec.Command("sh", "-c", line).CombinedOutput() })
	return string(out), err
}

func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s: %v", p, err)
		}
	}
}

// lab is a host with our bridge and a stranger's, and a machine outside:
//
//	c1, c2 -- weave (10.32.0.1/16, fd32::1/64)   host   eth0 192.0.2.1, 2001:db8::1 -- outside
//	d      -- docker0 (172.17.0.1/16)
//
// outside has .2 (a peer) and .9 (a stranger), and a route back to every
// container, so that a packet that was not masqueraded arrives and shows it.
type lab struct {
	host, c1, c2, d, out *space
	fw                   *Firewall
}

func newLab(t testing.TB) *lab {
	t.Helper()
	need(t, "ip")
	l := &lab{newSpace(t), newSpace(t), newSpace(t), newSpace(t), newSpace(t), nil}
	h := l.host
	h.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0")
	for _, b := range []string{"weave", "docker0"} {
		h.sh("ip link add " + b + " type bridge && ip link set " + b + " up")
	}
	h.sh("ip addr add 10.32.0.1/16 dev weave && ip addr add fd32::1/64 dev weave nodad && ip addr add 172.17.0.1/16 dev docker0")
	l.plug(l.c1, "vethc1", "weave", "10.32.0.2/16", "fd32::2/64", "10.32.0.1", "fd32::1")
	l.plug(l.c2, "vethc2", "weave", "10.32.0.3/16", "fd32::3/64", "10.32.0.1", "fd32::1")
	l.plug(l.d, "vethd", "docker0", "172.17.0.2/16", "", "172.17.0.1", "")
	h.sh("ip link add eth0 type veth peer name eth0 netns " + l.out.path)
	h.sh("ip addr add 192.0.2.1/24 dev eth0 && ip addr add 2001:db8::1/64 dev eth0 nodad && ip link set eth0 up")
	l.out.sh("ip link set eth0 up && ip addr add 192.0.2.9/24 dev eth0 && ip addr add 192.0.2.2/24 dev eth0")
	l.out.sh("ip addr add 2001:db8::9/64 dev eth0 nodad && ip addr add 2001:db8::2/64 dev eth0 nodad")
	l.out.sh("ip route add 10.32.0.0/16 via 192.0.2.1 && ip route add 172.17.0.0/16 via 192.0.2.1 && ip route add fd32::/64 via 2001:db8::1")
	h.do(func() {
		var err error
		if l.fw, err = New(quiet()); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(l.fw.Close)
	return l
}

func (l *lab) plug(c *space, veth, bridge, v4, v6, gw4, gw6 string) {
	l.host.sh(fmt.Sprintf("ip link add %s type veth peer name eth0 netns %s && ip link set %s master %s up", veth, c.path, veth, bridge))
	c.sh("ip link set eth0 up && ip addr add " + v4 + " dev eth0 && ip route add default via " + gw4)
	if v6 != "" {
		c.sh("ip addr add " + v6 + " dev eth0 nodad && ip -6 route add default via " + gw6)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (l *lab) apply(t testing.TB, r Rules) {
	t.Helper()
	var err error
	l.host.do(func() { err = l.fw.Apply(r) })
	if err != nil {
		t.Fatal(err)
	}
}

func (l *lab) intact(t testing.TB) bool {
	t.Helper()
	var ok bool
	var err error
	l.host.do(func() { ok, err = l.fw.Intact() })
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// labRules is what a router would apply in the lab.
func labRules() Rules {
	return Rules{
		Networks:   []Network{{Bridge: "weave", Subnets: []netip.Prefix{netip.MustParsePrefix("10.32.0.0/16"), netip.MustParsePrefix("fd32::/64")}}},
		Peers:      []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")},
		GossipPort: 6783, VXLANPort: 6784, TunnelPort: 6785, MeshPort: 6786,
		UID: 0,
	}
}

// hearing is a UDP socket that counts on being sent to.
type hearing struct {
	t    testing.TB
	conn *net.UDPConn
}

func (s *space) hear(addr string) *hearing {
	s.t.Helper()
	h := &hearing{t: s.t}
	var err error
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))
	s.do(func() {
		if to.IP.IsMulticast() {
			eth0, _ := net.InterfaceByName("eth0")
			h.conn, err = net.ListenMulticastUDP("udp", eth0, to)
		} else {
			h.conn, err = net.ListenUDP("udp", to)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { h.conn.Close() })
	return h
}

// patience bounds waits for what must come, and comes at once where nothing else runs.
const patience = 30 * time.Second

// source waits for a datagram and tells its sender's address; "" when there is none.
func (h *hearing) source(wait time.Duration) string {
	h.t.Helper()
	_ = h.conn.SetReadDeadline(time.Now().Add(wait))
	_, from, err := h.conn.ReadFromUDPAddrPort(make([]byte, 1<<16))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return from.Addr().Unmap().String()
}

// send sends one datagram from the namespace; from may be "". It always does so
// on the same processor: each has a queue of its own, and what is sent on one
// may be overtaken by what is sent later on another.
func (s *space) send(from, to string, size int) {
	s.t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	s.do(func() {
		defer onFirstCPU(s.t)()
		c, err := d.Dial("udp", to)
		if err != nil {
			s.t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(make([]byte, size)) // a drop in output is an error here
	})
}

// onFirstCPU keeps the calling thread, which must be locked, on one processor until release is called.
func onFirstCPU(t testing.TB) (release func()) {
	var all, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Error(err)
	}
	cpu := 0
	for !all.IsSet(cpu) && cpu < 1023 {
		cpu++
	}
	first.Set(cpu)
	if err := unix.SchedSetaffinity(0, &first); err != nil {
		t.Error(err)
	}
	return func() {
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			t.Error(err)
		}
	}
}

// udp sends to a port and then to another of the same machine, which must arrive:
// what the first was not heard of by then, nor shortly after, has been dropped.
func udp(t testing.TB, from *space, src string, to *space, host, port string, size int) (heardFrom string) {
	t.Helper()
	tested, control := to.hear(net.JoinHostPort(host, port)), to.hear(net.JoinHostPort(host, "9999"))
	defer tested.conn.Close()
	defer control.conn.Close()
	from.send(src, net.JoinHostPort(host, port), size)
	from.send(src, net.JoinHostPort(host, "9999"), 10)
	if control.source(patience) == "" {
		t.Fatalf("no datagram at all from %q to %s", src, host)
	}
	return tested.source(30 * time.Millisecond)
}

func (s *space) listen(t testing.TB, addr string) (l net.Listener) {
	t.Helper()
	var err error
	s.do(func() { l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// tcp reports how the connection is seen at the other side, or "" when it does not come about.
func tcp(t testing.TB, from, to *space, addr string) string {
	return tcpWithin(t, patience, from, to, addr)
}

// noTCP is tcp where nothing is to come about, which shows only in time passing.
func noTCP(t testing.TB, from, to *space, addr string) string {
	return tcpWithin(t, 300*time.Millisecond, from, to, addr)
}

func tcpWithin(t testing.TB, limit time.Duration, from, to *space, addr string) string {
	t.Helper()
	l := to.listen(t, addr)
	defer l.Close()
	var c net.Conn
	var err error
	from.do(func() { c, err = net.DialTimeout("tcp", addr, limit) })
	if err != nil {
		return ""
	}
	defer c.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	return netip.MustParseAddrPort(a.RemoteAddr().String()).Addr().Unmap().String()
}

func want(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		if want == "" {
			want = "nothing to arrive"
		}
		t.Errorf("%s: seen from %q, want %s", what, got, want)
	}
}

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// blast sends as fast as it can until stop is closed and counts what it has sent.
func blast(t testing.TB, stop <-chan struct{}, sent *atomic.Int64, from, to string) {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("udp", to)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	for {
		select {
		case <-stop:
			return
		default:
			_, _ = c.Write([]byte("x"))
			sent.Add(1)
		}
	}
}
