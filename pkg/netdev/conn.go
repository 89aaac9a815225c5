package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	answerBytes  = 8 << 10 // one answer, or several
	dumpBytes    = 32 << 10
	answerIn     = 10 * time.Second // the kernel answers at once; this only ends a wait that should not be
	batchSize    = 128              // messages a sendmsg: their errors fit the receive buffer
	dumpAttempts = 30
)

// conn is a route netlink socket. It stays in the namespace in which it was
// opened, whatever its user's thread does later. It is for one goroutine.
type conn struct {
	fd  int
	seq uint32
	buf []byte
}

// dial opens a socket in the namespace of the calling thread.
func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// Short answers, answers in words, and filters that are obeyed. A kernel
	// without one of them gives longer or poorer answers, which are understood too.
	for _, opt := range []int{unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1)
	}
	tv := unix.NsecToTimeval(answerIn.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bound netlink socket: %w", err)
	}
	return &conn{fd: fd}, nil
}

func (c *conn) close() { unix.Close(c.fd) }

// index finds a device by name without taking the kernel's link lock.
func (c *conn) index(name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("device name %q: %w", name, err)
	}
	switch err := unix.IoctlIfreq(c.fd, unix.SIOCGIFINDEX, ifr); {
	case errors.Is(err, unix.ENODEV):
		return 0, ErrNotFound
	case err != nil:
		return 0, fmt.Errorf("look up device %q: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

// name finds a device's name by its index, as index does; "" for a device that is gone.
func (c *conn) name(index int) string {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return ""
	}
	ifr.SetUint32(uint32(index))
	if unix.IoctlIfreq(c.fd, unix.SIOCGIFNAME, ifr) != nil {
		return ""
	}
	return ifr.Name()
}

// batch sends the messages in as few sendmsg calls as batchSize allows, one as a
// rule, and returns their errors in the same order. The kernel does not stop at
// an error: every message is tried.
func (c *conn) batch(ms ...*nl.NetlinkRequest) []error {
	errs := make([]error, 0, len(ms))
	for chunk := range slices.Chunk(ms, batchSize) {
		errs = append(errs, c.sendBatch(chunk)...)
	}
	return errs
}

func (c *conn) sendBatch(ms []*nl.NetlinkRequest) []error {
	errs := make([]error, len(ms))
	first := c.seq + 1
	var out []byte
	for i, m := range ms {
		c.seq++
		m.Seq = c.seq
		if i == len(ms)-1 {
			m.Flags |= unix.NLM_F_ACK // errors come unasked; only the end must be announced
		}
		out = append(out, m.Serialize()...) // attributes are padded, so messages stay aligned
	}
	err := c.send(out)
	for done := false; !done && err == nil; {
		err = c.receive(answerBytes, func(h unix.NlMsghdr, body []byte) {
			i := h.Seq - first // wraps far beyond len(ms) for an answer to somebody else
			if h.Type != unix.NLMSG_ERROR || i >= uint32(len(ms)) {
				return
			}
			errs[i] = answer(h, body)
			done = done || h.Seq == c.seq
		})
	}
	if err != nil {
		for i := range errs {
			errs[i] = errors.Join(errs[i], err)
		}
	}
	return errs
}

// get sends one request that has one answer, and returns the answer's body.
func (c *conn) get(m *nl.NetlinkRequest) ([]byte, error) {
	c.seq++
	m.Seq = c.seq
	m.Flags |= unix.NLM_F_ACK
	if err := c.send(m.Serialize()); err != nil {
		return nil, err
	}
	var reply []byte
	var refused error
	for done := false; !done; {
		err := c.receive(answerBytes, func(h unix.NlMsghdr, body []byte) {
			switch {
			case h.Seq != c.seq:
			case h.Type == unix.NLMSG_ERROR:
				refused, done = answer(h, body), true
			default:
				reply = slices.Clone(body)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if refused == nil && reply == nil {
		refused = errors.New("kernel sent no answer")
	}
	return reply, refused
}

// dump sends a dump request and gives every entry to f, all of them from one
// undisturbed pass: an interrupted pass is thrown away by reset and read again.
func (c *conn) dump(m *nl.NetlinkRequest, reset func(), f func(body []byte)) error {
	for range dumpAttempts {
		reset()
		err := c.dumpOnce(m, f)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return fmt.Errorf("%d times: %w", dumpAttempts, netlink.ErrDumpInterrupted)
}

func (c *conn) dumpOnce(m *nl.NetlinkRequest, f func(body []byte)) error {
	c.seq++
	m.Seq = c.seq
	m.Flags |= unix.NLM_F_DUMP
	if err := c.send(m.Serialize()); err != nil {
		return err
	}
	p := pass{seq: c.seq, entry: f}
	for !p.done {
		if err := c.receive(dumpBytes, p.take); err != nil {
			return err
		}
	}
	return p.verdict()
}

// pass is one reading of a dump, message by message.
type pass struct {
	seq   uint32
	entry func(body []byte)

	done, interrupted bool
	refused           error
}

func (p *pass) take(h unix.NlMsghdr, body []byte) {
	if h.Seq != p.seq {
		return
	}
	p.interrupted = p.interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
	switch h.Type {
	case unix.NLMSG_DONE, unix.NLMSG_ERROR:
		p.refused, p.done = answer(h, body), true
	default:
		p.entry(body)
	}
}

func (p *pass) verdict() error {
	if p.refused == nil && p.interrupted {
		return netlink.ErrDumpInterrupted
	}
	return p.refused
}

func (c *conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return wrap("send to kernel", err)
		}
	}
}

// receive reads one datagram and gives each message in it to f. A body is valid during the call only.
func (c *conn) receive(size int, f func(h unix.NlMsghdr, body []byte)) error {
	if len(c.buf) < size {
		c.buf = make([]byte, size)
	}
	n, from, err := unix.Recvfrom(c.fd, c.buf, 0)
	if err == unix.EINTR { // the receive timeout keeps the kernel from restarting the call
		return nil
	}
	if err != nil {
		return wrap("read kernel's answer", err)
	}
	if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
		return nil // not from the kernel
	}
	if !messages(c.buf[:n], f) {
		return errors.New("read kernel's answer: cut off")
	}
	return nil
}

// messages gives each message in a datagram to f, up to one that is cut off.
func messages(b []byte, f func(h unix.NlMsghdr, body []byte)) (whole bool) {
	for len(b) >= unix.SizeofNlMsghdr {
		h := unix.NlMsghdr{
			Len:   binary.NativeEndian.Uint32(b),
			Type:  binary.NativeEndian.Uint16(b[4:]),
			Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq:   binary.NativeEndian.Uint32(b[8:]),
		}
		if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
			return false
		}
		f(h, b[unix.SizeofNlMsghdr:h.Len])
		b = b[min(len(b), int(h.Len+3)&^3):]
	}
	return true
}

// answer reads the verdict in an NLMSG_ERROR or NLMSG_DONE: nil, or the errno
// with the kernel's own words where it has some.
func answer(h unix.NlMsghdr, body []byte) error {
	if len(body) < 4 {
		return nil // DONE of an old kernel
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	errno := unix.Errno(-code)
	skip := 4
	if h.Type == unix.NLMSG_ERROR {
		skip += unix.SizeofNlMsghdr // our header comes back
	}
	if h.Flags&unix.NLM_F_ACK_TLVS == 0 || len(body) < skip {
		return errno
	}
	for a := range attrs(body[skip:]) {
		if a.kind == unix.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w (%s)", errno, strings.TrimRight(string(a.data), "\x00"))
		}
	}
	return errno
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
