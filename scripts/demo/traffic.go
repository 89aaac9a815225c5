package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	rate     = 1000      // datagrams a second, all flows together
	least    = rate / 10 // on a machine so busy that fewer can be sent, no loss says nothing
	echoPort = 7000
	behind   = 100 * time.Millisecond // what a sender catches up with when a busy machine kept it from sending
	late     = 2 * time.Second        // an answer that takes longer is a lost one
	buffer   = 4 << 20                // bytes that wait in a socket, when this program is kept from reading
)

// flow is numbered datagrams from one container to another, which sends each
// back. It is one goroutine each for sending, sending back and receiving.
type flow struct {
	from, to       *container
	client, server *net.UDPConn
	gap            time.Duration // between two datagrams
	quit           chan struct{} // closed: send no more
	sender, others sync.WaitGroup

	mu       sync.Mutex
	answered []bool // of each datagram, by its number
	phases   []int  // the number of the first datagram of each phase
}

// flows are all flows, counted together.
type flows struct {
	all    []*flow
	phases []phase
	done   bool
}

// phase is a span of time whose datagrams are counted for themselves.
type phase struct {
	name  string
	start time.Time
}

// startFlows sends from the first container of each host to the second of the next.
func (d *demo) startFlows() (*flows, error) {
	f := &flows{}
	for i := 0; i < len(d.containers); i += 2 {
		one, err := newFlow(d.containers[i], d.containers[(i+3)%len(d.containers)])
		if err != nil {
			f.close()
			return nil, err
		}
		f.all = append(f.all, one)
	}
	f.phase("alive")
	for _, one := range f.all {
		one.gap = time.Second * time.Duration(len(f.all)) / rate
		one.start()
	}
	return f, nil
}

func newFlow(from, to *container) (*flow, error) {
	f := &flow{from: from, to: to, quit: make(chan struct{})}
	at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.addr.Addr(), echoPort))
	err := to.Do(func() (err error) {
		f.server, err = net.ListenUDP("udp", at)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = from.Do(func() (err error) {
		f.client, err = net.DialUDP("udp", nil, at)
		return err
	})
	if err != nil {
		f.server.Close()
		return nil, err
	}
	if err := errors.Join(enlarge(f.client), enlarge(f.server)); err != nil {
		f.client.Close()
		f.server.Close()
		return nil, err
	}
	return f, nil
}

// enlarge gives a socket a large receive buffer, so that what is counted as
// lost is what the network lost, and not what a busy machine had no time to read.
func enlarge(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var forced error
	err = raw.Control(func(fd uintptr) {
		forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	})
	if err == nil && forced != nil {
		err = c.SetReadBuffer(buffer) // up to the machine's limit: all that is left without its root
	}
	return err
}

func (f *flow) start() {
	f.sender.Go(f.send)
	f.others.Go(f.sendBack)
	f.others.Go(f.receive)
}

// send sends one datagram after each gap on average.
func (f *flow) send() {
	tick := time.NewTicker(f.gap)
	defer tick.Stop()
	for due := time.Now(); ; {
		select {
		case <-f.quit:
			return
		case <-tick.C:
		}
		now := time.Now()
		if oldest := now.Add(-behind); due.Before(oldest) {
			due = oldest
		}
		for ; due.Before(now); due = due.Add(f.gap) {
			_, _ = f.client.Write(f.next()) // what cannot be sent is not answered and counts as lost
		}
	}
}

// next is a datagram with the next number.
func (f *flow) next() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answered = append(f.answered, false)
	return binary.BigEndian.AppendUint64(nil, uint64(len(f.answered)-1))
}

func (f *flow) sendBack() {
	buf := make([]byte, 64)
	for {
		n, from, err := f.server.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			_, _ = f.server.WriteToUDPAddrPort(buf[:n], from) // as in send
		}
	}
}

func (f *flow) receive() {
	buf := make([]byte, 64)
	for {
		n, err := f.client.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == 8 { // other errors are what ICMP reports of a datagram before
			f.got(binary.BigEndian.Uint64(buf))
		}
	}
}

func (f *flow) got(number uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if number < uint64(len(f.answered)) {
		f.answered[number] = true
	}
}

// count counts the datagrams of a phase.
func (f *flow) count(phase int) (sent, answered int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := len(f.answered)
	if phase+1 < len(f.phases) {
		end = f.phases[phase+1]
	}
	for _, yes := range f.answered[f.phases[phase]:end] {
		if yes {
			answered++
		}
	}
	return end - f.phases[phase], answered
}

// phase ends the phase before and begins another.
func (f *flows) phase(name string) {
	f.phases = append(f.phases, phase{name, time.Now()})
	for _, one := range f.all {
		one.mu.Lock()
		one.phases = append(one.phases, len(one.answered))
		one.mu.Unlock()
	}
}

// names says who sends to whom.
func (f *flows) names() string {
	var s []string
	for _, one := range f.all {
		s = append(s, one.from.Name()+" → "+one.to.Name())
	}
	return strings.Join(s, ", ")
}

// loss is what the flows did in one phase.
type loss struct {
	phase          string
	took           time.Duration
	sent, answered int
}

func (l loss) lost() int { return l.sent - l.answered }

// stop ends the flows, waits for what is under way and returns the count of each phase.
func (f *flows) stop(ctx context.Context) losses {
	end := time.Now()
	f.quit()
	_ = wait(ctx, late, "all is answered", func() error { // what is not is counted
		for _, l := range f.count(end) {
			if l.lost() > 0 {
				return errLost
			}
		}
		return nil
	})
	f.close()
	return f.count(end)
}

func (f *flows) count(end time.Time) (all losses) {
	for i, p := range f.phases {
		l := loss{phase: p.name, took: end.Sub(p.start)}
		if i+1 < len(f.phases) {
			l.took = f.phases[i+1].start.Sub(p.start)
		}
		for _, one := range f.all {
			sent, answered := one.count(i)
			l.sent, l.answered = l.sent+sent, l.answered+answered
		}
		all = append(all, l)
	}
	return all
}

// quit ends the sending.
func (f *flows) quit() {
	if f.done {
		return
	}
	f.done = true
	for _, one := range f.all {
		close(one.quit)
	}
	for _, one := range f.all {
		one.sender.Wait()
	}
}

// close ends the flows; it may be called again.
func (f *flows) close() {
	f.quit()
	for _, one := range f.all {
		one.client.Close()
		one.server.Close()
		one.others.Wait()
	}
}
