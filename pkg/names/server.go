package names

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Config is what a server needs. Table and Log are required.
type Config struct {
	Domain    string          // of the cluster, such as "weave.local"
	Table     *Table          // what is answered from; the caller fills it
	Upstreams func() []string // host:port of the resolvers for all other names, asked for at each such query (see ResolvConf); nil: none
	Port      uint16          // 0: 53
	Log       *slog.Logger

	// UpstreamsOf are a client's own resolvers, which are asked for it in place of
	// Upstreams; none, or nil: it has none. It is called at each query for others' names.
	UpstreamsOf func(client netip.Addr) []string

	// StopRebind has addresses that are inside taken out of others' answers, but for names
	// in the domains RebindOK, which are as ValidName has them.
	StopRebind bool
	RebindOK   []string
}

// Listener is one address to serve, of one network.
type Listener struct {
	Network string
	Addr    netip.Addr // of the network's bridge on this host

	// Subnets are the network's. Their reverse zones are answered here only, on
	// the addresses of all networks.
	Subnets []netip.Prefix

	// Internal says that the network has no way out: names of others do not exist there.
	Internal bool
}

// retryEvery is how often an address that cannot be bound is tried again.
const retryEvery = time.Second

// Server answers DNS queries by UDP and TCP. Its methods may be called from any goroutine.
type Server struct {
	cfg       Config
	port      uint16
	resolver  resolver
	forwarder forwarder
	counters  counters
	answering durations // of ours
	recalling durations // of others, from the cache
	asking    durations // of others
	batches   sync.Pool // of *batch, lent to the readers of UDP sockets
	slots     slots
	cache     *cache
	flights   flights
	asked     upstreamCounts
	common    atomic.Pointer[upstreamSet] // of all who have none of their own
	tcp       tcpLimits
	traces    tracer
	rebind    rebindFilter
	zones     atomic.Pointer[[]netip.Prefix] // of all listeners
	own       atomic.Pointer[[]netip.Addr]   // of all listeners: never asked as upstreams

	mu      sync.Mutex
	ctx     context.Context // Run's; nil while it does not run
	want    map[netip.Addr]Listener
	all     *served // of want; another one at each Sync
	sockets map[netip.Addr]*socketPair
	work    sync.WaitGroup // every goroutine of the sockets
}

// New makes a server that serves nothing yet.
func New(c Config) *Server {
	s := &Server{
		cfg: c, port: cmp.Or(c.Port, 53), resolver: newResolver(c.Domain, c.Table), cache: newCache(),
		want: map[netip.Addr]Listener{}, sockets: map[netip.Addr]*socketPair{},
	}
	s.forwarder = forwarder{&net.Dialer{}, &s.asked}
	s.rebind.on, s.rebind.ok = c.StopRebind, c.RebindOK
	s.batches.New = newBatch
	s.zones.Store(&[]netip.Prefix{})
	s.own.Store(&[]netip.Addr{})
	return s
}

// Run serves until ctx ends. It returns when every socket is closed and every
// goroutine of the server has ended, with nil. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	s.match(ctx)
	s.mu.Unlock()
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			s.stop()
			return nil
		case <-retry.C:
			s.mu.Lock()
			s.match(ctx)
			s.mu.Unlock()
		}
	}
}

func (s *Server) stop() {
	s.mu.Lock()
	for _, p := range s.sockets {
		p.close()
	}
	clear(s.sockets)
	s.mu.Unlock()
	s.work.Wait()
}

// Sync serves exactly these addresses from now on, one listener each; of two with
// the same address the last counts. Sockets that fit are kept. Before Run it only
// takes note. The error tells what could not be bound; that is tried again each
// second, until the next Sync, and Stats shows it.
func (s *Server) Sync(ctx context.Context, ls []Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = map[netip.Addr]Listener{}
	var zones []netip.Prefix
	for _, l := range ls {
		l.Addr = l.Addr.Unmap()
		s.want[l.Addr] = l
		for _, p := range l.Subnets {
			zones = append(zones, p.Masked())
		}
	}
	own := slices.Collect(maps.Keys(s.want))
	slices.SortFunc(zones, netip.Prefix.Compare)
	zones = slices.Compact(zones)
	if was := s.zones.Swap(&zones); s.rebind.on && !slices.Equal(*was, zones) {
		s.cache.clear() // of addresses that are inside by now
	}
	s.own.Store(&own)
	s.all = newServed(s.want)
	s.common.Store(nil)
	if s.ctx == nil {
		return nil
	}
	return s.match(ctx)
}

// match opens and closes sockets until they are as wanted. s.mu is held.
func (s *Server) match(ctx context.Context) error {
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	for a, p := range s.sockets {
		if _, wanted := s.want[a]; !wanted {
			p.close()
			delete(s.sockets, a)
		}
	}
	var errs []error
	for a, l := range s.want {
		p := s.sockets[a]
		if p == nil {
			p = &socketPair{}
			s.sockets[a] = p
		}
		if f := p.fence.Load(); f == nil || f.served != s.all {
			p.scope.Store(&scope{l.Network, strings.ToLower(l.Network)})
			p.internal.Store(l.Internal)
			p.fence.Store(newFence(l, s.all))
		}
		before := p.err
		if p.err = s.open(ctx, p, a); p.err != nil {
			errs = append(errs, fmt.Errorf("serve names of network %q: %w", l.Network, p.err))
			if before == nil {
				s.cfg.Log.Warn("names: cannot serve an address; trying again each second", "network", l.Network, "addr", a, "err", p.err)
			}
		}
	}
	return errors.Join(errs...)
}

