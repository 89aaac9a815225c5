package simtest

import (
	"fmt"
	"net/netip"

	"github.com/weave-cni/weave-cni/pkg/founding"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
)

// Scenario is a kind of schedule: which faults come, and how often.
type Scenario struct {
	Name  string
	About string

	machines   [2]int // at least, at most, at the start
	ticks      [2]int // with faults
	mayGrow    int    // machines in all
	mayDestroy int
	bootstrap  bool           // they found together; else they are a cluster already
	fresh      bool           // the first founds, the others join
	twins      bool           // two machines may have one name
	tight      bool           // every subnet is as small as can be
	slow       bool           // messages are late more often than not
	survivors  bool           // in the end most voters are destroyed, and one goes on by force
	slander    bool           // a host that lives is retired
	registry   *registryRates // networks come and go
	setup      func(w *World)
	rates      func(w *World) rates
	network    bool // messages are lost, repeated, reordered, late
	crash      float64
}

// founder is the id of a value's founder.
func founder(v *founding.Value) *ledger.MemberID {
	if v == nil {
		return nil
	}
	return &v.Founder.ID
}

// cluster makes one of all machines, as if they had run for a while.
func (w *World) cluster() {
	s := ledger.New()
	s.Apply(1, *w.foundCommand("c1"))
	var conf replica.Conf
	voters := len(w.machines) - 1 + len(w.machines)%2
	for i, m := range w.machines {
		m.state = stateDir{id: w.newID(), hardware: m.hardware, lives: 1}
		s.Apply(s.Index()+1, ledger.Command{Join: &ledger.Join{Member: m.member()}})
		if i < min(voters, 5) {
			conf.Voters = append(conf.Voters, uint64(m.state.id))
		} else {
			conf.Learners = append(conf.Learners, uint64(m.state.id))
		}
	}
	for w.scenario.tight && w.share(s) {
	}
	data := replica.EncodeLedger(s)
	for _, m := range w.machines {
		m.state.saves = 1
		m.state.ledger = replica.Saved{
			Owner: m.state.id, Generation: 1, Took: 1 << 32, Hard: replica.Hard{Term: 1, Commit: s.Index()},
			Snapshot: replica.Snapshot{Index: s.Index(), Term: 1, Conf: conf, Data: data},
		}
		m.run.witness.Member, m.run.witness.Generation, m.run.witness.Boot = uint64(m.state.id), 1, m.bootID()
		m.run.witness.Saves = 1
	}
}

// share gives every machine a block of each subnet; false when the pools are empty.
func (w *World) share(s *ledger.State) (more bool) {
	for _, m := range w.machines {
		for _, sp := range w.spaces {
			res := s.Apply(s.Index()+1, ledger.Command{Take: &ledger.Take{ID: m.state.id, Network: w.network.Name, Subnet: sp.prefix, Want: 4}})
			more = more || res.Code == ledger.OK
		}
	}
	return more
}

// subnets draws the network: one or two small subnets, of either family.
func (w *World) subnets() {
	bits := 4 + w.intn(3)
	if w.scenario.tight {
		bits = 4
	}
	four := netip.PrefixFrom(netip.MustParseAddr("10.32.0.0"), 32-bits)
	six := netip.PrefixFrom(netip.MustParseAddr("fd00:32::"), 128-bits)
	prefixes := [][]netip.Prefix{{four}, {six}, {four, six}}[w.intn(3)]
	w.network = ledger.Network{Name: "weave", Driver: "weave", MTU: 1400, Subnets: prefixes}
	for _, p := range prefixes {
		w.spaces = append(w.spaces, space{p, p.Addr()})
	}
}

// size is how many addresses a subnet has.
func (w *World) size(i int) int {
	p := w.spaces[i].prefix
	return 1 << (p.Addr().BitLen() - p.Bits())
}

// ends are the addresses that nobody may have.
func (w *World) ends(i int) uint64 {
	if w.spaces[i].prefix.Addr().Is4() {
		return 1 | 1<<(w.size(i)-1)
	}
	return 1
}

func (w *World) between(b [2]int) int { return b[0] + w.intn(b[1]-b[0]+1) }

// begin makes the machines and what they begin with.
func (w *World) begin() {
	sc := w.scenario
	w.subnets()
	w.compactAfter = uint64(4 + w.intn(40))
	n := min(w.between(sc.machines), w.between(sc.machines)) // few show most, sooner
	for i := range n {
		w.addMachine(gossip.Peer(fmt.Sprintf("%c", 'a'+i)))
	}
	if sc.network {
		w.net.loss, w.net.repeat = w.some(0.15), w.some(0.1)
		w.net.reorder, w.net.delay = w.some(0.3), w.some(0.15)
	}
	if sc.slow {
		w.net.delay = 0.2 + 0.5*float64(w.intn(1000))/1000 // what is given back is long on its way
	}
	switch {
	case sc.bootstrap:
		for _, m := range w.machines {
			m.flags.bootstrap = w.names
		}
	case sc.fresh:
		w.machines[0].flags.found = true
	default:
		w.cluster()
	}
	if sc.setup != nil {
		sc.setup(w)
	}
	for _, m := range w.machines {
		m.start()
	}
	if !sc.bootstrap && !sc.fresh {
		first := pick(w, w.machines)
		for range 21 {
			first.do((*router).tick) // let it lead soon
		}
	}
	w.crash = sc.crash
	w.rate = sc.rates(w)
}

// some is nothing in half of the runs, else anything up to most.
func (w *World) some(most float64) float64 {
	if w.chance(0.5) {
		return 0
	}
	return most * float64(w.intn(1000)) / 1000
}

// play is the whole run.
func (w *World) play() {
	w.begin()
	for end := w.tick + w.between(w.scenario.ticks); w.tick < end; {
		w.act()
		if w.scenario.registry != nil {
			w.actOnRegistry(*w.scenario.registry)
		}
		w.retiring(0.1)
		if w.scenario.slander && !w.judge.lax && w.chance(0.05) {
			w.slander()
		}
		w.step()
	}
	switch {
	case w.scenario.twins:
		w.oneOfEach()
	case w.scenario.survivors:
		w.force()
	}
	w.finish()
}
