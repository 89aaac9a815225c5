package carrier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Times of dialling.
const (
	dialEvery    = 750 * time.Millisecond // and up to dialJitter more
	dialJitter   = 500 * time.Millisecond
	dialWithin   = 2 * time.Second // for TCP to stand
	dialStagger  = 200 * time.Millisecond
	lookUpWithin = 2 * time.Second
	maxDials     = 64 // at once
	pruneEvery   = 5 * time.Second
	lookUpIdle   = 10 * time.Second // a name all of whose peers are connected
)

// dialLoop calls whoever should be called and is not connected, about every
// second, until ctx ends.
func (c *Carrier) dialLoop(ctx context.Context) {
	d := &dialler{Carrier: c, busy: map[string]bool{}, found: map[string]found{}, slots: make(chan struct{}, maxDials)}
	for {
		d.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
			if !pause(ctx, rand.N(dialStagger)) {
				return
			}
		case <-time.After(dialEvery + rand.N(dialJitter)):
		}
	}
}

// dialSoon ends the pause of the dial loop.
func (c *Carrier) dialSoon() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// dialler is the state of the dial loop.
type dialler struct {
	*Carrier
	slots  chan struct{}
	pruned time.Time

	mu    sync.Mutex
	busy  map[string]bool // targets and peers that are being called
	found map[string]found
}

// found is what a target's name last led to.
type found struct {
	addrs []netip.AddrPort
	when  time.Time
}

// round starts a call for each target and each chosen peer that needs one.
func (d *dialler) round(ctx context.Context) {
	live := map[gossip.Peer]bool{}
	sessions := d.table.all()
	for _, s := range sessions {
		live[s.hello.Name] = true
	}
	chosen, sparse := d.book.plan(live)
	wanted := func(p gossip.Peer) bool {
		return p != d.cfg.ID.Name() && !live[p] && (chosen[p] || len(live) < fewSessions)
	}
	for _, t := range d.book.allTargets() {
		d.once(ctx, "target "+t, func() { d.callTarget(ctx, t, wanted) })
	}
	for p := range chosen {
		if wanted(p) {
			d.once(ctx, "peer "+string(p), func() { d.callPeer(ctx, p, wanted) })
		}
	}
	if sparse {
		d.prune(sessions, chosen)
	}
}

// once runs f in a goroutine unless one with the same key is running.
func (d *dialler) once(ctx context.Context, key string, f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy[key] || ctx.Err() != nil {
		return
	}
	d.busy[key] = true
	d.tracked.Go(func() {
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.busy, key)
		}()
		f()
	})
}

// prune closes one session that we once called and would not call today, now and
// then: after a cluster has outgrown the full mesh.
func (d *dialler) prune(sessions []*session, chosen map[gossip.Peer]bool) {
	if len(sessions) <= fewSessions || time.Since(d.pruned) < pruneEvery {
		return
	}
	for _, s := range sessions {
		if s.dialled && !chosen[s.hello.Name] && time.Since(s.since) > pruneEvery {
			d.pruned = time.Now()
			s.bye(errSpare)
			return
		}
	}
}

var errSpare = errors.New("the cluster is large and this connection is not needed")

// callTarget resolves a target anew and dials every address that it has. One
// whose peers are all connected is looked up less often.
func (d *dialler) callTarget(ctx context.Context, target string, wanted func(gossip.Peer) bool) {
	d.mu.Lock()
	last := d.found[target]
	d.mu.Unlock()
	if time.Since(last.when) < lookUpIdle && d.book.allIdle(asker{target: target}, last.addrs, wanted) {
		return
	}
	addrs, err := lookUp(ctx, target)
	if err != nil {
		d.trouble(target, target, err)
		return
	}
	d.mu.Lock()
	d.found[target] = found{addrs, time.Now()}
	d.mu.Unlock()
	d.dialAll(ctx, asker{target: target}, addrs, wanted)
	if d.book.called(target, addrs) {
		d.cfg.Log.Warn("every PEER leads to this host itself: name another host", "peers", d.book.allTargets())
	}
}

