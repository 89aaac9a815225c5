package names

import (
	"net/netip"
	"slices"
	"sync"
)

const (
	// maxInFlight bounds the queries that are being put to upstreams, of all clients.
	maxInFlight = 256
	// maxWaiting bounds those that wait for that, of all clients.
	maxWaiting = 1024
)

// slots shares the room for queries to upstreams. A client may have half of what it
// would have if it were alone with those who are using it now, so that a newcomer
// always finds room. What is more than that is held back until its turn comes, and
// the clients that wait take turns. The zero value is ready.
type slots struct {
	mu      sync.Mutex
	total   int // under way
	waiting int
	clients map[netip.Addr]*client // those that have anything under way or waiting
	turns   []*client              // those with something waiting, the next one first
}

type client struct {
	used  int
	queue []func()
}

// take has run called when a query of that client may be under way, now or later,
// perhaps by another goroutine, which it must not hold up. Each run wants a give.
// When there is no room even to wait, it is false and run is not called.
func (s *slots) take(addr netip.Addr, run func()) bool {
	s.mu.Lock()
	if s.clients == nil {
		s.clients = map[netip.Addr]*client{}
	}
	c := s.clients[addr]
	if c == nil {
		c = &client{}
	}
	switch {
	case len(c.queue) == 0 && s.fits(c):
		s.clients[addr] = c
		s.begin(c)
		s.mu.Unlock()
		run()
		return true
	case s.waiting >= maxWaiting || len(c.queue) >= s.share(c, maxWaiting):
		s.mu.Unlock()
		return false
	}
	s.clients[addr] = c
	if len(c.queue) == 0 {
		s.turns = append(s.turns, c)
	}
	c.queue = append(c.queue, run)
	s.waiting++
	s.mu.Unlock()
	return true
}

// share is what one client may have of so many places. s.mu is held.
func (s *slots) share(c *client, places int) int {
	others := len(s.clients)
	if c.used > 0 || len(c.queue) > 0 {
		others--
	}
	return max(1, places/(others+2))
}

func (s *slots) fits(c *client) bool {
	return s.total < maxInFlight && c.used < s.share(c, maxInFlight)
}

func (s *slots) begin(c *client) {
	s.total++
	c.used++
}

// give ends what take began, and has those run that fit now.
func (s *slots) give(addr netip.Addr) {
	s.mu.Lock()
	c := s.clients[addr]
	s.total--
	if c.used--; c.used == 0 && len(c.queue) == 0 {
		delete(s.clients, addr)
	}
	var runs []func()
	for run := s.next(); run != nil; run = s.next() {
		runs = append(runs, run)
	}
	s.mu.Unlock()
	for _, run := range runs {
		run()
	}
}

// next takes what may run now from the client whose turn it is; nil: nothing may. s.mu is held.
func (s *slots) next() func() {
	i := slices.IndexFunc(s.turns, s.fits)
	if i < 0 {
		return nil
	}
	c := s.turns[i]
	run := c.queue[0]
	c.queue[0] = nil
	c.queue = c.queue[1:]
	s.turns = slices.Delete(s.turns, i, i+1)
	if len(c.queue) > 0 {
		s.turns = append(s.turns, c)
	}
	s.waiting--
	s.begin(c)
	return run
}

func (s *slots) stats() (underWay, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total, s.waiting
}
