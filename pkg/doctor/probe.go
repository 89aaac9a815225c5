package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mostPaths  = 32                     // hosts that are tried
	answerIn   = 700 * time.Millisecond // of an echo, the second try included
	smallProbe = 100                    // bytes of the IP packet that must arrive in any case
)

// gatherPaths sends each other host an echo of full size that must not be cut, and a
// small one beside it.
func gatherPaths(ctx context.Context, s Snapshot) []Path {
	biggest := 0
	for _, n := range s.networks() {
		biggest = max(biggest, n.mtu)
	}
	var out []Path
	for host, a := range others(s.Router.Topology) {
		out = append(out, Path{Host: host, Addr: a, Size: biggest + overhead(a)})
	}
	slices.SortFunc(out, func(a, b Path) int { return strings.Compare(a.Host, b.Host) })
	out = out[:min(len(out), mostPaths)]
	if biggest == 0 {
		return nil
	}
	var together sync.WaitGroup
	for i := range out {
		together.Go(func() { out[i].probe(ctx) })
	}
	together.Wait()
	return out
}

// echo is a socket for one host.
type echo struct {
	fd    int
	id    uint16 // tells our echoes from those of others
	addr  netip.Addr
	reply byte // the type of an answer
}

func (p *Path) probe(ctx context.Context) {
	e, err := openEcho(p.Addr)
	if err != nil {
		p.Error = err.Error()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			p.Error = "only root may ping with packets of any size"
		}
		return
	}
	defer unix.Close(e.fd)
	end := time.Now().Add(answerIn)
	for try := range 2 {
		for seq, size := range []int{smallProbe, p.Size} {
			if err := e.send(uint16(seq), size); errors.Is(err, unix.EMSGSIZE) {
				p.Limit = e.mtu() // of our own device
			} else if err != nil {
				p.Error = err.Error()
			}
		}
		e.collect(ctx, p, end.Add(-answerIn/2*time.Duration(1-try)))
		if p.Small && p.Full {
			break
		}
	}
	if p.Full || p.Small {
		p.Error = ""
	}
	if mtu := e.mtu(); !p.Full && mtu > 0 && mtu < p.Size {
		p.Limit = mtu
	}
}

func openEcho(a netip.Addr) (echo, error) {
	if a.Is4() {
		return dialEcho(unix.AF_INET, unix.IPPROTO_ICMP, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, &unix.SockaddrInet4{Addr: a.As4()}, echo{addr: a, reply: 0})
	}
	return dialEcho(unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, &unix.SockaddrInet6{Addr: a.As16()}, echo{addr: a, reply: 129})
}

// dialEcho opens a raw socket whose packets are never cut, whatever the kernel has
// learnt of the path before.
func dialEcho(family, proto, level, option, never int, to unix.Sockaddr, e echo) (echo, error) {
	var err error
	if e.fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto); err != nil {
		return e, err
	}
	e.id = uint16(os.Getpid()) + uint16(e.fd)<<8
	err = unix.SetsockoptInt(e.fd, level, option, never)
	if err == nil {
		err = unix.Connect(e.fd, to)
	}
	if err != nil {
		unix.Close(e.fd)
	}
	return e, err
}

// mtu is what the kernel believes of the path.
func (e echo) mtu() int {
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if e.addr.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	n, err := unix.GetsockoptInt(e.fd, level, option)
	if err != nil {
		return 0
	}
	return n
}

// send sends one request; size is that of the IP packet.
func (e echo) send(seq uint16, size int) error {
	head := 20
	if e.addr.Is6() {
		head = 40
	}
	_, err := unix.Write(e.fd, request(e.addr.Is6(), e.id, seq, size-head))
	return err
}

// request is an echo request. The kernel writes the checksum of IPv6 by itself.
func request(six bool, id, seq uint16, size int) []byte {
	b := make([]byte, max(size, 8))
	b[0] = 8
	if six {
		b[0] = 128
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	if !six {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// collect takes answers until both have come, or it is time.
func (e echo) collect(ctx context.Context, p *Path, end time.Time) {
	buf := make([]byte, 64<<10)
	for !(p.Small && p.Full) && ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			return
		}
		poll := []unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, int(min(left, 50*time.Millisecond)/time.Millisecond)+1); n == 0 || err != nil {
			continue
		}
		n, _, err := unix.Recvfrom(e.fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			continue // a report of a packet that was too big, say: mtu tells
		}
		switch seq, ours := e.answer(buf[:n]); {
		case ours && seq == 0:
			p.Small = true
		case ours && seq == 1:
			p.Full = true
		}
	}
}

// answer reads what came: with IPv4 its header is before it.
func (e echo) answer(b []byte) (seq uint16, ours bool) {
	if e.addr.Is4() {
		if len(b) < 20 || len(b) < int(b[0]&15)*4 {
			return 0, false
		}
		b = b[int(b[0]&15)*4:]
	}
	if len(b) < 8 || b[0] != e.reply || binary.BigEndian.Uint16(b[4:]) != e.id {
		return 0, false
	}
	return binary.BigEndian.Uint16(b[6:]), true
}
