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

// Status is one line about a peer, about an address where none has answered yet,
// or about a router that called us and was refused.
type Status struct {
	Name   gossip.Peer // "" as long as nobody has answered there
	Member uint64      // 0 where it is not known
	Addr   string      // where we reach it; "" if it called us, without a port if it was refused then
	State  State
	Detail string    // why not connected, in words
	Theirs bool      // of a refused one: it refuses us
	Twin   bool      // of a refused one: for a copy of a state directory, in use beside the original
	Hello  Hello     // of a connected peer, as it last said
	When   time.Time // of a refused one: when that was said

	// Of a router that called us and was refused: how often, and when last.
	Count uint64
	Last  time.Time
}

// isTwin reports whether a line is about a router that runs beside another with the
// same name and key. It is never one with that one's.
func (s Status) isTwin() bool { return s.Twin && !s.Theirs }

// Status lists every peer with a session, then every address that is dialled for
// another, then who called and was refused lately, each sorted.
func (c *Carrier) Status() []Status {
	var out []Status
	live := map[gossip.Peer]uint64{}
	for _, s := range c.table.all() {
		live[s.hello.Name] = s.hello.MemberID
		line := Status{Name: s.hello.Name, Member: s.hello.MemberID, State: Connected, Hello: s.latest.Load().(Hello)}
		if s.dialled {
			line.Addr = s.addr.String()
		}
		out = append(out, line)
	}
	out = append(out, c.book.status(live)...)
	return append(out, c.calls.status(out)...)
}

// status lists the refused calls of those that have no line yet. Of one that has, as
// one who refuses or is refused, the line gets the later reason.
func (r *refusedCalls) status(lines []Status) (out []Status) {
	for _, c := range r.all() {
		i := slices.IndexFunc(lines, func(l Status) bool {
			if l.isTwin() != c.isTwin() {
				return false
			}
			if c.name == "" {
				a, err := netip.ParseAddrPort(l.Addr)
				return err == nil && a.Addr() == c.addr && l.State == Refused
			}
			return l.Name == c.name && l.Member == c.member
		})
		switch {
		case i < 0:
			out = append(out, Status{
				Name: c.name, Member: c.member, Addr: c.addr.String(), State: Refused, Detail: c.words, Theirs: c.theirs, Twin: c.twin, When: c.last, Count: c.count, Last: c.last,
			})
		case lines[i].State == Refused && c.last.After(lines[i].When):
			lines[i].Detail, lines[i].Theirs, lines[i].Twin, lines[i].When = c.words, c.theirs, c.twin, c.last
		}
	}
	slices.SortFunc(out, byNameAndAddr)
	return out
}

// status leaves out our own address and other addresses of connected peers, unless
// another router of that name answers there.
func (b *book) status(live map[gossip.Peer]uint64) []Status {
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
		member, connected := live[line.Name]
		another := p.no != nil && p.no.Member != 0 && (!connected || p.no.Member != member || p.no.Code == twin)
		if (line.Name == b.self || connected) && !another || !p.shown(time.Now()) {
			continue
		}
		if p.no != nil {
			line.State, line.Member, line.Theirs, line.Twin, line.When = Refused, p.no.Member, p.no.Remote, p.no.Code == twin, p.settled
		}
		if p.other != nil {
			line.State, line.Theirs, line.When = Refused, p.other.theirs, p.settled
		}
		if p.err != nil {
			line.Detail = plain(p.err.Error())
		}
		out = append(out, line)
	}
	slices.SortFunc(out, byNameAndAddr)
	return out
}

func byNameAndAddr(a, b Status) int {
	return strings.Compare(string(a.Name)+" "+a.Addr, string(b.Name)+" "+b.Addr)
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

// OnlySelf reports whether there are targets and all of them lead to this router itself.
func (c *Carrier) OnlySelf() bool {
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	return c.book.onlySelf()
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
// of it stays; of an address that was dialled for it alone no line does.
func (c *Carrier) Forget(target string) bool { return c.book.removeTarget(target) }
