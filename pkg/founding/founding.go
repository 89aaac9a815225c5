// Package founding lets hosts that were started with the same list of names agree
// on who founds their cluster, and as what: single-decree Paxos among the hosts of
// the list. What is decided is decided for ever; the founder founds, all others join.
//
// It is pure: no goroutine, clock, log or I/O. A Core is driven by Tick and Receive;
// after either, while Pending reports so, the driver calls Begin, makes durable what
// that gives, and only then calls Finish and sends what that gives. A crash is to
// stop at any point and make a new Core of what was saved last.
//
// Why nothing is decided twice, though hosts may forget. Paxos stands on acceptors
// that keep their promises. A host whose state directory was lost comes back as
// another MemberID, and an acceptor is a name with its MemberID. So that a newcomer
// never counts in the place of one that others counted before, a host acts as an
// acceptor only when enough others have written down its MemberID, the first that
// they met under that name: a majority's number, or all others where they are fewer.
// Two lives of one host would need two sets of witnesses, which have at least two
// hosts in common (one, where only one is left), and those say no to the second.
// So it is safe as long as no majority of the hosts forgets, and with up to four
// hosts as long as anybody remembers. The price: before the first ballot each host
// has to be met once by so many others (of three hosts by both); from then on any
// majority decides.
package founding

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// Times, in ticks of a tenth of a second.
const (
	helloTicks = 5  // what is lacking is asked for again
	roundTicks = 10 // a ballot that has no majority yet is given up; the hosts' turns are so far apart
)

// Value is what is decided.
type Value struct {
	Cluster string          `cbor:"1,keyasint"` // the cluster's id
	Founder Host            `cbor:"2,keyasint"` // who founds it
	Network *ledger.Network `cbor:"3,keyasint"` // its default network
}

// Host is one of those that found together: a name and the life that bears it.
type Host struct {
	Name gossip.Peer     `cbor:"1,keyasint"`
	ID   ledger.MemberID `cbor:"2,keyasint"`
}

// Ballot numbers the attempts. Of two with one number the later name is higher.
type Ballot struct {
	N  uint64      `cbor:"1,keyasint,omitempty"`
	By gossip.Peer `cbor:"2,keyasint,omitempty"`
}

// Compare orders ballots; the zero one is below all others.
func (b Ballot) Compare(o Ballot) int { return cmp.Or(cmp.Compare(b.N, o.N), cmp.Compare(b.By, o.By)) }

// Saved is all that a host must not forget.
type Saved struct {
	Self     Host   `cbor:"1,keyasint"`           // whose memory it is; another's is not used
	Met      []Host `cbor:"2,keyasint,omitempty"` // the first life met under each other name, by name
	Known    []Host `cbor:"3,keyasint,omitempty"` // who has written down ours, by name
	Promised Ballot `cbor:"4,keyasint,omitzero"`
	Accepted Ballot `cbor:"5,keyasint,omitzero"`
	Value    *Value `cbor:"6,keyasint,omitempty"` // of Accepted
	Decided  *Value `cbor:"7,keyasint,omitempty"`
}

func (s Saved) clone() Saved {
	s.Met, s.Known = slices.Clone(s.Met), slices.Clone(s.Known)
	return s
}

// Config is what a Core is made of.
type Config struct {
	Self    Host
	Hosts   []gossip.Peer   // all that found together, Self among them; the same everywhere, in any order
	Cluster string          // the id that a cluster founded by this host would have: drawn at random for it
	Network *ledger.Network // its network; not changed any more
	Saved   Saved

	// Forgetful is a mistake for the simulator's own test: whoever answers counts, with
	// or without witnesses, and so does one that has lost its promises.
	Forgetful bool
}

// MaxHosts bounds the list: the ledger has at most five voters, so more need not agree.
const MaxHosts = 15

// Out is a message to send.
type Out struct {
	To  gossip.Peer
	Msg []byte
}

// Core is one host's part in founding.
type Core struct {
	cfg   Config
	codec wire.Codec
	hosts []gossip.Peer // sorted
	rank  uint64        // of our name among them

	saved Saved
	dirty bool // saved differs from what is durable
	out   []Out

	ticks   uint64
	helloAt uint64
	tryAt   uint64 // tick from which to begin a ballot
	highest uint64 // number of any ballot heard of

	ballot   Ballot // under way, of ours
	promises map[gossip.Peer]promise
	accepts  map[gossip.Peer]bool
	value    *Value // that we ask to accept; nil before a majority has promised

	stranger  map[gossip.Peer]string // why a host of the list does not count, in words
	lost      map[gossip.Peer]bool   // of those, who can never count again
	forgotten bool                   // somebody met an earlier life of ours
}

