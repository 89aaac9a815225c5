// Package carrier carries one byte stream between each pair of routers, over
// TLS 1.3 in which both sides have shown that they hold the cluster secret, and
// knows nothing of what the bytes mean: in production they are mesh's, in tests
// an echo's.
//
// It keeps what mesh does not: a stranger who connects costs little and learns
// nothing, a peer that is silent for 4 s is dropped, a lost one is dialled every
// second, and of two routers that may not talk both say why.
package carrier

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/identity"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// Bounds of what a connection may take before both sides have agreed to talk.
const (
	greetWithin = 5 * time.Second
	greetBytes  = 4 << 10 // read before TLS stands
)

// Inner is where a session's bytes come from and go to.
type Inner interface {
	// Open returns the near end of the stream with a peer, in 5 s or with an
	// error. dialled says that we called the peer, so that the two sides take
	// different parts. The carrier closes what it returns.
	Open(ctx context.Context, peer gossip.Peer, dialled bool) (net.Conn, error)
}

// Config says who we are and whom we talk to. All fields but Targets, Port and VXLAN
// are needed.
type Config struct {
	ID      *identity.Identity
	Listen  []netip.AddrPort
	Targets []string          // host[:port], to be resolved at each attempt
	Port    uint16            // of targets that name none; 0: DefaultPort
	Cluster func() string     // our cluster's id now, "" as long as it is not known
	VXLAN   uint16            // UDP port of our overlay, for our Hello; 0: we do not say
	Accept  func(Hello) error // its error goes to both sides' logs; called from many goroutines
	Inner   Inner
	Lost    func(gossip.Peer) // a session has ended and no other has taken its place; must not block
	Log     *slog.Logger
}

// Counter counts up. In JSON it is its number.
type Counter struct{ atomic.Uint64 }

// MarshalJSON is json.Marshaler.
func (c *Counter) MarshalJSON() ([]byte, error) { return strconv.AppendUint(nil, c.Load(), 10), nil }

// Stats counts what happened since the start.
type Stats struct {
	BytesSent, BytesReceived Counter
	Accepted                 Counter // connections at the listeners
	Shed                     Counter // of those: closed because others came
	Strangers                Counter // of those: did not get through TLS
	Refused                  Counter // greetings that we or the peer refused, with a reason that matters
	Sessions                 Counter // agreed to
	Dropped                  Counter // of those: ended
	DialFailures             Counter
}

// Carrier is all sessions of one router.
type Carrier struct {
	cfg     Config
	codec   wire.Codec
	server  *tls.Config
	stats   Stats
	door    door
	table   table
	book    *book
	tracked sync.WaitGroup // every goroutine below Run
	wake    chan struct{}  // cap 1: dial now
	turned  turnedAway
	calls   refusedCalls
	bound   chan struct{} // closed when Run listens
}

// New checks cfg; nothing runs and nothing is bound before Run.
func New(cfg Config) (*Carrier, error) {
	server, err := cfg.ID.TLSServer()
	if err != nil {
		return nil, err
	}
	server.GetConfigForClient = noteKnock(server.GetConfigForClient)
	c := &Carrier{cfg: cfg, codec: wire.New(), server: server, wake: make(chan struct{}, 1), bound: make(chan struct{})}
	c.table.live = map[gossip.Peer]*session{}
	c.book = newBook(cfg.ID.Name(), cmp.Or(cfg.Port, DefaultPort))
	c.door.known = c.book.knows
	c.turned.log = cfg.Log
	for _, t := range cfg.Targets {
		if err := c.book.addTarget(t); err != nil {
			return nil, err
		}
	}
	return c, nil
}

var errOtherSecret = errors.New("it looks like a weave router with another cluster secret, or without one: compare the secret files of both hosts")

// noteKnock tells the door who has passed the check of the knock.
func noteKnock(check func(*tls.ClientHelloInfo) (*tls.Config, error)) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		conf, err := check(h)
		if m, ok := h.Conn.(*meter); ok && err == nil {
			m.knocked()
		}
		if err != nil && identity.LooksLikeKnock(h.SupportedProtos) {
			return nil, errOtherSecret
		}
		return conf, err
	}
}

// Run listens and dials until ctx ends, and returns when every connection is
// closed and every goroutine has ended. It fails at once if it cannot listen.
func (c *Carrier) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer c.tracked.Wait()
	defer stop()
	lc := net.ListenConfig{KeepAlive: -1, Control: tune}
	lns, err := c.listen(func(network, addr string) (net.Listener, error) { return lc.Listen(ctx, network, addr) })
	if err != nil {
		return err
	}
	close(c.bound)
	for _, ln := range lns {
		context.AfterFunc(ctx, func() { ln.Close() })
		c.tracked.Go(func() { c.serve(ctx, ln) })
	}
	c.dialLoop(ctx)
	return nil
}

// listen binds all addresses or none. The unspecified IPv6 address is passed over
// on a host without IPv6.
func (c *Carrier) listen(bind func(network, addr string) (net.Listener, error)) (lns []net.Listener, err error) {
	for _, a := range c.cfg.Listen {
		network := "tcp4"
		if a.Addr().Is6() && !a.Addr().Is4In6() {
			network = "tcp6"
		}
		ln, err := bind(network, a.String())
		if err != nil && network == "tcp6" && a.Addr().IsUnspecified() && errors.Is(err, syscall.EAFNOSUPPORT) {
			c.cfg.Log.Info("no gossip over IPv6: this host has none")
			continue
		}
		if err != nil {
			for _, ln := range lns {
				ln.Close()
			}
			return nil, fmt.Errorf("listen for peers: %w", err)
		}
		lns = append(lns, ln)
	}
	return lns, nil
}

