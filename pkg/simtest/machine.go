package simtest

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/founding"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/place"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// machine is what outlives a router: disk, run directory, kernel, containers.
type machine struct {
	w        *World
	at       int // in World.machines
	name     gossip.Peer
	hardware string
	boot     int
	bootText string        // made of it when asked for
	skew     time.Duration // of its monotonic clock
	stalled  int           // ticks for which its router does not get to run
	startAt  int           // tick at which a router that ended by itself starts again
	copied   bool          // its state was put back from a copy, and not judged since
	dead     bool          // destroyed, for good
	flags    flags         // how its router is started

	state      stateDir
	run        runDir
	containers []*container
	bridge     []netip.Prefix // the host's own addresses
	bridges    []*bridge      // of other networks than the default one
	leaves     bool           // it has told the ledger so, and may be forgotten any moment

	pending  []string // hashes of attachments of other main plugins that DEL is to end
	backup   *stateDir
	wentBack bool // its state was put back from a copy once
	frozen   int  // tick until which nothing else goes wrong, so that it is confirmed or not
	spare    int  // times that it may be killed before it is confirmed

	proc   *router   // nil: down
	usable [2]uint64 // of World.spaces: what could be given here now, or is held by a container
}

// flags is how a router is started.
type flags struct {
	found     bool          // it founds a cluster of its own when it has no state
	bootstrap []gossip.Peer // it founds together with these
}

// stateDir survives everything but being lost.
type stateDir struct {
	id       ledger.MemberID // 0: the directory is empty
	hardware string          // on which the identity was made
	lives    uint64          // of the name's records
	ledger   replica.Saved
	saves    uint64 // of ledger and offers since the last load
	offers   []allot.Offer
	founding founding.Saved
	decided  *founding.Value
}

func (s stateDir) copy() stateDir {
	s.ledger.Entries = slices.Clone(s.ledger.Entries)
	return s // everything else is replaced, never changed
}

// runDir survives a crash.
type runDir struct {
	witness place.Witness
	live    map[string]allot.Claim
	resting map[string]allot.Claim
}

func (d *runDir) reset() {
	*d = runDir{live: map[string]allot.Claim{}, resting: map[string]allot.Claim{}}
}

// container is one that runs: its veth and the address it was given.
type container struct {
	n      int
	key    attachment.Key
	kernel allot.Kernel
	byFile bool // of another main plugin: there is no alias, the claim file decides
}

// member is how the router introduces itself.
func (m *machine) member() ledger.Member {
	return ledger.Member{ID: m.state.id, Name: string(m.name), Place: ledger.Place{Machine: m.hardware, Boot: strconv.Itoa(m.boot), NetNS: "n1"}}
}

func (m *machine) up() bool { return m.proc != nil }

// now is the machine's monotonic clock.
func (m *machine) now() time.Duration {
	return m.skew + time.Duration(m.w.tick)*(time.Second/replica.TicksPerSecond)
}

func (m *machine) bootID() string {
	if m.bootText == "" {
		m.bootText = fmt.Sprint(m.hardware, "/", m.boot)
	}
	return m.bootText
}

// clusterID is the id of a cluster that this life would found.
func (m *machine) clusterID() string { return fmt.Sprintf("c-%s-%x", m.hardware, uint64(m.state.id)) }

func (m *machine) String() string {
	if m.hardware != fmt.Sprint("m", int(m.name[0]-'a')) {
		return string(m.name) + "(" + m.hardware + ")"
	}
	return string(m.name)
}

// crashed unwinds to do.
type crashed struct{}

// persist is called before and after each write: there the router may die.
func (m *machine) persist() {
	if m.w.crash > 0 && m.w.chance(m.w.crash) {
		panic(crashed{})
	}
}

// do lets the router act, if it runs, and looks at what came of it. A crash ends it.
func (m *machine) do(f func(*router)) {
	if m.proc == nil {
		return
	}
	m.w.steps++
	if m.guarded(func() { f(m.proc); m.proc.settle() }) {
		m.w.tracef("%v crashes", m)
		m.kill()
		return
	}
	if why := m.proc.over; why != "" {
		m.w.tracef("%v is over: %s", m, why)
		m.kill()
		m.startAt = m.w.tick + 5
	}
	m.w.check()
}

func (m *machine) guarded(f func()) (dead bool) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case crashed:
			dead = true
		default:
			panic(e)
		}
	}()
	f()
	return false
}

// kill ends the router, without a word.
func (m *machine) kill() {
	if m.proc == nil {
		return
	}
	m.proc = nil
	m.startAt = 0
	m.count()
	m.w.connections()
}