type promise struct {
	accepted Ballot
	value    *Value
}

// New makes a core. What was saved by another life is not used.
func New(cfg Config) (*Core, error) {
	hosts := slices.Compact(slices.Sorted(slices.Values(cfg.Hosts)))
	rank := slices.Index(hosts, cfg.Self.Name)
	switch {
	case cfg.Self.ID == 0 || cfg.Network == nil || cfg.Cluster == "":
		return nil, errors.New("found together: the configuration is incomplete")
	case rank < 0:
		return nil, fmt.Errorf("found together: this host is called %s, which is not among %v: give all hosts the same list, with their own names in it", cfg.Self.Name, hosts)
	case len(hosts) > MaxHosts:
		return nil, fmt.Errorf("found together: %d hosts are named, at most %d may be: name a few, the others join them", len(hosts), MaxHosts)
	}
	c := &Core{cfg: cfg, codec: wire.New(), hosts: hosts, rank: uint64(rank), saved: cfg.Saved.clone(), stranger: map[gossip.Peer]string{}, lost: map[gossip.Peer]bool{}}
	if c.saved.Self != cfg.Self {
		c.saved, c.dirty = Saved{Self: cfg.Self}, true
	}
	if err := c.offer().check(); err != nil {
		return nil, fmt.Errorf("found together: %w", err)
	}
	c.highest = max(c.saved.Promised.N, c.saved.Accepted.N)
	c.tryAt = c.rank * roundTicks
	if len(hosts) == 1 {
		c.decide(c.offer())
	}
	return c, nil
}

func (c *Core) offer() *Value {
	return &Value{Cluster: c.cfg.Cluster, Founder: c.cfg.Self, Network: c.cfg.Network}
}

// Decided is what was decided, nil before. It is durable only after the next Finish.
func (c *Core) Decided() *Value { return c.saved.Decided }

// majority of the hosts.
func (c *Core) majority() int { return len(c.hosts)/2 + 1 }

// witnesses is how many others must have written down a host's life before it counts.
func (c *Core) witnesses() int { return min(c.majority(), len(c.hosts)-1) }

// acceptor reports whether this host's word counts.
func (c *Core) acceptor() bool {
	return c.cfg.Forgetful || len(c.saved.Known) >= c.witnesses() && !c.forgotten
}

// Tick is a tenth of a second.
func (c *Core) Tick() {
	c.ticks++
	if c.saved.Decided != nil {
		return
	}
	if c.ticks >= c.helloAt {
		c.helloAt = c.ticks + helloTicks
		for _, h := range c.hosts {
			c.send(h, message{Kind: kindHello})
		}
		c.repeat()
	}
	if c.ticks >= c.tryAt && c.acceptor() {
		c.begin()
	}
}

// begin starts a ballot above all that was heard of.
func (c *Core) begin() {
	c.tryAt = c.ticks + uint64(len(c.hosts)+1)*roundTicks
	c.highest++
	c.ballot = Ballot{c.highest, c.cfg.Self.Name}
	c.promises, c.accepts, c.value = map[gossip.Peer]promise{}, map[gossip.Peer]bool{}, nil
	c.saved.Promised, c.dirty = c.ballot, true
	c.promises[c.cfg.Self.Name] = promise{c.saved.Accepted, c.saved.Value}
	c.repeat()
}

// repeat sends the question of the ballot under way to those who have not answered.
func (c *Core) repeat() {
	if c.ballot.N == 0 || c.saved.Promised != c.ballot {
		return
	}
	for _, h := range c.hosts {
		switch _, promised := c.promises[h]; {
		case c.value != nil && !c.accepts[h]:
			c.send(h, message{Kind: kindAccept, Ballot: c.ballot, Value: c.value})
		case c.value == nil && !promised:
			c.send(h, message{Kind: kindPrepare, Ballot: c.ballot})
		}
	}
}

