package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	rcodeFailed = dns.RcodeServerFailure

	// maxReaders is how many goroutines read one UDP socket at most: one for each two
	// processors. Two readers on two processors share out the same packets in smaller
	// batches, which costs a fifth more of the processor for each answer.
	maxReaders = 4
	// udpBuffer is what each UDP socket asks the kernel for, in bytes, to receive
	// and to send. The kernel grants twice as much and charges some 800 bytes for a
	// small datagram: room for 5000. Its default of 208 KiB is full after 250:
	//   - received: one container's burst, before a reader has been woken, loses
	//     everybody's queries, and each resolver waits seconds before it asks again;
	//   - sent: the kernel holds up to 208 KiB of answers to an address that it cannot
	//     resolve for 3 s, and who writes to a full socket waits. A container that went,
	//     or made its address up, would hold the readers.
	udpBuffer = 2 << 20
	// errorPause keeps a socket that only fails from burning a processor.
	errorPause = 50 * time.Millisecond
)

// socketPair is the two sockets of one address. The server's lock guards all but the first three.
type socketPair struct {
	scope    atomic.Pointer[scope]
	fence    atomic.Pointer[fence]
	internal atomic.Bool // the network has no way out
	udp      *net.UDPConn
	tcp      *net.TCPListener
	stop     context.CancelFunc // of the connections
	err      error              // of the last attempt to open what is missing
}

func (p *socketPair) close() {
	if p.udp != nil {
		p.udp.Close()
	}
	if p.tcp != nil {
		p.tcp.Close()
		p.stop()
	}
}

// open binds what is not bound yet and starts its goroutines. s.mu is held.
func (s *Server) open(ctx context.Context, p *socketPair, a netip.Addr) error {
	at := netip.AddrPortFrom(a, s.port)
	if p.udp == nil {
		udp, err := listenUDP(ctx, at)
		if err != nil {
			return err
		}
		run := s.ctx
		p.udp = udp
		for range max(1, min(maxReaders, runtime.GOMAXPROCS(0)/2)) {
			s.work.Go(func() { s.serveUDP(run, p, udp) })
		}
	}
	if p.tcp == nil {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", at.String())
		if err != nil {
			return err
		}
		tcp := l.(*net.TCPListener)
		conns, stop := context.WithCancel(s.ctx)
		p.tcp, p.stop = tcp, stop
		s.work.Go(func() { s.accept(conns, p, tcp) })
	}
	return nil
}

func listenUDP(ctx context.Context, at netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			enlarge(int(fd), unix.SO_RCVBUF, unix.SO_RCVBUFFORCE)
			enlarge(int(fd), unix.SO_SNDBUF, unix.SO_SNDBUFFORCE)
		})
	}}
	c, err := lc.ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// enlarge sets a buffer to udpBuffer: whatever the host's limit, by the router's
// privilege, or else as far as that limit. A small buffer serves too, so that no
// failure counts; one that is larger already stays.
func enlarge(fd, buffer, force int) {
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, buffer); err == nil && n >= 2*udpBuffer {
		return
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, udpBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, buffer, udpBuffer)
	}
}

// serveUDP answers what has arrived, a batch at a time. What others have to answer
// leaves it, within the bounds of slots: a reader waits for no upstream.
func (s *Server) serveUDP(ctx context.Context, p *socketPair, c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // it is closed
	}
	for {
		b, n, err := receive(raw, &s.batches)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause(ctx)
			continue
		}
		for i := range n {
			q := &b.queries[i]
			*q = query{}
			answer, o := s.serveAt(p, b.sender(i).Addr(), b.out[i][:0], b.message(i), q, false)
			if o != forward && s.traces.on.Load() != nil {
				s.traces.of(b.sender(i)).note(b.sender(i), q, o)
			}
			if o == forward {
				answer = s.forwardUDP(ctx, c, b.sender(i), q, p.internal.Load(), b.out[i][:0])
			}
			if len(answer) > 0 {
				b.answer(i, answer)
			}
		}
		b.flush(raw)
		s.batches.Put(b)
	}
}

// forwardUDP answers a query for a name of others, or starts the search for the
// answer, within the bounds of slots, and returns nothing.
func (s *Server) forwardUDP(ctx context.Context, c *net.UDPConn, from netip.AddrPort, q *query, internal bool, out []byte) []byte {
	answer, e := s.atOnce(out, q, false, internal, from)
	if e == nil {
		return answer
	}
	search := func() {
		s.work.Go(func() {
			defer s.slots.give(from.Addr())
			_, _ = c.WriteToUDPAddrPort(s.atItsTurn(ctx, e), from)
		})
	}
	if !s.slots.take(from.Addr(), search) {
		return s.tooMany(out, q, from)
	}
	return nil
}

// forwardTCP is the same for a connection, whose answer it waits for.
func (s *Server) forwardTCP(ctx context.Context, from netip.AddrPort, q *query, internal bool, out []byte) []byte {
	answer, e := s.atOnce(out, q, true, internal, from)
	if e == nil {
		return answer
	}
	return s.inTurn(ctx, e)
}

// inTurn answers when it is the client's turn. That comes: whatever is under way ends in time.
func (s *Server) inTurn(ctx context.Context, e *errand) []byte {
	turn := make(chan struct{})
	if !s.slots.take(e.client.Addr(), func() { close(turn) }) {
		return s.tooMany(nil, &e.query, e.client)
	}
	<-turn
	defer s.slots.give(e.client.Addr())
	return s.atItsTurn(ctx, e)
}

func pause(ctx context.Context) {
	t := time.NewTimer(errorPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