// start starts a router. One that dies at once is down again.
func (m *machine) start() {
	if m.proc != nil || m.dead {
		return
	}
	m.startAt, m.copied = 0, false
	m.proc = &router{m: m, w: m.w}
	m.w.tracef("%v starts", m)
	if m.guarded(func() { m.proc.start() }) {
		m.w.tracef("%v crashes while it starts", m)
		m.kill()
		return
	}
	m.w.connections()
	m.do(func(*router) {})
}

// reboot empties what does not survive it. The containers are gone with the kernel.
func (m *machine) reboot() {
	m.kill()
	for _, c := range m.containers {
		m.w.tracef("%v: container %d is gone", m, c.n)
	}
	m.containers, m.pending, m.bridge, m.bridges = nil, nil, nil, nil
	m.run.reset()
	m.boot, m.bootText = m.boot+1, ""
	m.w.tracef("%v reboots", m)
	m.count()
}

// destroy ends the machine for good.
func (m *machine) destroy() {
	m.reboot()
	m.dead = true
	m.state = stateDir{}
	m.w.tracef("%v is destroyed", m)
}

// kernelShows lists the veths of the containers that have one of ours.
func (m *machine) kernelShows() (out []allot.Kernel) {
	for _, c := range m.containers {
		if c.byFile {
			continue
		}
		k := c.kernel
		if k.NetID != "" {
			k.Network = m.bridgeNetwork(k.NetID)
		}
		out = append(out, k)
	}
	return out
}

// bridgeNetwork is the name that the ledger has for the network behind a bridge.
func (m *machine) bridgeNetwork(id string) string {
	if m.proc == nil || m.proc.state == nil {
		return ""
	}
	for _, n := range m.proc.state.Networks() {
		if n.ID == id {
			return n.Name
		}
	}
	return ""
}

// run adds a container; its address must be nobody else's here.
func (m *machine) runs(c *container) {
	m.containers = append(m.containers, c)
	m.count()
}

func (m *machine) stop(c *container) {
	m.containers = slices.DeleteFunc(m.containers, func(o *container) bool { return o == c })
	m.count()
}

func (m *machine) unpend(hash string) {
	m.pending = slices.DeleteFunc(m.pending, func(h string) bool { return h == hash })
}

// container by its key's hash.
func (m *machine) container(hash string) *container {
	for _, c := range m.containers {
		if c.kernel.Alias.Hash == hash {
			return c
		}
	}
	return nil
}

// count finds out anew what the machine could use.
func (m *machine) count() {
	for i, s := range m.w.spaces {
		var set uint64
		hold := func(addrs []netip.Prefix) {
			for _, p := range addrs {
				bit, ok := s.bit(p.Addr())
				if ok && set&bit != 0 {
					m.w.fail("%v gave %v to two", m, p.Addr())
				}
				set |= bit
			}
		}
		hold(m.bridge)
		for _, c := range m.containers {
			hold(c.kernel.Alias.Addrs)
		}
		if m.proc != nil {
			set |= m.proc.mayGive(i)
		}
		m.usable[i] = set
	}
	m.w.judge.dirty = true
}

// files is the run directory as the allocator sees it.
type files struct{ m *machine }

func (f files) Load() (live, resting []allot.Claim, bad []error, err error) {
	return sorted(f.m.run.live), sorted(f.m.run.resting), nil, nil
}

func (f files) Save(c allot.Claim) error {
	f.m.persist()
	f.m.run.live[c.Hash] = c
	delete(f.m.run.resting, c.Hash)
	f.m.persist()
	return nil
}

func (f files) Rest(hash string) error {
	f.m.persist()
	if c, ok := f.m.run.live[hash]; ok {
		f.m.run.resting[hash] = c
		delete(f.m.run.live, hash)
	}
	f.m.persist()
	return nil
}

func (f files) Drop(hash string) error {
	delete(f.m.run.resting, hash)
	return nil
}

func sorted(claims map[string]allot.Claim) (out []allot.Claim) {
	for _, c := range claims {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b allot.Claim) int {
		if a.Hash < b.Hash {
			return -1
		}
		return 1
	})
	return out
}

// fileOffers writes them into the state directory.
func (r *router) fileOffers(list []allot.Offer) {
	m := r.m
	r.offered = list
	if m.w.mistake != OfferNotDurable {
		m.persist()
		m.state.offers = list
		m.saved()
	}
	m.persist()
	m.count()
}

// saved counts a change of the state directory, there and in the witness.
func (m *machine) saved() {
	m.state.saves++
	m.persist()
	if w := &m.run.witness; w.Member == uint64(m.state.id) && w.Generation == m.state.ledger.Generation {
		w.Saves = m.state.saves
	}
}
