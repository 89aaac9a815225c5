package carrier

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// State is how things stand with a peer or an address.
type State string

// The states.
const (
	Connected State = "connected"
	Dialling  State = "dialling"
	Refused   State = "refused"
)

// Status is one line about a peer, or about an address where none has answered yet.
type Status struct {
	Name   gossip.Peer // "" as long as nobody has answered there
	Addr   string      // where we reach it; "" if it called us
	State  State
	Detail string // why not connected, in words
	Hello  Hello  // of a connected peer, as it last said
}

// Status lists every peer with a session, then every address that is dialled for
// another, each sorted.
func (c *Carrier) Status() []Status {
	var out []Status
	live := map[gossip.Peer]bool{}
	for _, s := range c.table.all() {
		live[s.hello.Name] = true
		line := Status{Name: s.hello.Name, State: Connected, Hello: s.latest.Load().(Hello)}
		if s.dialled {
			line.Addr = s.addr.String()
		}
		out = append(out, line)
	}
	return append(out, c.book.status(live)...)
}

func (b *book) status(live map[gossip.Peer]bool) []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	owner := map[netip.AddrPort]gossip.Peer{}
	for p, addrs := range b.learned {
		for _, a := range addrs {
			owner[a] = p
		}
	}
	var out []Status
	for a, p := range b.places {
		line := Status{Name: p.peer, Addr: a.String(), State: Dialling}
		if line.Name == "" {
			line.Name = owner[a]
		}
		if line.Name == b.self || live[line.Name] || time.Since(p.asked) > shownFor {
			continue
		}
		if p.refused {
			line.State = Refused
		}
		if p.err != nil {
			line.Detail = plain(p.err.Error())
		}
		out = append(out, line)
	}
	slices.SortFunc(out, func(a, b Status) int {
		return strings.Compare(string(a.Name)+" "+a.Addr, string(b.Name)+" "+b.Addr)
	})
	return out
}

// Neighbours lists the peers with a session, sorted.
func (c *Carrier) Neighbours() []gossip.Peer {
	var out []gossip.Peer
	for _, s := range c.table.all() {
		out = append(out, s.hello.Name)
	}
	return out
}

// Learn replaces what is known of where a peer can be reached; no addresses: the
// peer is forgotten. At most 16 addresses a peer and 1024 peers are kept.
func (c *Carrier) Learn(p gossip.Peer, addrs []netip.AddrPort) {
	if c.book.learn(p, addrs) {
		c.dialSoon()
	}
}

// Connect adds a target, host[:port], that is dialled from now on.
func (c *Carrier) Connect(target string) error {
	if err := c.book.addTarget(target); err != nil {
		return err
	}
	c.dialSoon()
	return nil
}

// Forget removes a target and reports whether it was there. A session that came
// of it stays.
func (c *Carrier) Forget(target string) bool { return c.book.removeTarget(target) }