// serve answers a message, or gives the query that has to be put to others. A
// panic ends with the message.
func (s *Server) serve(dst, msg []byte, q *query, tcp bool, sc scope) (answer []byte, o outcome) {
	start := time.Now()
	q.begun = start
	o = panicked // until there is another
	defer func() {
		if o != forward && o != panicked {
			s.counters.count(o)
			s.answering.note(time.Since(start))
		}
	}()
	defer s.survive(msg)
	return s.resolver.handle(dst, msg, q, tcp, sc, *s.zones.Load())
}

// survive, deferred, ends a panic with the query that it is about.
func (s *Server) survive(query []byte) {
	if p := recover(); p != nil {
		s.counters.count(panicked)
		s.logPanic(p, query)
	}
}

func (s *Server) logPanic(p any, query []byte) {
	s.cfg.Log.Error("names: panic over a query", "panic", p, "query", fmt.Sprintf("%x", query[:min(len(query), 512)]))
}

// errand is a query that others have to answer: what to ask whom.
type errand struct {
	query
	client netip.AddrPort
	set    upstreamSet
	key    string
	tcp    bool
}

// atOnce answers a query for a name of others if nobody has to be asked; nil: e is
// what to ask. q's memory stays the caller's.
func (s *Server) atOnce(dst []byte, q *query, tcp, internal bool, client netip.AddrPort) (answer []byte, e *errand) {
	if internal {
		s.ended(client, q, withheld)
		if q.labels == 0 {
			return q.empty(dst, dns.RcodeSuccess, 0), nil // the root there is everywhere
		}
		return q.empty(dst, dns.RcodeNameError, 0), nil
	}
	defer s.survive(q.question)
	now := time.Now()
	set := s.upstreamsOf(client.Addr())
	var room [512]byte
	key := q.forwardKey(room[:0], set)
	if answer = s.cache.answer(dst, key, q, now); answer != nil {
		s.ended(client, q, cached)
		s.recalling.note(time.Since(now))
		return answer, nil
	}
	if s.flights.isOurs(key, stamp{q.id, client.Port()}) {
		s.ended(client, q, looped)
		return q.empty(dst, dns.RcodeRefused, 0), nil
	}
	if s.slots.full(client.Addr()) {
		return s.tooMany(dst, q, client), nil
	}
	e = &errand{query: *q, client: client, set: set, key: string(key), tcp: tcp}
	e.begun = now
	e.question = bytes.Clone(q.question)
	return nil, e
}

// tooMany tells a client that it asks for more than may even wait.
func (s *Server) tooMany(dst []byte, q *query, client netip.AddrPort) []byte {
	s.ended(client, q, busy)
	return q.empty(dst, rcodeFailed, 0)
}

// atItsTurn has others answer a query that may be under way now, unless it has waited too
// long for that.
func (s *Server) atItsTurn(ctx context.Context, e *errand) []byte {
	if time.Since(e.begun) > maxWait {
		return s.tooMany(nil, &e.query, e.client)
	}
	return s.forward(ctx, e)
}

// forward has others answer, within forwardBudget of when the query was read; the answer
// is never empty.
func (s *Server) forward(ctx context.Context, e *errand) (answer []byte) {
	defer func() {
		s.asking.note(time.Since(e.begun))
		if answer == nil {
			answer = e.empty(nil, rcodeFailed, 0)
		}
	}()
	defer s.survive(e.question)
	ctx, cancel := context.WithDeadline(ctx, e.begun.Add(forwardBudget))
	defer cancel()
	found, err := s.flights.do(ctx, e.key, func(ctx context.Context, sent func(stamp)) ([]byte, error) { return s.search(ctx, e, sent) })
	if err == nil && e.tcp && truncated(found) {
		err = errNotUsable // it does not fit into a datagram, and was not to be had by TCP
	}
	s.slots.found(e.client.Addr(), err == nil)
	if err != nil {
		o := failed
		if err == errPanicked {
			o = panicked
		}
		s.ended(e.client, &e.query, o)
		s.cfg.Log.Debug("names: nobody answered", "name", e.name, "type", e.qtype, "err", err)
		return nil
	}
	s.ended(e.client, &e.query, forward)
	return e.adopt(bytes.Clone(found))
}

// search puts the query to others, for all who wait for the answer, and keeps that.
func (s *Server) search(ctx context.Context, e *errand, sent func(stamp)) (answer []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.logPanic(p, e.question)
			answer, err = nil, errPanicked
		}
	}()
	answer, err = s.forwarder.exchange(ctx, &e.query, e.set.addrs, sent)
	if err == nil {
		answer, err = s.rebind.clean(&e.query, answer, *s.zones.Load())
	}
	if err == nil {
		s.cache.put([]byte(e.key), &e.query, answer, time.Now())
	}
	return answer, err
}

// Stats tells the state of the server now.
func (s *Server) Stats() Stats {
	st := Stats{Queries: make(map[string]uint64, outcomes), Own: s.answering.histogram(), Cached: s.recalling.histogram(), Forwarded: s.asking.histogram()}
	for o := range outcomes {
		st.Queries[o.String()] = s.counters[o].Load()
	}
	st.Names, st.Records = s.cfg.Table.size()
	st.Forwarding, st.Waiting = s.slots.stats()
	st.Cache, st.Upstreams = s.cache.stats(), s.asked.stats()
	st.Rebinds = s.rebind.blocked.Load()
	st.TCPConnections, st.TCPRefused, st.TCPEvicted = s.tcp.stats()
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, l := range s.want {
		ls := ListenerStats{Network: l.Network, Addr: a, Error: "not running"}
		if p := s.sockets[a]; p != nil {
			if ls.Error = ""; p.err != nil {
				ls.Error = p.err.Error()
			}
		}
		st.Listeners = append(st.Listeners, ls)
	}
	slices.SortFunc(st.Listeners, func(a, b ListenerStats) int { return a.Addr.Compare(b.Addr) })
	return st
}
