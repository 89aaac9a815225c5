package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const trafficPort = 7000

// traffic is a flow of numbered datagrams, 1000 a second, between two containers.
type traffic struct {
	t        *testing.T
	from, to *net.UDPConn
	quit     chan struct{}

	sender, receiver sync.WaitGroup

	mu   sync.Mutex
	sent uint64
	seen map[uint64]bool
}

// startTraffic sends until stop is called.
func (c *cluster) startTraffic(from, to *container) *traffic {
	c.t.Helper()
	f := &traffic{t: c.t, quit: make(chan struct{}), seen: map[uint64]bool{}}
	dst := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.result.addr(), trafficPort))
	err := to.Do(func() (err error) {
		if f.to, err = net.ListenUDP("udp", dst); err == nil {
			err = enlarge(f.to)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	err = from.Do(func() (err error) {
		f.from, err = net.DialUDP("udp", nil, dst)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	f.sender.Go(f.send)
	f.receiver.Go(f.receive)
	return f
}

// enlarge makes room for the datagrams of some seconds, should we not come to read
// them; without the machine's root only as much as it allows.
func enlarge(c *net.UDPConn) error {
	const room = 8 << 20
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var forced error
	err = raw.Control(func(fd uintptr) {
		forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room)
	})
	if err == nil && forced != nil {
		err = c.SetReadBuffer(room)
	}
	return err
}

func (f *traffic) send() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-f.quit:
			return
		case <-tick.C:
		}
		f.mu.Lock()
		f.sent++
		n := f.sent
		f.mu.Unlock()
		_, _ = f.from.Write(binary.BigEndian.AppendUint64(nil, n)) // what is not sent counts as lost
	}
}

func (f *traffic) receive() {
	buf := make([]byte, 64)
	for {
		n, err := f.to.Read(buf)
		if err != nil {
			return // closed by stop
		}
		if n == 8 {
			f.mu.Lock()
			f.seen[binary.BigEndian.Uint64(buf)] = true
			f.mu.Unlock()
		}
	}
}

func (f *traffic) arrived() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

// stop ends the flow and returns how many datagrams were sent and how many of them were lost.
func (f *traffic) stop() (sent, lost int) {
	close(f.quit)
	f.sender.Wait()
	// What is under way arrives before there is nothing for so long, or is lost.
	last, quiet := f.arrived(), time.Now()
	for last < int(f.sent) && time.Since(quiet) < 5*time.Second {
		if n := f.arrived(); n != last {
			last, quiet = n, time.Now()
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.from.Close()
	f.to.Close()
	f.receiver.Wait()
	return int(f.sent), int(f.sent) - len(f.seen)
}

// downFor is how long routers stay dead under traffic: seconds in CI, a minute by hand.
func downFor() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("WEAVE_E2E_DOWN")); err == nil {
		return d
	}
	return 5 * time.Second
}
