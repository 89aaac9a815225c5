package carrier

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// rtoMaxMS is the longest that TCP may wait before it sends a lost segment again,
// in milliseconds; the kernel's own bound is 120 s, and 1 s its least.
const rtoMaxMS = 1000

// tune makes TCP try again soon, so that a lossy path does not look like a dead
// one: a heartbeat that is lost is repeated several times within the 4 s. A
// kernel that lacks an option does without it.
func tune(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, rtoMaxMS)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_THIN_LINEAR_TIMEOUTS, 1)
	})
}
