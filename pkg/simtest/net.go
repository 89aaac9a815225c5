package simtest

import (
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// network carries messages between machines, badly. Two machines may have one name (a
// clone): then everybody talks to the one that it met first, as long as it can.
type network struct {
	w     *World
	now   []packet                       // in this tick, in order
	later [horizon][]packet              // by tick
	cut   [maxMachines][maxMachines]bool // from, to
	met   [maxMachines][maxMachines]int8 // by the first machine of a name: of several, which one plus one

	loss, repeat, reorder, delay float64
}

const (
	horizon     = 64 // ticks that a message may be late, at most
	maxMachines = 8
	storm       = 1000 // messages on their way at a time
)

// packet is a message: bytes of the replica's or the founding's, or a value of the
// records', which are never changed.
type packet struct {
	from, to int
	kind     uint8
	msg      []byte
	value    any

	id   ledger.MemberID // of the sender
	life uint64
}

const (
	toReplica = iota
	toFounding
	toRecords
)

// works reports whether one machine's messages reach another.
func (n *network) works(from, to int) bool {
	return !n.cut[from][to] && n.w.machines[from].up() && n.w.machines[to].up()
}

// connected is what a carrier knows: who is cut off in one direction only is still there.
func (n *network) connected(a, b int) bool { return n.works(a, b) || n.works(b, a) }

// resolve finds the machine that a name stands for, seen from a machine; -1 for none.
func (n *network) resolve(from int, name gossip.Peer) int {
	first := -1
	for i, m := range n.w.machines {
		if m.name != name {
			continue
		}
		if first < 0 {
			if first = i; n.met[from][i] > 0 && n.connected(from, int(n.met[from][i])-1) {
				return int(n.met[from][i]) - 1
			}
		}
		if i != from && n.connected(from, i) {
			n.met[from][first] = int8(i + 1)
			return i
		}
	}
	return -1
}

// peers are the names that a machine can reach, sorted.
func (n *network) peers(from int) (out []gossip.Peer) {
	for _, name := range n.w.names {
		if name == n.w.machines[from].name {
			continue
		}
		if i := n.resolve(from, name); i >= 0 && n.accepts(i, from) {
			out = append(out, name)
		}
	}
	return out
}

// accepts reports whether a machine takes another for the bearer of its name.
func (n *network) accepts(at, from int) bool {
	return n.resolve(at, n.w.machines[from].name) == from
}

// send queues a message; false when the receiver is not connected.
func (n *network) send(from int, to gossip.Peer, p packet) bool {
	i := n.resolve(from, to)
	if i < 0 || !n.accepts(i, from) {
		return false
	}
	p.from, p.to = from, i
	if n.loss > 0 && n.w.chance(n.loss) {
		return true
	}
	if n.repeat > 0 && n.w.chance(n.repeat) {
		n.put(p)
	}
	n.put(p)
	return true
}

func (n *network) put(p packet) {
	if n.delay > 0 && n.w.chance(n.delay) {
		late := 1 + n.w.intn(4)
		if n.w.chance(0.2) {
			late = 1 + n.w.intn(horizon-2)
		}
		at := (n.w.tick + late) % horizon
		n.later[at] = append(n.later[at], p)
		return
	}
	if n.now = append(n.now, p); len(n.now) > storm {
		n.w.fail("messages beget messages: %d are on their way", len(n.now))
	}
}

// due moves what was delayed until this tick.
func (n *network) due() {
	at := n.w.tick % horizon
	n.now = append(n.now, n.later[at]...)
	n.later[at] = n.later[at][:0]
}

// next takes a message; ok is false when none is left for this tick.
func (n *network) next() (p packet, ok bool) {
	if len(n.now) == 0 {
		return p, false
	}
	i := 0
	for n.reorder > 0 && i+1 < len(n.now) && i < 8 && n.w.chance(n.reorder) {
		i++
	}
	p = n.now[i]
	if i == 0 {
		n.now = n.now[1:]
		if len(n.now) == 0 {
			n.now = n.now[:0]
		}
		return p, true
	}
	copy(n.now[i:], n.now[i+1:])
	n.now = n.now[:len(n.now)-1]
	return p, true
}

// others takes whatever else waits for a machine, in order.
func (n *network) others(to int, inbox []packet) []packet {
	rest := n.now[:0]
	for _, p := range n.now {
		if p.to == to {
			inbox = append(inbox, p)
		} else {
			rest = append(rest, p)
		}
	}
	n.now = rest
	return inbox
}

// arrive has all that is late arrive in this tick.
func (n *network) arrive() {
	for at := range n.later {
		n.now = append(n.now, n.later[at]...)
		n.later[at] = n.later[at][:0]
	}
}

// heal ends every fault.
func (n *network) heal() {
	n.cut = [maxMachines][maxMachines]bool{}
	n.loss, n.repeat, n.reorder, n.delay = 0, 0, 0, 0
	n.w.connections()
}

// isolate cuts a machine off from all others.
func (n *network) isolate(i int) {
	for j := range n.w.machines {
		if j != i {
			n.cut[i][j], n.cut[j][i] = true, true
		}
	}
	n.w.connections()
}

// split cuts all links between two sides, given by a set of bits.
func (n *network) split(side uint) {
	for i := range n.w.machines {
		for j := range n.w.machines {
			if side>>i&1 != side>>j&1 {
				n.cut[i][j] = true
			}
		}
	}
	n.w.connections()
}