// Receive takes a message from a host, whatever it holds. It keeps nothing of b.
func (c *Core) Receive(from gossip.Peer, b []byte) {
	m, err := decode(c.codec, b)
	if err != nil || m.From.Name != from || from == c.cfg.Self.Name || !c.ours(m) {
		return
	}
	switch {
	case m.Kind == kindDecided:
		c.decide(m.Value) // a majority has spoken: any of us may say so
		return
	case c.saved.Decided != nil:
		c.send(from, message{Kind: kindDecided, Value: c.saved.Decided})
		return
	case !c.counts(m):
		return
	}
	c.highest = max(c.highest, m.Ballot.N, m.Accepted.N)
	switch m.Kind {
	case kindPrepare:
		c.prepared(m)
	case kindPromise:
		c.promised(m)
	case kindAccept:
		c.asked(m)
	case kindAccepted:
		c.accepted(m)
	}
}

// ours reports whether the sender founds with the same hosts. One with another list may
// be started again with the right one.
func (c *Core) ours(m *message) bool {
	name := m.From.Name
	switch {
	case !slices.Contains(c.hosts, name):
		return false
	case !slices.Equal(c.hosts, m.Hosts):
		c.stranger[name] = fmt.Sprintf("host %s was started with another list, %s", name, joined(m.Hosts))
		return false
	}
	return true
}

// counts writes down who was met, and says whether the sender's word counts here. Even
// one that has forgotten is a witness: it wrote us down in its present life.
func (c *Core) counts(m *message) bool {
	name := m.From.Name
	first, met := find(c.saved.Met, name)
	if !met {
		first = m.From
		c.saved.Met, c.dirty = insert(c.saved.Met, first), true
		c.send(name, message{Kind: kindHello})
	}
	switch _, known := find(c.saved.Known, name); {
	case m.Met == c.cfg.Self.ID && !known:
		c.saved.Known, c.dirty = insert(c.saved.Known, m.From), true
	case m.Met != 0 && m.Met != c.cfg.Self.ID:
		c.forgotten = true
	}
	if first == m.From || c.cfg.Forgetful {
		delete(c.stranger, name)
		delete(c.lost, name)
		return m.Kind == kindHello || m.Met == c.cfg.Self.ID || c.cfg.Forgetful // else it was meant for another life of ours
	}
	c.stranger[name] = fmt.Sprintf("host %s took part before and has lost its state directory: it only learns what the others decide", name)
	c.lost[name] = true
	c.send(name, message{Kind: kindHello}) // so that it knows
	return false
}

// prepared: somebody begins a ballot.
func (c *Core) prepared(m *message) {
	if !c.acceptor() || m.Ballot.By != m.From.Name || m.Ballot.Compare(c.saved.Promised) < 0 {
		return // it will hear of a higher one, or ask again
	}
	if m.Ballot != c.saved.Promised {
		c.saved.Promised, c.dirty = m.Ballot, true
	}
	c.yield()
	c.send(m.From.Name, message{Kind: kindPromise, Ballot: m.Ballot, Accepted: c.saved.Accepted, Value: c.saved.Value})
}

// yield leaves another's ballot the time to succeed.
func (c *Core) yield() { c.tryAt = max(c.tryAt, c.ticks+(c.rank+1)*roundTicks) }

// promised: an answer to our question.
func (c *Core) promised(m *message) {
	if m.Ballot != c.ballot || c.value != nil || c.saved.Promised != c.ballot {
		return
	}
	c.promises[m.From.Name] = promise{m.Accepted, m.Value}
	if len(c.promises) < c.majority() {
		return
	}
	best := promise{value: c.offer()}
	for _, p := range c.promises {
		if p.value != nil && p.accepted.Compare(best.accepted) > 0 {
			best = p // two of one ballot are the same
		}
	}
	c.value = best.value
	c.saved.Accepted, c.saved.Value, c.dirty = c.ballot, c.value, true
	c.accepts[c.cfg.Self.Name] = true
	c.repeat()
}

// asked: somebody has the promises of a majority and asks to accept.
func (c *Core) asked(m *message) {
	if !c.acceptor() || m.Ballot.By != m.From.Name || m.Ballot.Compare(c.saved.Promised) < 0 {
		return
	}
	if c.saved.Accepted != m.Ballot {
		c.saved.Promised, c.saved.Accepted, c.saved.Value, c.dirty = m.Ballot, m.Ballot, m.Value, true
	}
	c.yield()
	c.send(m.From.Name, message{Kind: kindAccepted, Ballot: m.Ballot})
}

