package carrier

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of connections that have not shown yet who they are.
const (
	maxPending  = 64
	maxPendingA = 8 // from one address (IPv6: one /64)
	// spared is how long one that has knocked is not closed for a newcomer.
	spared = time.Second
)

// door bounds how many connections are between accept and hello at once. The
// newest is let in; where there are too many, one goes: a stranger before one from
// a known peer's address before one that has knocked (see identity), and of equals
// the oldest from the address that has most. A member knocks in its first packet.
// So it gets through between any number of connections that sit and wait, and
// between thousands a second that come and go.
type door struct {
	known func(netip.Addr) bool // has a peer been at this address

	mu      sync.Mutex
	pending []*caller // oldest first
}

// caller is one connection at the door.
type caller struct {
	from  netip.Addr // as grouped by origin
	rank  rank
	since time.Time
	close func() // ends the connection; does not block
}

type rank uint8

const (
	unknown rank = iota
	familiar
	knocked
)

// origin is what counts as one address: IPv4 as it is, of IPv6 the /64.
func origin(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// enter lets a connection in, and closes another, or this one, when there are too
// many; shed reports that. After leave the connection is not closed any more.
func (d *door) enter(from netip.Addr, closer func()) (c *caller, shed bool) {
	c = &caller{from: origin(from), since: time.Now(), close: closer}
	if d.known(from) {
		c.rank = familiar
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	victim := d.victim(c)
	if victim != c {
		d.pending = append(d.pending, c)
	}
	if victim != nil {
		d.drop(victim)
		victim.close()
	}
	return c, victim != nil
}

// knock raises a connection above those that have not knocked.
func (d *door) knock(c *caller) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.rank = knocked
}

// leave ends the wait at the door.
func (d *door) leave(c *caller) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(c)
}

// victim picks who must go before one more enters: nobody, one who waits, or the
// newcomer.
func (d *door) victim(newcomer *caller) *caller {
	count := map[netip.Addr]int{}
	for _, c := range d.pending {
		count[c.from]++
	}
	crowd := count[newcomer.from] >= maxPendingA
	if !crowd && len(d.pending) < maxPending {
		return nil
	}
	var worst *caller
	for _, c := range d.pending {
		switch {
		case crowd && c.from != newcomer.from:
		case worst == nil, c.rank < worst.rank, c.rank == worst.rank && count[c.from] > count[worst.from]:
			worst = c
		}
	}
	if worst.rank == knocked && newcomer.since.Sub(worst.since) < spared {
		return newcomer
	}
	return worst
}

func (d *door) drop(c *caller) {
	for i, p := range d.pending {
		if p == c {
			d.pending = append(d.pending[:i], d.pending[i+1:]...)
			return
		}
	}
}
