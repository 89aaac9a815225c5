package intercept

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// space is a network namespace with the thread that lives in it.
type space struct {
	t    *testing.T
	path string
	work chan func()
}

func newSpace(t *testing.T) *space {
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

func (s *space) do(f func()) {
	done := make(chan struct{})
	s.work <- func() { defer close(done); f() }
	<-done
}

func (s *space) sh(script string) string {
	s.t.Helper()
	var out []byte
	var err error
	s.do(func() { out, err = exec.Command("sh", "-euc", script).CombinedOutput() })
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func (s *space) open() int {
	s.t.Helper()
	fd, err := unix.Open(s.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// answer has a server at an address that says who it is and who asked, by UDP and TCP.
func (s *space) answer(addr string) {
	s.t.Helper()
	at := net.JoinHostPort(addr, "53")
	s.do(func() {
		udp, err := net.ListenPacket("udp", at)
		if err != nil {
			s.t.Error(err)
			return
		}
		tcp, err := net.Listen("tcp", at)
		if err != nil {
			s.t.Error(err)
			return
		}
		ended := make(chan struct{}, 2)
		go func() {
			defer func() { ended <- struct{}{} }()
			buf := make([]byte, 512)
			for {
				_, from, err := udp.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo([]byte(said(addr, from)), from)
			}
		}()
		go func() {
			defer func() { ended <- struct{}{} }()
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(said(addr, c.RemoteAddr())))
				c.Close()
			}
		}()
		s.t.Cleanup(func() { udp.Close(); tcp.Close(); <-ended; <-ended })
	})
}

func said(me string, from net.Addr) string {
	ap, _ := netip.ParseAddrPort(from.String())
	return me + " to " + ap.Addr().Unmap().String()
}

// ask gives what answers at an address and port, "" for nobody. A datagram may be lost while
// neighbours learn of each other: it is sent again, as resolvers do.
func (s *space) ask(network, at string) (answer string) {
	s.do(func() {
		for end := time.Now().Add(20 * time.Second); answer == "" && time.Now().Before(end); {
			c, err := net.DialTimeout(network, at, 10*time.Second)
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = c.Write([]byte("?"))
			buf := make([]byte, 512)
			if n, err := c.Read(buf); err == nil {
				answer = string(buf[:n])
			}
			c.Close()
		}
	})
	return answer
}

// lab is a container on two networks. Behind the default route of the first are 8.8.8.8
// and 2001:db8::8; the resolvers are on the second.
func lab(t *testing.T) (c *space) {
	t.Helper()
	c, first, second := newSpace(t), newSpace(t), newSpace(t)
	link := func(other *space, ifname, mine, mine6, theirs, theirs6 string) {
		pid := strings.Split(other.path, "/")
		c.sh(fmt.Sprintf("ip link add %s type veth peer name %s-p; ip link set %s-p netns %s name eth0", ifname, ifname, ifname, pid[4]))
		c.sh(fmt.Sprintf("ip addr add %s dev %s; ip addr add %s dev %s nodad; ip link set %s up", mine, ifname, mine6, ifname, ifname))
		other.sh(fmt.Sprintf("ip addr add %s dev eth0; ip addr add %s dev eth0 nodad; ip link set eth0 up", theirs, theirs6))
	}
	link(first, "eth0", "172.17.0.2/16", "fd17::2/64", "172.17.0.1/16", "fd17::1/64")
	link(second, "eth1", "10.32.0.5/12", "fd32::5/64", "10.32.0.1/12", "fd32::1/64")
	c.sh("ip route add default via 172.17.0.1; ip -6 route add default via fd17::1")
	first.sh("ip addr add 8.8.8.8/32 dev lo; ip addr add 2001:db8::8/128 dev lo nodad")
	for _, a := range []string{"8.8.8.8", "2001:db8::8"} {
		first.answer(a)
	}
	for _, a := range []string{"10.32.0.1", "fd32::1"} {
		second.answer(a)
	}
	c.answer("127.0.0.1")
	return c
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func (s *space) answers(what string, want map[string]string) {
	s.t.Helper()
	for at, who := range want {
		for _, network := range []string{"udp", "tcp"} {
			if got := s.ask(network, at); got != who {
				s.t.Errorf("%s: %s to %s: answered by %q, want %q", what, network, at, got, who)
			}
		}
	}
}

func TestQueriesGoToTheNetworksResolverWhoeverIsAsked(t *testing.T) {
	c := lab(t)
	ns := c.open()
	before := map[string]string{
		"8.8.8.8:53": "8.8.8.8 to 172.17.0.2", "[2001:db8::8]:53": "2001:db8::8 to fd17::2",
		"10.32.0.1:53": "10.32.0.1 to 10.32.0.5", "[fd32::1]:53": "fd32::1 to fd32::5", "127.0.0.1:53": "127.0.0.1 to 127.0.0.1",
	}
	c.answers("before", before)
	turned := map[string]string{
		"8.8.8.8:53": "10.32.0.1 to 10.32.0.5", "[2001:db8::8]:53": "fd32::1 to fd32::5",
		"10.32.0.1:53": "10.32.0.1 to 10.32.0.5", "[fd32::1]:53": "fd32::1 to fd32::5", "127.0.0.1:53": "127.0.0.1 to 127.0.0.1",
	}
	for range 2 {
		if err := Put(ns, "ab", addrs("10.32.0.1", "fd32::1")); err != nil {
			t.Fatal(err)
		}
		c.answers("turned", turned)
	}
	if err := Put(ns, "cd", addrs("172.17.0.1")); err != nil { // another network's, where nobody answers
		t.Fatal(err)
	}
	c.answers("the first counts", turned)
	for _, hash := range []string{"cd", "ab", "ab"} {
		if err := Remove(ns, hash); err != nil {
			t.Fatal(err)
		}
	}
	c.answers("after", before)
	if out := c.sh("nft list tables"); out != "" {
		t.Errorf("left: %s", out)
	}
}

func TestAFamilyWithoutAServerIsLeftAlone(t *testing.T) {
	c := lab(t)
	if err := Put(c.open(), "ab", addrs("10.32.0.1")); err != nil {
		t.Fatal(err)
	}
	c.answers("of IPv4 only", map[string]string{"8.8.8.8:53": "10.32.0.1 to 10.32.0.5", "[2001:db8::8]:53": "2001:db8::8 to fd17::2"})
}

func TestOtherPortsAreLeftAlone(t *testing.T) {
	c := lab(t)
	if err := Put(c.open(), "ab", addrs("10.32.0.1", "fd32::1")); err != nil {
		t.Fatal(err)
	}
	if got := c.ask("tcp", "8.8.8.8:853"); got != "" {
		t.Errorf("port 853 is answered by %q", got)
	}
	if out := c.sh("nft list table inet weavedns_ab"); strings.Count(out, "dport 53") != 8 {
		t.Errorf("not for port 53 only:\n%s", out)
	}
}
