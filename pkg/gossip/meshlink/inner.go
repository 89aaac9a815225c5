package meshlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// loops makes mesh's end of each session's stream, on loopback: for a peer that
// called us it calls mesh; for one that we called it opens an alias, an address
// of 127.64.0.0/10 that stands for that one session, and has mesh call it. An
// alias of its own spares a new session the back-off that mesh keeps for an
// address whose last connection broke.
type loops struct {
	port uint16 // mesh's on 127.0.0.1, and of every alias
	// call and forget tell mesh to dial an alias once, and to leave it.
	call, forget func(target string)

	mu   sync.Mutex
	next uint32
}

const (
	firstAlias = 127<<24 | 64<<16 | 1
	aliases    = 1<<22 - 2 // addresses of 127.64.0.0/10 but the first and the last
)

var meshHost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Open is carrier.Inner.
func (l *loops) Open(ctx context.Context, peer gossip.Peer, dialled bool) (net.Conn, error) {
	if dialled {
		return l.called(ctx, peer)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp4", netip.AddrPortFrom(meshHost, l.port).String())
	if err != nil {
		return nil, fmt.Errorf("reach mesh on loopback: %w", err)
	}
	return conn, nil
}

// called waits at a fresh alias for mesh's call.
func (l *loops) called(ctx context.Context, peer gossip.Peer) (net.Conn, error) {
	ln, err := l.listen(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a loopback alias for %s: %w", peer, err)
	}
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	alias := ln.Addr().String()
	l.call(alias)
	conn, err := ln.Accept()
	if err != nil {
		l.forget(alias)
		return nil, fmt.Errorf("mesh did not call the alias of %s: %w", peer, errors.Join(ctx.Err(), err))
	}
	return &aliasConn{TCPConn: conn.(*net.TCPConn), leave: sync.OnceFunc(func() { l.forget(alias) })}, nil
}

// listen takes the next alias that is free.
func (l *loops) listen(ctx context.Context) (net.Listener, error) {
	const tries = 8
	var lc net.ListenConfig
	for try := 1; ; try++ {
		ln, err := lc.Listen(ctx, "tcp4", netip.AddrPortFrom(l.alias(), l.port).String())
		if err == nil || try == tries {
			return ln, err
		}
	}
}

func (l *loops) alias() netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint32(firstAlias) + l.next%aliases
	l.next++
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// aliasConn has mesh forget the alias when the session ends, so that it does not
// call a dead one again and again.
type aliasConn struct {
	*net.TCPConn
	leave func()
}

func (c *aliasConn) Close() error {
	defer c.leave()
	return c.TCPConn.Close()
}