// serve accepts until the listener is closed. An error that lasts (no file
// descriptors) is waited out, not spun on.
func (c *Carrier) serve(ctx context.Context, ln net.Listener) {
	const pause = 100 * time.Millisecond
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			c.turned.note(netip.AddrPort{}, fmt.Errorf("accept: %w", err))
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		c.stats.Accepted.Add(1)
		from := remoteAddr(conn)
		guest, shed := c.door.enter(from.Addr(), func() { conn.Close() })
		if shed {
			c.stats.Shed.Add(1)
		}
		c.tracked.Go(func() { c.inbound(ctx, conn, from, guest) })
	}
}

// inbound is the life of a connection that somebody made to us.
func (c *Carrier) inbound(ctx context.Context, raw net.Conn, from netip.AddrPort, guest *caller) {
	gate := &meter{Conn: raw, left: greetBytes, knocked: func() { c.door.knock(guest) }}
	s, err := c.greet(ctx, gate, tls.Server(gate, c.server), false, from)
	c.door.leave(guest)
	if err != nil {
		raw.Close()
		c.lament(from, err)
		return
	}
	c.carry(ctx, s)
}

// carry runs a session to its end.
func (c *Carrier) carry(ctx context.Context, s *session) {
	log := c.cfg.Log.With("peer", s.hello.Name, "address", s.addr)
	c.stats.Sessions.Add(1)
	c.calls.welcome(s.hello.Name, s.hello.MemberID, s.addr.Addr())
	log.Info("peer connected", "incarnation", s.hello.Incarnation)
	c.catchUp(s)
	err := s.run(ctx)
	c.table.remove(s)
	c.stats.Dropped.Add(1)
	c.book.lost(s, err)
	log.Info("peer disconnected", "reason", err)
	if c.table.get(s.hello.Name) == nil && !errors.Is(err, errSpare) {
		c.cfg.Lost(s.hello.Name)
	}
	c.dialSoon()
}

// catchUp does for a new session what Recheck may have done before it was in the
// table.
func (c *Carrier) catchUp(s *session) {
	if c.Self() == s.told {
		return
	}
	if err := c.cfg.Accept(s.hello); err != nil {
		s.bye(err)
	}
	s.tellAgain()
}

// lament counts and logs a connection to us that came to nothing.
func (c *Carrier) lament(from netip.AddrPort, err error) {
	var no *Refusal
	switch {
	case !errors.As(err, &no):
		c.stats.Strangers.Add(1)
		c.turned.note(from, err)
		if errors.Is(err, errOtherSecret) {
			c.calls.note(refusedCall{addr: from.Addr(), words: "we refuse it: " + err.Error()})
		}
	case !no.quiet():
		c.stats.Refused.Add(1)
		c.calls.note(refusedCall{name: no.Peer, member: no.Member, addr: from.Addr(), theirs: no.Remote, twin: no.Code == twin, words: plain(no.Error())})
		if c.book.newTrouble(from.Addr().String()+string(no.Peer), no.Words) {
			c.cfg.Log.Warn("no connection with a peer that called", "peer", no.Peer, "address", from, "reason", no)
		}
	}
}

// Recheck judges every live session anew, and tells every peer our Hello again,
// so that it does the same: call it when the cluster's id has become known or has
// changed. Peers that were refused are dialled again at once.
func (c *Carrier) Recheck() {
	for _, s := range c.table.all() {
		if err := c.cfg.Accept(s.latest.Load().(Hello)); err != nil {
			s.bye(err)
			continue
		}
		s.tellAgain()
	}
	c.book.forgive()
	c.dialSoon()
}

// Stats returns the counters; they go on counting.
func (c *Carrier) Stats() *Stats { return &c.stats }

// Self is our own Hello as it is now.
func (c *Carrier) Self() Hello {
	id := c.cfg.ID
	return Hello{Version, oldest, id.Name(), id.Incarnation(), id.MemberID(), c.cfg.Cluster(), c.cfg.VXLAN}
}

// meter fails a read beyond the bytes that are left, until it is opened.
type meter struct {
	net.Conn
	left    int
	opened  bool   // both are used by one goroutine until opened is set
	knocked func() // called when the other side has knocked
}

var errTooMuch = fmt.Errorf("more than %d bytes before it has shown who it is", greetBytes)

func (m *meter) Read(b []byte) (int, error) {
	if m.opened {
		return m.Conn.Read(b)
	}
	if m.left == 0 {
		return 0, errTooMuch
	}
	n, err := m.Conn.Read(b[:min(len(b), m.left)])
	m.left -= n
	return n, err
}

func remoteAddr(conn net.Conn) netip.AddrPort {
	if t, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		a := t.AddrPort()
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return netip.AddrPort{}
}

// turnedAway logs strangers in one line every few seconds, however many they are.
type turnedAway struct {
	log  *slog.Logger
	mu   sync.Mutex
	n    int
	next time.Time
}

const turnedAwayEvery = 10 * time.Second

func (t *turnedAway) note(from netip.AddrPort, err error) {
	t.mu.Lock()
	t.n++
	n, quiet := t.n, time.Now().Before(t.next)
	if !quiet {
		t.n, t.next = 0, time.Now().Add(turnedAwayEvery)
	}
	t.mu.Unlock()
	if !quiet {
		t.log.Info("turned connections away", "count", n, "last", from, "reason", plain(err.Error()))
	}
}
