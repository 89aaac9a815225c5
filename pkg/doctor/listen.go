package doctor

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// listener is a TCP socket that somebody listens at.
type listener struct {
	at    netip.AddrPort
	inode string
}

var errNotTold = errors.New("the kernel does not tell which sockets listen")

const tcpListen = 10 // a state of TCP, see tcp_states.h

// listeners asks the kernel for the TCP sockets of a family that listen. Its tables in /proc
// have all connections, for which it looks through a hash of hundreds of thousands of places.
func listeners(family uint8) ([]listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	patience := unix.NsecToTimeval(answersIn.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return nil, err
	}
	if err := unix.Sendto(fd, diagRequest(family), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []listener
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				if len(m.Data) >= 4 && int32(binary.NativeEndian.Uint32(m.Data)) < 0 {
					return nil, errNotTold // begun, and not done
				}
				return out, nil
			case unix.NLMSG_ERROR:
				return nil, errNotTold
			}
			if l, ok := parseListener(m.Data); ok {
				out = append(out, l)
			}
		}
	}
}

// Sizes of struct inet_diag_req_v2 and inet_diag_msg, and where fields of the latter are.
const (
	diagRequestSize = 56
	diagPort        = 4
	diagAddress     = 8
	diagInode       = 68
	diagSize        = 72
)

// diagRequest is for a dump of the listening TCP sockets of a family.
func diagRequest(family uint8) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+diagRequestSize)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<tcpListen)
	return b
}

// parseListener reads one answer: family, state, ports and addresses, the inode last.
func parseListener(b []byte) (listener, bool) {
	if len(b) < diagSize || b[1] != tcpListen {
		return listener{}, false
	}
	size := 4
	if b[0] == unix.AF_INET6 {
		size = 16
	}
	a, _ := netip.AddrFromSlice(b[diagAddress : diagAddress+size])
	return listener{
		at:    netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(b[diagPort:])),
		inode: strconv.FormatUint(uint64(binary.NativeEndian.Uint32(b[diagInode:])), 10),
	}, true
}
