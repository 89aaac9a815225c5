package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// trial is the time in which a core whose state directory nobody vouches for asks
// the others whether it is an old copy. Until a majority of the voters, itself
// included, knows nothing against it, it takes no part in raft: it may have
// forgotten a vote, or entries that it acknowledged.
type trial struct {
	conf   Conf // the newest that it was told of
	confAt uint64
	clear  map[uint64]cleared // who answered
	next   int                // peer to ask besides the voters
	askAt  uint64
	twin   string // why the carrier takes us for a copy of a router that lives; "": it does not
}

// cleared is the latest answer of one that knows nothing against us.
type cleared struct {
	leads, led bool // it leads, or hears who does
	at         uint64
}

// check is a question about the sender, asked on trial or when no leader is heard.
type check struct {
	Member ledger.Member `cbor:"1,keyasint"`
	Last   uint64        `cbor:"2,keyasint,omitempty"` // last entry of its log
	Seq    uint64        `cbor:"3,keyasint,omitempty"` // number of its last command
	Took   Life          `cbor:"4,keyasint,omitempty"` // its last life that took part, as its disk knows
}

// answer is how far the one who was asked is.
type answer struct {
	Index   uint64 `cbor:"1,keyasint,omitempty"` // last entry applied
	Term    uint64 `cbor:"2,keyasint,omitempty"`
	Leading bool   `cbor:"3,keyasint,omitempty"`
	Conf    Conf   `cbor:"4,keyasint"`
	Led     bool   `cbor:"5,keyasint,omitempty"` // leads or hears who does
}

type heardAnswer struct {
	answer
	at uint64
}

// maxAsked bounds whom a sole voter asks.
const maxAsked = 64

func (c *Core) beginTrial() {
	if c.state.Index() == 0 || c.vouched || c.mutate.has(TrustOldState) {
		return
	}
	c.trial = &trial{conf: c.conf, confAt: c.state.Index(), clear: make(map[uint64]cleared)}
	if c.acquitted() { // alone
		c.trial = nil
	}
}

// askAround sends the question to the voters and to one other peer, in case there
// are newer voters; a sole voter asks everybody.
func (c *Core) askAround() {
	t := c.trial
	c.judge()
	if c.trial == nil || c.ticks < t.askAt {
		return
	}
	t.askAt = c.ticks + joinTicks
	ask := slices.Concat(t.conf.Voters, t.conf.Outgoing)
	if t.conf.sole(c.self.ID) {
		ask = c.others()
	}
	for _, id := range ask[:min(len(ask), maxAsked)] {
		if name, ok := c.nameOf(ledger.MemberID(id)); ok && ledger.MemberID(id) != c.self.ID {
			c.sendCheck(name, ledger.MemberID(id))
		}
	}
	if len(c.peers) > 0 {
		t.next++
		c.sendCheck(c.peers[t.next%len(c.peers)], 0)
	}
}

// others are the live members but ourselves.
func (c *Core) others() (ids []uint64) {
	for m := range c.state.AllMembers() {
		if m.Live() && m.ID != c.self.ID {
			ids = append(ids, uint64(m.ID))
		}
	}
	return ids
}

func (c *Core) sendCheck(to gossip.Peer, id ledger.MemberID) {
	last, _ := c.mem.LastIndex()
	c.send(to, &frame{To: id, Kind: kindCheck, Check: &check{c.self, last, c.prop.seq, c.took}})
}

// receiveCheck says what is known against the sender, or how far we are.
func (c *Core) receiveCheck(from gossip.Peer, f *frame) {
	if c.state.Index() == 0 {
		return
	}
	if _, known := c.state.Member(f.From); !known && c.knowsAll(f) {
		c.tellGone(from, f, departed(f.Check.Member))
		return
	}
	if why := c.objection(f); why != "" {
		c.send(from, &frame{To: f.From, Kind: kindObjection, About: f.Life, Words: clip(why)})
		return
	}
	if f.Trial && !c.mayAnswer(from, f) {
		return
	}
	// A new leader does not know yet who is alive.
	leads := c.leading && c.ticks-c.since >= settleTicks
	a := &answer{Index: c.state.Index(), Term: c.term, Leading: leads, Conf: c.conf, Led: c.leading || c.leaderHeard()}
	c.send(from, &frame{To: f.From, Kind: kindAnswer, About: f.Life, Answer: a})
}

// mayAnswer reports whether one on trial, against which nothing is known, is to be answered,
// and notes that it is. Else it is told why not.
func (c *Core) mayAnswer(from gossip.Peer, f *frame) bool {
	p := c.pulse(f.From)
	switch {
	case p.excludes(f.Life, f.Check.Took) && !c.mutate.has(TrustOldState):
		c.counters.WrongLife++
		c.tellGone(from, f, twoCopies.words())
		return false
	case p.spoke > 0 && c.ticks-p.spoke <= c.times.Twin:
		// Another life of it may be alive; if so it will be heard again.
		c.send(from, &frame{To: f.From, Kind: kindRefused, Words: twinWords})
		return false
	}
	p.Tried, p.TriedTook = f.Life, f.Check.Took
	c.keepLife(p)
	return true
}

const twinWords = "it was heard a moment ago under the same identity, by another router that may still run"

