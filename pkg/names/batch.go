package names

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many datagrams one call of the kernel hands over, or takes. A
// call for each is most of what an answer of our own costs.
const batchSize = 32

// mmsghdr is the kernel's struct of that name. The compiler aligns it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received, or sent
}

// batch is datagrams that were received together, and their answers. Its memory
// points into itself: it is never copied.
type batch struct {
	queries [batchSize]query
	in      [batchSize][maxQuery + 1]byte
	out     [batchSize][maxUDP]byte
	from    [batchSize]unix.RawSockaddrInet6 // large enough for IPv4's too

	recv, send     [batchSize]mmsghdr
	recvIO, sendIO [batchSize]unix.Iovec
	answers        int // in send
}

func newBatch() any {
	b := new(batch)
	for i := range batchSize {
		b.recvIO[i].Base = &b.in[i][0]
		b.recvIO[i].SetLen(len(b.in[i]))
		h := &b.recv[i].hdr
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&b.from[i])), &b.recvIO[i]
		h.SetIovlen(1)
		b.send[i].hdr.Iov = &b.sendIO[i]
		b.send[i].hdr.Iovlen = h.Iovlen
	}
	return b
}

// receive reads what there is, at least one datagram, into a batch from the pool,
// which the caller gives back. It waits as long as it takes, and holds none meanwhile:
// most sockets are idle.
func receive(c syscall.RawConn, pool *sync.Pool) (b *batch, n int, err error) {
	waitErr := c.Read(func(fd uintptr) bool {
		b = pool.Get().(*batch)
		if n, err = b.receive(fd); err == unix.EAGAIN {
			pool.Put(b)
			return false
		}
		return true
	})
	if waitErr != nil {
		return nil, 0, waitErr // the socket is closed
	}
	if err != nil {
		pool.Put(b)
		return nil, 0, err
	}
	b.answers = 0
	return b, n, nil
}

func (b *batch) receive(fd uintptr) (int, error) {
	for i := range b.recv {
		b.recv[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	for {
		n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.recv)), batchSize, 0, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, e
	}
}

// message is the i-th datagram.
func (b *batch) message(i int) []byte { return b.in[i][:min(int(b.recv[i].n), len(b.in[i]))] }

// sender is where the i-th datagram came from.
func (b *batch) sender(i int) netip.AddrPort {
	if sa := &b.from[i]; sa.Family == unix.AF_INET6 {
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && a.IsLinkLocalUnicast() {
			a = a.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(a, port(&sa.Port))
	}
	sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&b.from[i]))
	return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))
}

// port reads what the kernel keeps in the network's order.
func port(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }

// answer has the i-th datagram answered by flush. The bytes must stay until then.
func (b *batch) answer(i int, msg []byte) {
	m := &b.send[b.answers]
	m.hdr.Name, m.hdr.Namelen = (*byte)(unsafe.Pointer(&b.from[i])), b.recv[i].hdr.Namelen
	m.hdr.Iov.Base = &msg[0]
	m.hdr.Iov.SetLen(len(msg))
	b.answers++
}

// flush sends the answers. One that cannot be sent, to a client that is gone, is
// passed over; that the socket is closed the next receive tells.
func (b *batch) flush(c syscall.RawConn) {
	for sent := 0; sent < b.answers; {
		var e syscall.Errno
		n := 0
		err := c.Write(func(fd uintptr) bool {
			var r uintptr
			r, _, e = unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.send[sent])), uintptr(b.answers-sent), 0, 0, 0)
			n = int(r)
			return e != unix.EAGAIN
		})
		switch {
		case err != nil:
			return
		case e == 0:
			sent += n
		case e != unix.EINTR:
			sent++
		}
	}
	for i := range b.answers {
		b.send[i].hdr.Iov.Base = nil // what was no memory of the batch's own is let go
	}
	b.answers = 0
}
