// Package gossiptest carries gossip messages in memory, badly on purpose: it
// loses, repeats and reorders them by a seed, and cuts links in one direction or
// both. It keeps the contract of gossip.Net to the letter, so that what works on
// it works on less.
//
// Messages move in one of two ways. Step by step, when the test calls Step,
// Deliver or Tick: one goroutine, the same run for the same seed. Or live, while
// Run does: each node has a goroutine that hands its messages over.
package gossiptest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// Faults is how bad the carrier is. The zero value loses nothing and keeps order.
type Faults struct {
	Loss    float64 // chance that a message never arrives
	Repeat  float64 // chance that it arrives once more
	Reorder float64 // chance that another message overtakes it, each time it is due
}

// Fabric connects nodes.
type Fabric struct {
	mu     sync.Mutex
	rng    *rand.Rand
	faults Faults
	nodes  map[gossip.Peer]*Node
	names  []gossip.Peer // sorted
	cut    map[link]bool
	queue  []packet // step by step
	live   bool
	stats  Stats
}

// Stats counts messages.
type Stats struct{ Sent, Delivered, Lost, Repeated, Panics int }

type link struct{ from, to gossip.Peer }

type packet struct {
	link
	ch  gossip.Channel
	msg []byte
}

// queueLimit is how many messages to one node may wait; beyond it Send says ErrBusy.
const queueLimit = 4096

// Node is one host's gossip.Net.
type Node struct {
	fabric   *Fabric
	name     gossip.Peer
	down     bool
	handlers map[gossip.Channel]gossip.Handler
	changed  chan struct{}
	inbox    []packet // live
	wake     chan struct{}
	waiting  int
}

// New makes a fabric. Equal seeds with equal calls give equal runs.
func New(seed uint64, names ...gossip.Peer) *Fabric {
	f := &Fabric{
		rng: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)), nodes: make(map[gossip.Peer]*Node), cut: make(map[link]bool),
	}
	for _, n := range names {
		f.Add(n)
	}
	return f
}

// Add makes a node that everybody can reach.
func (f *Fabric) Add(name gossip.Peer) *Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(name) == 0 || len(name) > gossip.MaxPeer || f.nodes[name] != nil {
		panic(fmt.Sprintf("gossiptest: node %q", name))
	}
	n := &Node{
		fabric: f, name: name, handlers: make(map[gossip.Channel]gossip.Handler),
		changed: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	f.nodes[name] = n
	f.names = append(f.names, name)
	slices.Sort(f.names)
	f.noteChange()
	return n
}

// Node finds a node.
func (f *Fabric) Node(name gossip.Peer) *Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[name]
}

// Set changes the faults.
func (f *Fabric) Set(faults Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

// Cut stops messages from one node to another, in that direction only. Those on
// their way are lost.
func (f *Fabric) Cut(from, to gossip.Peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[link{from, to}] = true
	f.queue = slices.DeleteFunc(f.queue, func(p packet) bool { return f.lose(p.link == link{from, to}, p) })
	f.noteChange()
}

// Split cuts both directions between the nodes named and all others.
func (f *Fabric) Split(side ...gossip.Peer) {
	for _, a := range f.all() {
		for _, b := range f.all() {
			if slices.Contains(side, a) != slices.Contains(side, b) {
				f.Cut(a, b)
			}
		}
	}
}

// Heal mends every cut.
func (f *Fabric) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.cut)
	f.noteChange()
}

// SetDown takes a node from the net, or puts it back. What was on its way to it is lost.
func (f *Fabric) SetDown(name gossip.Peer, down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[name]
	n.down = down
	if down {
		f.queue = slices.DeleteFunc(f.queue, func(p packet) bool { return f.lose(p.to == name, p) })
		f.stats.Lost += len(n.inbox)
		n.inbox, n.waiting = nil, 0
	}
	f.noteChange()
}

// Stats is what has happened so far.
func (f *Fabric) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// Pending is how many messages are on their way, step by step.
func (f *Fabric) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue)
}

// Step delivers one message; false when there is none.
func (f *Fabric) Step() bool {
	f.mu.Lock()
	if len(f.queue) == 0 {
		f.mu.Unlock()
		return false
	}
	i := 0
	for i+1 < len(f.queue) && f.rng.Float64() < f.faults.Reorder {
		i++
	}
	p := f.queue[i]
	f.queue = slices.Delete(f.queue, i, i+1)
	n := f.nodes[p.to]
	n.waiting--
	f.mu.Unlock()
	n.hand(p)
	return true
}

// Deliver steps until nothing is on its way, at most max times; it returns how often.
func (f *Fabric) Deliver(max int) (steps int) {
	for steps < max && f.Step() {
		steps++
	}
	return steps
}

// Run delivers live until ctx ends.
func (f *Fabric) Run(ctx context.Context) {
	f.mu.Lock()
	f.live = true
	waiting := f.queue
	f.queue = nil
	for _, p := range waiting {
		f.nodes[p.to].post(p)
	}
	nodes := make([]*Node, 0, len(f.names))
	for _, name := range f.names {
		nodes = append(nodes, f.nodes[name])
	}
	f.mu.Unlock()
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { n.run(ctx) })
	}
	wg.Wait()
}