// objection is the proof that a state directory is an old copy, "" when there is none.
func (c *Core) objection(f *frame) string {
	m, _ := c.state.Member(f.From)
	seq, _ := c.state.Last(f.From)
	switch where := f.Check.Member.Place.Machine; {
	case c.mutate.has(TrustOldState):
		return ""
	case where != "" && m.Place.Machine != "" && where != m.Place.Machine:
		return moved.words()
	case f.Trial && f.Check.Took.older(c.pulse(f.From).Life):
		return oldCopy.words()
	case seq > f.Check.Seq, c.leading && c.match(f.From) > f.Check.Last:
		return oldCopy.words()
	}
	return ""
}

// knowsAll reports whether a sender that our ledger does not know is a member no
// longer, rather than a new one: we lead, have all that was decided before we did,
// and are as far as the sender.
func (c *Core) knowsAll(f *frame) bool {
	return c.leading && c.state.Index() >= max(c.confAt, f.Check.Last) && !c.mutate.has(TrustOldState)
}

// match is up to which entry a member has acknowledged our log, as we lead.
func (c *Core) match(id ledger.MemberID) (match uint64) {
	c.rn.WithProgress(func(p uint64, _ raft.ProgressType, pr tracker.Progress) {
		if p == uint64(id) {
			match = pr.Match
		}
	})
	return match
}

func (c *Core) receiveAnswer(f *frame) {
	if f.About != c.life {
		return
	}
	if c.answers == nil || len(c.answers) > 2*maxConf {
		c.answers = make(map[ledger.MemberID]heardAnswer)
	}
	c.answers[f.From] = heardAnswer{*f.Answer, c.ticks}
	t := c.trial
	if t == nil {
		return
	}
	if last, _ := c.mem.LastIndex(); f.Answer.Index > last && c.inEveryMajority() {
		c.end(oldCopy.words())
		return
	}
	if f.Answer.Index > t.confAt {
		t.conf, t.confAt = f.Answer.Conf, f.Answer.Index
	}
	t.clear[uint64(f.From)] = cleared{f.Answer.Leading, f.Answer.Led, c.ticks}
	c.judge()
}

// inEveryMajority: nothing can have been decided without us, since of one voter or
// two each is needed, and no change of that is under way in our log.
func (c *Core) inEveryMajority() bool {
	if len(c.conf.Voters) > 2 || len(c.conf.Outgoing) > 0 || !slices.Contains(c.conf.Voters, uint64(c.self.ID)) {
		return false
	}
	last, _ := c.mem.LastIndex()
	for i := c.state.Index() + 1; i <= last; i++ {
		entries, err := c.mem.Entries(i, i+1, 1<<62)
		if err != nil || len(entries) != 1 || entries[0].GetType() != 0 {
			return false
		}
	}
	return true
}

// judge ends the trial when enough have nothing against us.
func (c *Core) judge() {
	if t := c.trial; t == nil || !c.acquitted() {
		return
	}
	c.trial = nil
	if err := c.standAlone(); err != nil {
		c.counters.Refused++
	}
}

// acquitted reports whether enough have nothing against us. Who leads hears every
// member, a voter that does not may never hear another: so where somebody hears a
// leader, the leader's answer is among those that are needed, and elsewhere there is
// a while for objections.
func (c *Core) acquitted() bool {
	t := c.trial
	if t.twin != "" || c.join.refused != "" && c.ticks-c.join.refusedAt <= 2*joinTicks {
		return false // the original lives, or somebody who heard it holds back the answer
	}
	if t.conf.sole(c.self.ID) {
		others := c.others()
		return c.ticks >= c.times.Object || !slices.ContainsFunc(others, func(id uint64) bool { _, ok := t.clear[id]; return !ok })
	}
	leads, led := false, false
	for _, a := range t.clear {
		leads = leads || a.leads
		led = led || a.led && c.ticks-a.at <= wordsTicks
	}
	switch {
	case leads && !slices.Contains(t.conf.Voters, uint64(c.self.ID)):
		return true // it has a majority; we have no vote
	case !leads && (led || c.ticks < c.times.Object):
		return false
	}
	return c.majority(t.conf.Voters) && (len(t.conf.Outgoing) == 0 || c.majority(t.conf.Outgoing))
}

// majority reports whether most of them, ourselves included, have nothing against us.
func (c *Core) majority(voters []uint64) bool {
	n := 0
	for _, id := range voters {
		if _, ok := c.trial.clear[id]; ok || id == uint64(c.self.ID) {
			n++
		}
	}
	return n > len(voters)/2
}

// SetTwin says why the carrier takes us for a copy of a router that lives, "" while it
// does not. On trial that is enough to wait.
func (c *Core) SetTwin(why string) {
	if c.trial != nil {
		c.trial.twin = why
	}
}

// asking is what a core on trial waits for, in words.
func (c *Core) asking() string {
	if c.trial.twin != "" {
		return "its state directory may be a copy: " + c.trial.twin
	}
	if c.join.refused != "" && c.ticks-c.join.refusedAt < wordsTicks {
		return "its state directory may be a copy: " + c.join.refused
	}
	return fmt.Sprintf("asks the %d voters whether its state directory is an old copy; %d have answered: see that a majority of them is up", len(c.trial.conf.Voters), len(c.trial.clear))
}
