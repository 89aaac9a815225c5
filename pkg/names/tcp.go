package names

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	tcpConns     = 64               // at a time, of all clients
	tcpPerClient = 8                // of them one client's
	tcpQueries   = 128              // on one connection
	tcpIdle      = 10 * time.Second // between queries
	tcpRead      = 3 * time.Second  // for a query once it has begun
	tcpWrite     = 3 * time.Second
)

// accept takes connections until its listener is closed.
func (s *Server) accept(ctx context.Context, p *socketPair, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			pause(ctx)
			continue
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		tc := s.tcp.take(c, from)
		if tc == nil {
			c.Close()
			continue
		}
		s.work.Go(func() {
			defer s.tcp.give(tc)
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			s.serveTCP(ctx, p, tc)
		})
	}
}

// serveTCP answers the queries of one connection, one after the other. Whatever
// goes wrong ends it.
func (s *Server) serveTCP(ctx context.Context, p *socketPair, c *tcpConn) {
	in := make([]byte, maxQuery)
	var out []byte
	for range tcpQueries {
		s.tcp.idle(c, true)
		msg, err := readTCP(c, in)
		if err != nil {
			return
		}
		s.tcp.idle(c, false)
		q := query{}
		answer, o := s.serveAt(p, c.from.Addr(), out, msg, &q, true)
		if o != forward {
			s.traces.of(c.from).note(c.from, &q, o)
		} else {
			answer = s.forwardTCP(ctx, c.from, &q, p.internal.Load(), out)
		}
		if answer == nil {
			return
		}
		_ = c.SetWriteDeadline(time.Now().Add(tcpWrite))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
		out = answer
	}
}

// readTCP reads one message: it may be long in coming, but not in arriving.
func readTCP(c net.Conn, buf []byte) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(tcpIdle))
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(tcpRead))
	if _, err := io.ReadFull(c, buf[1:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	if n > len(buf) {
		return nil, fmt.Errorf("query of %d bytes", n)
	}
	_, err := io.ReadFull(c, buf[:n])
	return buf[:n], err
}

// tcpConn is a connection. The lock of its tcpLimits guards since.
type tcpConn struct {
	net.Conn
	from  netip.AddrPort
	since time.Time // when it began to wait for a query to be whole; zero while one is answered
}

// tcpLimits bounds connections. Who comes when there are too many takes the place of
// one that waits for a query, or for the rest of one: a client that only keeps them
// open shuts nobody out. The zero value is ready.
type tcpLimits struct {
	mu      sync.Mutex
	open    map[*tcpConn]struct{}
	clients map[netip.Addr]int
	refused uint64
	evicted uint64
}

// take makes room for a connection; nil: there is none.
func (t *tcpLimits) take(c net.Conn, from netip.AddrPort) *tcpConn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients == nil {
		t.clients, t.open = map[netip.Addr]int{}, map[*tcpConn]struct{}{}
	}
	client := from.Addr()
	if t.clients[client] >= tcpPerClient || len(t.open) >= tcpConns && !t.evict(client) {
		t.refused++
		return nil
	}
	tc := &tcpConn{c, from, time.Now()}
	t.open[tc] = struct{}{}
	t.clients[client]++
	return tc
}

// evict closes the connection that has waited longest, of the client that has most:
// one that has more than the newcomer, or as many as that would have. t.mu is held.
func (t *tcpLimits) evict(newcomer netip.Addr) bool {
	var worst *tcpConn
	for c := range t.open {
		if c.since.IsZero() {
			continue
		}
		if worst != nil {
			a, b := t.clients[c.from.Addr()], t.clients[worst.from.Addr()]
			if a < b || a == b && !c.since.Before(worst.since) {
				continue
			}
		}
		worst = c
	}
	if worst == nil || t.clients[worst.from.Addr()] < t.clients[newcomer]+1 {
		return false
	}
	t.evicted++
	worst.Close()
	t.drop(worst)
	return true
}

func (t *tcpLimits) idle(c *tcpConn, idle bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.since = time.Time{}
	if idle {
		c.since = time.Now()
	}
}

func (t *tcpLimits) give(c *tcpConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(c)
}

// drop takes a connection out of the count, once. t.mu is held.
func (t *tcpLimits) drop(c *tcpConn) {
	if _, ok := t.open[c]; !ok {
		return
	}
	delete(t.open, c)
	client := c.from.Addr()
	if t.clients[client]--; t.clients[client] == 0 {
		delete(t.clients, client)
	}
}

func (t *tcpLimits) stats() (open int, refused, evicted uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open), t.refused, t.evicted
}
