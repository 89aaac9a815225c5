package carrier

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Times of a session. A stuck inner stream is given longer than a stuck peer: it
// may itself wait for a peer that is about to be dropped.
const (
	beatEvery   = time.Second
	silence     = 4 * time.Second // without a frame: the peer is dead
	stall       = 4 * time.Second // for one write to the peer
	innerStall  = 9 * time.Second // for one write to the inner stream
	innerWithin = 5 * time.Second // to open the inner stream
)

// session is one connection with a peer that both sides have agreed to.
type session struct {
	hello   Hello        // the first one; its identity never changes
	told    Hello        // what we said first
	latest  atomic.Value // Hello, with what the peer has said since
	conn    *tls.Conn
	raw     net.Conn
	dialled bool           // by us
	addr    netip.AddrPort // of the peer
	seq     uint64         // the number of the decision for it
	since   time.Time
	heard   atomic.Int64 // when a frame last came, in nanoseconds from since

	hooks hooks
	again chan struct{} // cap 1: tell the peer our Hello once more

	wmu sync.Mutex // one frame at a time

	mu     sync.Mutex
	inner  net.Conn
	giveUp func()        // stops the opening of inner; nil before
	reason error         // why it closed
	closed chan struct{} // closed when reason is set
	ended  chan struct{} // closed when run has returned
}

// hooks are what a session asks its carrier.
type hooks struct {
	open   func(context.Context) (net.Conn, error) // the inner stream
	hello  func() []byte                           // our Hello now, encoded
	rehear func([]byte) (Hello, error)             // reads a Hello that the peer sends again, and judges it
	stats  *Stats
}

func newSession(h Hello, conn *tls.Conn, dialled bool, addr netip.AddrPort) *session {
	s := &session{
		hello: h, conn: conn, raw: conn.NetConn(), dialled: dialled, addr: addr, since: time.Now(),
		again: make(chan struct{}, 1), closed: make(chan struct{}), ended: make(chan struct{}),
	}
	s.latest.Store(h)
	return s
}

// close ends the session at once, from any goroutine; the first reason stays.
func (s *session) close(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != nil {
		return
	}
	s.reason = reason
	close(s.closed)
	s.raw.Close()
	if s.giveUp != nil {
		s.giveUp()
	}
	s.shutInner()
}

// quiet is how long the peer has said nothing: more than a beat, and it may be gone.
func (s *session) quiet() time.Duration { return time.Since(s.since) - time.Duration(s.heard.Load()) }

// isClosed reports whether close was called.
func (s *session) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// abandon ends a session that has never run.
func (s *session) abandon(reason error) {
	s.close(reason)
	close(s.ended)
}

// shutInner resets the inner stream, so that a write which waits in it fails too.
func (s *session) shutInner() {
	if s.inner == nil {
		return
	}
	if t, ok := s.inner.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	s.inner.Close()
}

// bye tells the peer why and closes. It waits for nobody: a session that is in
// the middle of a write is closed without words.
func (s *session) bye(reason error) {
	if s.wmu.TryLock() {
		s.raw.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		s.conn.Write(frame(kindBye, []byte(plain(reason.Error()))))
		s.wmu.Unlock()
	}
	s.close(reason)
}

// run carries the session until it closes or ctx ends, and returns why it ended.
func (s *session) run(ctx context.Context) error {
	defer close(s.ended)
	stop := context.AfterFunc(ctx, func() { s.bye(errStopping) })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(s.beat)
	inner, err := s.openInner(ctx)
	if err != nil {
		s.bye(fmt.Errorf("open the inner stream: %w", err))
		return s.why()
	}
	wg.Go(func() { s.close(s.outward(inner)) })
	s.close(s.inward(inner))
	return s.why()
}

var errStopping = errors.New("the router stops")

func (s *session) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

func (s *session) openInner(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, innerWithin)
	defer cancel()
	s.mu.Lock()
	s.giveUp = cancel
	if s.reason != nil {
		cancel()
	}
	s.mu.Unlock()
	inner, err := s.hooks.open(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inner = inner
	if s.reason != nil {
		s.shutInner()
	}
	return inner, nil
}

// tellAgain has the peer told our Hello as it is now.
func (s *session) tellAgain() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// beat lets the peer hear from us every second, and tells it a new Hello.
func (s *session) beat() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	beat := frame(kindBeat, nil)
	for {
		b := beat
		select {
		case <-s.closed:
			return
		case <-tick.C:
		case <-s.again:
			b = frame(kindHello, s.hooks.hello())
		}
		if err := s.write(b); err != nil {
			s.close(err)
			return
		}
	}
}

// write sends one frame. A peer that takes nothing for stall is given up.
func (s *session) write(b []byte) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.raw.SetWriteDeadline(time.Now().Add(stall))
	_, err := s.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the peer has taken nothing for %v", stall)
	}
	return err
}

// outward carries the inner stream to the peer.
func (s *session) outward(inner net.Conn) error {
	buf := make([]byte, headerLen+maxBody)
	for {
		n, err := inner.Read(buf[headerLen:])
		if n > 0 {
			putHeader(buf, kindData, n)
			if err := s.write(buf[:headerLen+n]); err != nil {
				return err
			}
			s.hooks.stats.BytesSent.Add(uint64(n))
		}
		if err != nil {
			return fmt.Errorf("inner stream: %w", err)
		}
	}
}

// inward carries what the peer sends to the inner stream.
func (s *session) inward(inner net.Conn) error {
	buf := make([]byte, maxBody)
	for {
		s.raw.SetReadDeadline(time.Now().Add(silence))
		k, body, err := readFrame(s.conn, buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("nothing heard for %v", silence)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return errors.New("the peer closed the connection without a word")
		}
		if err != nil {
			return err
		}
		s.heard.Store(int64(time.Since(s.since)))
		if err := s.take(inner, k, body); err != nil {
			return err
		}
	}
}

// take acts on one frame from the peer.
func (s *session) take(inner net.Conn, k kind, body []byte) error {
	switch k {
	case kindData:
		s.hooks.stats.BytesReceived.Add(uint64(len(body)))
		inner.SetWriteDeadline(time.Now().Add(innerStall))
		if _, err := inner.Write(body); err != nil {
			return fmt.Errorf("inner stream: %w", err)
		}
	case kindHello:
		h, err := s.hooks.rehear(body)
		if err != nil {
			s.bye(err)
			return err
		}
		s.latest.Store(h)
	case kindBye:
		return fmt.Errorf("the peer closes: %s", plain(string(body)))
	case kindVerdict:
		return errors.New("verdict out of turn")
	}
	return nil
}
