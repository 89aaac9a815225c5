package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// spent is the CPU time that the contender has used so far: of all programs that
// were started and have ended, and of its router. What the kernel does later,
// on nobody's account, is not in it.
func (c *contender) spent() (sum time.Duration) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err == nil {
		sum = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	r := c.host.Router()
	if r == nil {
		return sum
	}
	// In /proc/PID/stat it would be in hundredths of a second.
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", r.PID()))
	for _, path := range threads {
		var ns time.Duration
		if b, err := os.ReadFile(path); err == nil {
			_, _ = fmt.Sscan(string(b), &ns) // a thread that has just ended
		}
		sum += ns
	}
	return sum
}
