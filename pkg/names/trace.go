package names

import (
	"errors"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Bounds of what is noted of clients' queries.
const (
	traceQueries = 1024 // of one trace, the latest
	traceFor     = 10 * time.Second
	mostTraces   = 16
)

// ErrTooManyTraces says that as many are traced as may be at a time.
var ErrTooManyTraces = errors.New("the queries of 16 containers are noted already; that of one ends 10 s after it was last asked for")

// Traced is a query that was noted.
type Traced struct {
	At      time.Time
	Client  netip.Addr
	Name    string
	Type    string
	Outcome string
	Took    time.Duration
}

// tracer notes the queries of those clients that somebody asks for. Where nobody does, it
// costs a look at a pointer. The zero value is ready.
type tracer struct {
	on atomic.Pointer[map[netip.Addr]*trace] // nil: nobody asks

	mu     sync.Mutex
	traces map[string]*trace
}

// trace is what is noted of one container.
type trace struct {
	addrs []netip.Addr
	end   *time.Timer

	mu      sync.Mutex
	queries []Traced // a ring: the n-th query, from 1, is at n % traceQueries
	last    uint64
}

// Trace notes the queries that come from some addresses from now on, until 10 s have gone
// without another Trace of that id. It gives those that came after the one of a number, and
// the number of the last; missed counts those that are not kept any more.
func (s *Server) Trace(id string, addrs []netip.Addr, after uint64) (queries []Traced, last, missed uint64, err error) {
	t, err := s.traces.renew(id, addrs)
	if err != nil {
		return nil, 0, 0, err
	}
	queries, last, missed = t.since(after)
	return queries, last, missed, nil
}

func (t *tracer) renew(id string, addrs []netip.Addr) (*trace, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.traces[id]
	switch {
	case one != nil:
		one.end.Reset(traceFor)
	case len(t.traces) == mostTraces:
		return nil, ErrTooManyTraces
	default:
		one = &trace{queries: make([]Traced, traceQueries)}
		one.end = time.AfterFunc(traceFor, func() { t.stop(id, one) })
		if t.traces == nil {
			t.traces = map[string]*trace{}
		}
		t.traces[id] = one
	}
	one.addrs = addrs
	t.publish()
	return one, nil
}

func (t *tracer) stop(id string, one *trace) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.traces[id] == one {
		delete(t.traces, id)
		t.publish()
	}
}

// publish has the queries of the traces' addresses noted. t.mu is held.
func (t *tracer) publish() {
	by := map[netip.Addr]*trace{}
	for one := range maps.Values(t.traces) {
		for _, a := range one.addrs {
			by[a.Unmap()] = one
		}
	}
	if len(t.traces) == 0 {
		t.on.Store(nil)
		return
	}
	t.on.Store(&by)
}

// of is the trace of a client, nil where nobody asks for it.
func (t *tracer) of(client netip.AddrPort) *trace {
	on := t.on.Load()
	if on == nil {
		return nil
	}
	return (*on)[client.Addr().Unmap()]
}

// note notes a query with its outcome. A nil trace notes nothing.
func (t *trace) note(client netip.AddrPort, q *query, o outcome) {
	if t == nil || q.name == "" && q.labels == 0 && q.qtype == 0 {
		return // what could not be read has no name
	}
	typ := dns.Type(q.qtype).String()
	took := time.Since(q.begun)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.queries[t.last%traceQueries] = Traced{q.begun, client.Addr().Unmap(), q.name, typ, o.String(), took}
}

// ended counts a query for a name of others, and notes it where somebody asks for that.
func (s *Server) ended(client netip.AddrPort, q *query, o outcome) {
	s.counters.count(o)
	s.traces.of(client).note(client, q, o)
}

func (t *trace) since(after uint64) (queries []Traced, last, missed uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if after > t.last {
		after = 0 // of a trace before this one
	}
	first := after + 1
	if t.last >= traceQueries && first <= t.last-traceQueries {
		missed = t.last - traceQueries + 1 - first
		first += missed
	}
	for n := first; n <= t.last; n++ {
		queries = append(queries, t.queries[n%traceQueries])
	}
	return queries, t.last, missed
}