// callPeer dials a peer at the addresses that its record tells, one soon after
// the other.
func (d *dialler) callPeer(ctx context.Context, p gossip.Peer, wanted func(gossip.Peer) bool) {
	d.dialAll(ctx, asker{peer: p}, d.book.addresses(p), func(q gossip.Peer) bool { return wanted(q) && !d.livePeer(q) })
	if d.livePeer(p) {
		d.book.reachable(p)
	} else if ctx.Err() == nil {
		d.book.unreachable(p)
	}
}

func (d *dialler) dialAll(ctx context.Context, by asker, addrs []netip.AddrPort, wanted func(gossip.Peer) bool) {
	var wg sync.WaitGroup
	for i, a := range addrs {
		if i > 0 && !pause(ctx, dialStagger) {
			break
		}
		if d.book.claim(by, a, wanted) {
			wg.Go(func() { d.dial(ctx, a) })
		}
	}
	wg.Wait()
}

// dial makes one connection and, if both sides agree, starts its session.
func (d *dialler) dial(ctx context.Context, a netip.AddrPort) {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
	}
	s, err := d.connect(ctx, a)
	var no *Refusal
	switch {
	case err == nil:
		d.book.settle(a, s.hello.Name, nil, nil)
		d.book.over(a.String())
		d.tracked.Go(func() { d.carry(ctx, s) })
	case errors.As(err, &no):
		d.book.settle(a, no.Peer, err, no)
		if !no.quiet() {
			d.stats.Refused.Add(1)
			d.trouble(a.String(), a.String(), err)
		}
	default:
		d.stats.DialFailures.Add(1)
		d.book.settle(a, "", err, nil)
		if d.book.tryAgain(a, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)) {
			d.dialSoon()
			return
		}
		d.trouble(a.String(), a.String(), err)
	}
}

// connect is one attempt, from TCP to verdict.
func (d *dialler) connect(ctx context.Context, a netip.AddrPort) (*session, error) {
	conf, err := d.cfg.ID.TLSClient()
	if err != nil {
		return nil, err
	}
	nd := net.Dialer{Timeout: dialWithin, KeepAlive: -1, Control: tune}
	raw, err := nd.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, err
	}
	gate := &meter{Conn: raw, left: greetBytes, knocked: func() {}}
	s, err := d.greet(ctx, gate, tls.Client(gate, conf), true, a)
	if err != nil {
		raw.Close()
		return nil, inWords(err)
	}
	return s, nil
}

// trouble logs why somebody cannot be reached: once, and again when the reason
// changes or has lasted a minute.
func (d *dialler) trouble(key, where string, err error) {
	if errors.Is(err, context.Canceled) || !d.book.newTrouble(key, reason(err)) {
		return
	}
	d.cfg.Log.Warn("no connection with a peer", "address", where, "reason", err)
}

// reason is an error without what differs between two attempts (our own port).
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

// inWords says what an error of the TLS handshake means for an operator.
func inWords(err error) error {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return &secretError{"it does not hold our cluster's secret", false, err}
	case strings.Contains(err.Error(), "remote error: tls:"):
		return &secretError{"it turns us away: is the cluster secret the same on both hosts?", true, err}
	}
	return err
}

// secretError is the end of a TLS handshake between two secrets.
type secretError struct {
	words  string
	theirs bool // they noticed
	err    error
}

func (e *secretError) Error() string { return fmt.Sprintf("%s (%v)", e.words, e.err) }
func (e *secretError) Unwrap() error { return e.err }

// lookUp gives all addresses of a target, afresh.
func lookUp(ctx context.Context, target string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), uint16(n))}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpWithin)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	var out []netip.AddrPort
	for _, ip := range ips[:min(len(ips), maxAddrs)] {
		out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(n)))
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out), nil
}
