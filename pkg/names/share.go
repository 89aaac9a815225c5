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
	// maxWait is how long one of them may have waited when its turn comes. For others
	// nobody is asked: what is left of their time is too little for an answer. Where
	// upstreams are silent that is all of them, at one time: to begin as many searches
	// would keep names of ours waiting.
	maxWait = forwardBudget / 2
	// vainShare is which part of all places, one in so many, a client keeps that asks in vain.
	vainShare = 32
	// maxVain bounds the clients that are remembered for that while they ask nothing.
	maxVain = 1024
)

// slots shares the room for queries to upstreams. A client may have half of what it
// would have if it were alone with those who are using it now, so that a newcomer
// always finds room. What is more than that is held back until its turn comes, and
// the clients that wait take turns. Each search that finds nothing costs its client a
// place, and room for others to wait for that, down to vainShare; the next answer gives
// all of them back. So who floods a silent upstream soon holds next to nothing. The zero
// value is ready.
type slots struct {
	mu      sync.Mutex
	total   int // under way
	waiting int
	clients map[netip.Addr]*client // those that have anything under way or waiting
	turns   []*client              // those with something waiting, the next one first
	vain    map[netip.Addr]int     // client.vain, not 0, of those that have neither
}

type client struct {
	used  int
	vain  int // searches that have found nothing since one that has
	queue []func()
}

// take has run called when a query of that client may be under way, now or later,
// perhaps by another goroutine, which it must not hold up. Each run wants a give.
// When there is no room even to wait, it is false and run is not called.
func (s *slots) take(addr netip.Addr, run func()) bool {
	s.mu.Lock()
	if s.clients == nil {
		s.clients, s.vain = map[netip.Addr]*client{}, map[netip.Addr]int{}
	}
	c := s.clients[addr]
	if c == nil {
		c = &client{vain: s.vain[addr]}
	}
	switch {
	case len(c.queue) == 0 && s.fits(c):
		s.clients[addr] = c
		s.begin(c)
		s.mu.Unlock()
		run()
		return true
	case s.noRoom(c):
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

// full reports whether take would have no room, for who has to prepare what is to run.
func (s *slots) full(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[addr]
	return c != nil && len(c.queue) > 0 && s.noRoom(c)
}

// noRoom reports whether a client may have no more waiting than it has. s.mu is held.
func (s *slots) noRoom(c *client) bool {
	return s.waiting >= maxWaiting || len(c.queue) >= s.share(c, maxWaiting)
}

// share is what one client may have of so many places. s.mu is held.
func (s *slots) share(c *client, places int) int {
	others := len(s.clients)
	if c.used > 0 || len(c.queue) > 0 {
		others--
	}
	whole := max(1, places/(others+2))
	return min(whole, max(places/vainShare, whole-c.vain*places/maxInFlight))
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
		s.leave(addr, c)
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

// leave forgets a client that has nothing under way or waiting, but for what it asked in
// vain. s.mu is held.
func (s *slots) leave(addr netip.Addr, c *client) {
	delete(s.clients, addr)
	delete(s.vain, addr)
	if len(s.vain) >= maxVain {
		clear(s.vain)
	}
	if c.vain > 0 {
		s.vain[addr] = c.vain
	}
}

// found takes note of whether a search that the client has under way has found an answer.
func (s *slots) found(addr netip.Addr, answer bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[addr]
	switch {
	case c == nil:
	case answer:
		c.vain = 0
	default:
		c.vain++
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
