package names

import (
	"net/netip"
	"slices"
	"sync"
)

// Clients knows the clients that have servers of their own for the names of others. The
// zero value is empty and ready; it is safe for concurrent use.
type Clients struct {
	mu     sync.RWMutex
	owners map[string][]netip.Addr
	addrs  map[netip.Addr]ownServers
}

type ownServers struct {
	owner   string
	servers []string
}

// Set says that the addresses are an owner's, an attachment's in practice, and whom to ask
// for it: host:port of each server, none for those of everybody. What was said of the
// owner before no longer counts.
func (c *Clients) Set(owner string, addrs []netip.Addr, servers []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(owner)
	if len(servers) == 0 || len(addrs) == 0 {
		return
	}
	if c.owners == nil {
		c.owners, c.addrs = map[string][]netip.Addr{}, map[netip.Addr]ownServers{}
	}
	c.owners[owner] = slices.Clone(addrs)
	for _, a := range addrs {
		c.addrs[a.Unmap()] = ownServers{owner, slices.Clone(servers)}
	}
}

// Drop forgets an owner.
func (c *Clients) Drop(owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(owner)
}

// drop leaves alone what has become another owner's meanwhile. c.mu is held.
func (c *Clients) drop(owner string) {
	for _, a := range c.owners[owner] {
		if c.addrs[a.Unmap()].owner == owner {
			delete(c.addrs, a.Unmap())
		}
	}
	delete(c.owners, owner)
}

// Of are the servers of a client's own; none when everybody's are to be asked. The slice is
// not to be changed.
func (c *Clients) Of(addr netip.Addr) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.addrs[addr.Unmap()].servers
}
