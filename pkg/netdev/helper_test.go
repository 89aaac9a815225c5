package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// space is a private network namespace: a host or a container of a test. It
// ends when the test does.
type space struct {
	*NS
	t testing.TB
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces and devices")
	}
}

func newSpace(t testing.TB) space {
	t.Helper()
	needRoot(t)
	type made struct {
		ns  *NS
		err error
	}
	ch := make(chan made)
	go onSpareThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ch <- made{nil, err}
			return
		}
		ns, err := OpenNS(selfNS)
		ch <- made{ns, err}
	})
	m := <-ch
	if m.err != nil {
		t.Fatalf("make a network namespace: %v", m.err)
	}
	t.Cleanup(m.ns.Close)
	return space{m.ns, t}
}

// onSpareThread runs f on a thread that ends with it. The process's first thread
// cannot end, and /proc shows its namespace as the process's, so it is left alone.
func onSpareThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onSpareThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

// in runs f in the namespace. f must not end the test by t.Fatal.
func (s space) in(f func() error) {
	s.t.Helper()
	if err := s.do(f); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a command in the namespace and gives its output.
func (s space) run(args ...string) (out string, err error) {
	err = s.do(func() error {
		b, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		out = string(b)
		return err
	})
	return out, err
}

// must is run for a command line that has to succeed.
func (s space) must(line string) string {
	s.t.Helper()
	out, err := s.run(strings.Fields(line)...)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

// reaches reports whether a ping gets there, trying for some seconds.
func (s space) reaches(to string) bool {
	out, err := s.run("ping", "-c", "1", "-W", "1", "-w", "30", to)
	if err != nil {
		s.t.Logf("ping %s: %s", to, out)
	}
	return err == nil
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func prefixes(s ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, x := range s {
		ps = append(ps, netip.MustParsePrefix(x))
	}
	return ps
}

// vethFor describes container number n of a network "weave" on bridge "weave".
func vethFor(n int, ns *NS, addrs ...string) Veth {
	k := attachment.Key{Network: "weave", ContainerID: fmt.Sprintf("c%d", n), IfName: "eth0"}
	ps := prefixes(addrs...)
	hw := net.HardwareAddr{2, 0x42, 10, 32, byte(n >> 8), byte(n)}
	alias, err := attachment.Alias{Hash: k.Hash(), Network: k.Network, MAC: hw, Addrs: ps}.Encode()
	if err != nil {
		panic(err)
	}
	return Veth{
		Host: k.Veth(), Bridge: "weave", MTU: 1450, Alias: alias,
		NS: ns, IfName: "eth0", MAC: hw, Addrs: ps, Lock: true,
	}
}

func hashOf(v Veth) string {
	a, err := attachment.ParseAlias(v.Alias)
	if err != nil {
		panic(err)
	}
	return a.Hash
}

func newBridge(t testing.TB, addrs ...string) space {
	t.Helper()
	h := newSpace(t)
	h.in(func() error {
		return EnsureBridge(Bridge{Name: "weave", MAC: net.HardwareAddr{2, 0x42, 10, 32, 0xff, 1}, MTU: 1450, Addrs: prefixes(addrs...)})
	})
	return h
}

// world is everything that a test could leave behind in a namespace, as text.
func (s space) world() string {
	return s.must("ip addr") + s.must("ip link") + s.must("bridge -d link") + s.must("ip route show table all") + s.must("bridge fdb")
}

// settled waits until a bridge with a port in it has come up altogether, and the
// kernel has nothing more to announce: what follows from the carrier happens in
// the kernel's own time.
func (s space) settled() {
	s.t.Helper()
	eventually(s.t, "bridge has an address", func() bool { return strings.Contains(s.must("ip addr show weave"), "inet6 fe80::") })
	// Of a machine with many changes the kernel looks at the carriers once a second.
	eventually(s.t, "the carrier of each port is known", func() bool { return !strings.Contains(s.must("ip link show master weave type veth"), "state UNKNOWN") })
	s.silent()
}

// silent waits until the kernel has nothing more to announce. Of an address of IPv6 that it
// was given it does so a moment later, also of one that it need not look for elsewhere.
func (s space) silent() {
	s.t.Helper()
	fd := s.listen()
	defer unix.Close(fd)
	eventually(s.t, "the kernel is silent for 200 ms", func() bool {
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200); n == 0 {
			return true
		}
		announcements(fd)
		return false
	})
}

// listen opens a socket that hears of every change of a link, an address, a
// route, a neighbour or a forwarding entry.
func (s space) listen() (fd int) {
	s.t.Helper()
	s.in(func() (err error) {
		if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE); err != nil {
			return err
		}
		groups := uint32(0)
		for _, g := range []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE} {
			groups |= 1 << (g - 1)
		}
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	})
	return fd
}

// announcements drains what a listener has heard.
func announcements(fd int) (all []string) {
	b := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			return all
		}
		for m := b[:n]; len(m) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(m))
			all = append(all, fmt.Sprintf("message of type %d: %x", binary.NativeEndian.Uint16(m[4:]), m[:min(size, len(m))]))
			m = m[min(len(m), (size+3)&^3):]
		}
	}
}

// quiet runs f in the namespace and fails when the kernel announced any change meanwhile.
func quiet(t testing.TB, s space, f func() error) {
	t.Helper()
	fd := s.listen()
	defer unix.Close(fd)
	s.in(f)
	for _, m := range announcements(fd) {
		t.Error(m)
	}
}

// sniffer counts the frames from one MAC that arrive at eth0 of a namespace.
type sniffer struct {
	fd   int
	from net.HardwareAddr
}

func (s space) sniff(from net.HardwareAddr) *sniffer {
	s.t.Helper()
	sn := &sniffer{from: from}
	s.in(func() error {
		var err error
		const all = 0x0300 // ETH_P_ALL in network order
		sn.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		return err
	})
	s.t.Cleanup(func() { unix.Close(sn.fd) })
	return sn
}

// count drains what has arrived so far.
func (s *sniffer) count() (n int) {
	b := make([]byte, 64)
	for {
		k, from, err := unix.Recvfrom(s.fd, b, 0)
		if err != nil {
			return n
		}
		in := from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING
		if in && k >= 12 && net.HardwareAddr(b[6:12]).String() == s.from.String() {
			n++
		}
	}
}

// joinByVeth makes a plain pair of interfaces, one here and one in another namespace.
func joinByVeth(here, there string, ns *NS) error {
	l := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: there, PeerNamespace: netlink.NsFd(ns.fd)}
	l.Name = here
	return netlink.LinkAdd(l)
}

// setGroup does what ip(8) cannot: a device group from the upper half.
func (s space) setGroup(name string, group uint32) {
	s.t.Helper()
	s.in(func() error {
		c, err := dial()
		if err != nil {
			return err
		}
		defer c.close()
		return errors.Join(c.batch(request(unix.RTM_NEWLINK, 0, info(0), nameAttr(unix.IFLA_IFNAME, name), u32Attr(unix.IFLA_GROUP, group)))...)
	})
}

func dup(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	return n
}

func macOf(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}