// accepted: an answer to what we asked to accept.
func (c *Core) accepted(m *message) {
	if m.Ballot != c.ballot || c.value == nil {
		return
	}
	c.accepts[m.From.Name] = true
	if len(c.accepts) >= c.majority() {
		c.decide(c.value)
	}
}

func (c *Core) decide(v *Value) {
	if c.saved.Decided != nil {
		return
	}
	c.saved.Decided, c.dirty = v, true
	for _, h := range c.hosts {
		c.send(h, message{Kind: kindDecided, Value: v})
	}
}

// send fills in who we are, and what life of the receiver we have met.
func (c *Core) send(to gossip.Peer, m message) {
	if to == c.cfg.Self.Name {
		return
	}
	m.From, m.Hosts = c.cfg.Self, c.hosts
	if h, ok := find(c.saved.Met, to); ok {
		m.Met = h.ID
	}
	b, err := c.codec.Encode(m)
	if err != nil || len(b) > maxMessage {
		return // New would have to refuse it: the network alone can be so large
	}
	c.out = append(c.out, Out{to, b})
}

// Pending reports whether Begin has something.
func (c *Core) Pending() bool { return c.dirty || len(c.out) > 0 }

// Begin gives what must be durable before Finish is called; changed is false when it is.
func (c *Core) Begin() (s Saved, changed bool) {
	changed, c.dirty = c.dirty, false
	return c.saved.clone(), changed
}

// Finish gives what to send, after what Begin gave is durable.
func (c *Core) Finish() []Out {
	out := c.out
	c.out = nil
	return out
}

// Waiting says in one sentence what this host waits for, as long as it has no cluster.
func (c *Core) Waiting() string {
	switch {
	case c.saved.Decided != nil:
		return c.waitingForFounder(c.saved.Decided.Founder)
	case c.forgotten:
		return "this host took part in the founding before and has lost its state directory: it waits for the others to found, and joins them"
	}
	var away []string
	for _, h := range c.hosts {
		words, strange := c.stranger[h]
		_, known := find(c.saved.Known, h)
		switch {
		case strange:
			away = append(away, words)
		case !known && h != c.cfg.Self.Name:
			away = append(away, fmt.Sprintf("host %s has not been met yet", h))
		}
	}
	if n := c.witnesses(); len(c.saved.Known) < n {
		return fmt.Sprintf("founding together with %s: each host must be met by %d others once (%s)", joined(c.hosts), n, strings.Join(away, "; "))
	}
	if len(c.hosts)-len(c.lost) < c.majority() {
		return fmt.Sprintf("founding together with %s can never end (%s): %s", joined(c.hosts), strings.Join(away, "; "), c.again())
	}
	waiting := fmt.Sprintf("founding together with %s: waits for %d of the %d to agree, which takes a few seconds when they are there", joined(c.hosts), c.majority(), len(c.hosts))
	if len(away) > 0 {
		waiting += " (" + strings.Join(away, "; ") + ")"
	}
	return waiting
}

// waitingForFounder: what is decided stays so, also when nobody is left to carry it out.
func (c *Core) waitingForFounder(founder Host) string {
	if founder.Name == c.cfg.Self.Name && founder.ID != c.cfg.Self.ID {
		return "it is decided that an earlier life of this host founds the cluster, and its state directory is gone: if no host is in a cluster, " + c.again()
	}
	return fmt.Sprintf("it is decided that host %s founds the cluster: start it; if its state directory is gone and no host is in a cluster, %s", founder.Name, c.again())
}

// again is how to begin once more. One after the other would not do: whoever begins
// anew hears from those who have not what they remember.
func (c *Core) again() string {
	return fmt.Sprintf("stop the router on every one of %s and remove its state directory, then start them", joined(c.hosts))
}

func joined(names []gossip.Peer) string {
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(string(n))
	}
	return b.String()
}

func byName(h Host, name gossip.Peer) int { return cmp.Compare(h.Name, name) }

func find(sorted []Host, name gossip.Peer) (Host, bool) {
	i, ok := slices.BinarySearchFunc(sorted, name, byName)
	if !ok {
		return Host{}, false
	}
	return sorted[i], true
}

func insert(sorted []Host, h Host) []Host {
	i, _ := slices.BinarySearchFunc(sorted, h.Name, byName)
	return slices.Insert(slices.Clone(sorted), i, h)
}