func (f *Fabric) all() []gossip.Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.names)
}

// lose counts a message that is lost if it is.
func (f *Fabric) lose(lost bool, p packet) bool {
	if lost {
		f.stats.Lost++
		f.nodes[p.to].waiting--
	}
	return lost
}

func (f *Fabric) noteChange() {
	for _, n := range f.nodes {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// reachable is what a carrier would know: both directions work and both are up.
func (f *Fabric) reachable(a, b gossip.Peer) bool {
	return !f.cut[link{a, b}] && !f.cut[link{b, a}] && !f.nodes[a].down && !f.nodes[b].down
}

// post queues a packet; the lock is held.
func (n *Node) post(p packet) {
	n.inbox = append(n.inbox, p)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Node) run(ctx context.Context) {
	for {
		for n.next() {
		}
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
	}
}

func (n *Node) next() bool {
	f := n.fabric
	f.mu.Lock()
	if len(n.inbox) == 0 {
		f.mu.Unlock()
		return false
	}
	p := n.inbox[0]
	n.inbox = n.inbox[1:]
	n.waiting--
	cut := f.cut[p.link]
	if cut {
		f.stats.Lost++
	}
	f.mu.Unlock()
	if !cut {
		n.hand(p)
	}
	return true
}

// hand gives a message to the handler, in a buffer that is spoilt afterwards, so
// that a handler which keeps it is found out.
func (n *Node) hand(p packet) {
	f := n.fabric
	f.mu.Lock()
	h := n.handlers[p.ch]
	f.stats.Delivered++
	f.mu.Unlock()
	if h == nil {
		return
	}
	buf := slices.Clone(p.msg)
	defer func() {
		for i := range buf {
			buf[i] = 0xdd
		}
		if recover() != nil {
			f.mu.Lock()
			f.stats.Panics++
			f.mu.Unlock()
		}
	}()
	h(p.from, buf)
}

// Self implements gossip.Net.
func (n *Node) Self() gossip.Peer { return n.name }

// Handle implements gossip.Net. Called again, it replaces: a restarted host.
func (n *Node) Handle(ch gossip.Channel, h gossip.Handler) {
	n.fabric.mu.Lock()
	defer n.fabric.mu.Unlock()
	n.handlers[ch] = h
}

// Send implements gossip.Net.
func (n *Node) Send(to gossip.Peer, ch gossip.Channel, msg []byte) error {
	f := n.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(msg) > gossip.MaxMessage {
		return gossip.ErrTooLarge
	}
	p := packet{link{n.name, to}, ch, slices.Clone(msg)}
	if to == n.name {
		return f.enqueue(p)
	}
	if f.nodes[to] == nil || !f.reachable(n.name, to) && !f.oneWay(n.name, to) {
		return gossip.ErrUnreachable
	}
	f.stats.Sent++
	if f.rng.Float64() < f.faults.Loss || f.cut[p.link] {
		f.stats.Lost++
		return nil
	}
	if f.rng.Float64() < f.faults.Repeat {
		f.stats.Repeated++
		_ = f.enqueue(p) // full: then it is not repeated
	}
	return f.enqueue(p)
}

// oneWay: one direction is cut. A carrier may not have noticed, so sending does
// not fail; it is of use only in the direction that works.
func (f *Fabric) oneWay(from, to gossip.Peer) bool {
	up := !f.nodes[from].down && !f.nodes[to].down
	return up && f.cut[link{from, to}] != f.cut[link{to, from}]
}

func (f *Fabric) enqueue(p packet) error {
	n := f.nodes[p.to]
	if n.waiting >= queueLimit {
		return gossip.ErrBusy
	}
	n.waiting++
	if f.live {
		n.post(p)
	} else {
		f.queue = append(f.queue, p)
	}
	return nil
}

// Broadcast implements gossip.Net.
func (n *Node) Broadcast(ch gossip.Channel, msg []byte) error {
	if len(msg) > gossip.MaxMessage {
		return gossip.ErrTooLarge
	}
	for _, p := range n.Peers() {
		_ = n.Send(p, ch, msg) // a hint
	}
	return nil
}

// Peers implements gossip.Net. Who is cut off in one direction only is listed, as
// a carrier may not have noticed.
func (n *Node) Peers() []gossip.Peer {
	f := n.fabric
	f.mu.Lock()
	defer f.mu.Unlock()
	var peers []gossip.Peer
	for _, p := range f.names {
		if p != n.name && (f.reachable(n.name, p) || f.oneWay(n.name, p)) {
			peers = append(peers, p)
		}
	}
	return peers
}

// Neighbours implements gossip.Net: everybody is one.
func (n *Node) Neighbours() []gossip.Peer { return n.Peers() }

// Changed implements gossip.Net.
func (n *Node) Changed() <-chan struct{} {
	n.fabric.mu.Lock()
	defer n.fabric.mu.Unlock()
	return n.changed
}

var _ gossip.Net = (*Node)(nil)
