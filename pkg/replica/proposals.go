package replica

import (
	"fmt"
	"math"
	"slices"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// proposals is what this member asks of the ledger: one command under way, the
// others in line, since the ledger tells repetitions from new commands by a
// number that only grows.
type proposals struct {
	ticket   uint64
	seq      uint64
	line     []proposal
	current  *proposal
	sentAt   uint64
	left     *Done                      // our Leave is applied, and its answer held back: see departing
	asked    int                        // which voter was asked last, while no leader is known
	appended map[ledger.MemberID]uint64 // as leader: the last Seq put into the log in this term

	leave      uint64 // as leader: the Seq of the last Leave put into the log
	leaver     ledger.MemberID
	announceAt uint64 // tick from which to announce this life again

	ownLeave uint64 // the Seq of our own last Leave: see undecided
	unsaved  bool   // it is not on disk, and not to be sent
}

type proposal struct {
	ticket uint64 // 0: our own announcement
	cmd    ledger.Command
}

// init starts the numbers above all that an earlier run can have used.
func (p *proposals) init(generation uint64) { p.seq = generation << 32 }

// announce puts our own word before what others wait for.
func (p *proposals) announce(cmd ledger.Command) {
	ours := func(q proposal) bool { return q.ticket == 0 }
	if p.current != nil && ours(*p.current) || slices.ContainsFunc(p.line, ours) {
		return
	}
	p.line = slices.Insert(p.line, 0, proposal{0, cmd})
}

// Propose asks for a command to be carried out, once. From and Seq are filled in
// here. The ticket comes back in a Done.
func (c *Core) Propose(cmd ledger.Command) (ticket uint64) {
	c.prop.ticket++
	if res := unfit(cmd); res.Code != ledger.OK {
		c.done = append(c.done, Done{Ticket: c.prop.ticket, Result: res})
		return c.prop.ticket
	}
	c.prop.line = append(c.prop.line, proposal{c.prop.ticket, cmd})
	if why := c.spent(); why != "" {
		c.failProposals(goneError(why))
	}
	c.pump()
	return c.prop.ticket
}

// unfit refuses what no log would ever take, so that nobody would answer, and what
// comes after it would wait for ever.
func unfit(cmd ledger.Command) ledger.Result {
	cmd.From, cmd.Seq = math.MaxUint64, math.MaxUint64 // they are to come, and take room
	b := cmd.Append(nil)
	if len(b) > maxCommand {
		return ledger.Result{Code: ledger.CodeTooMany, Err: fmt.Sprintf("a command of %d bytes, at most %d may be: ask for less at a time", len(b), maxCommand)}
	}
	if _, err := ledger.ParseCommand(b); err != nil {
		return ledger.Result{Code: ledger.CodeInvalid, Err: err.Error()}
	}
	return ledger.Result{}
}

// Cancel forgets a proposal. It may still be carried out, when it was sent before.
func (c *Core) Cancel(ticket uint64) {
	if c.prop.current != nil && c.prop.current.ticket == ticket {
		c.prop.current = nil
		c.pump()
		return
	}
	c.prop.line = slices.DeleteFunc(c.prop.line, func(p proposal) bool { return p.ticket == ticket })
}

// pump sends the next command in line when none is under way. Before we are a
// member the ledger would not remember what it did for us.
func (c *Core) pump() {
	p := &c.prop
	if p.current != nil || len(p.line) == 0 || c.trial != nil || c.halted != "" || !c.member() {
		return
	}
	next := p.line[0]
	p.current, p.line = &next, p.line[1:]
	p.seq++
	p.current.cmd.From, p.current.cmd.Seq = c.self.ID, p.seq
	if next.cmd.Leave != nil {
		p.ownLeave, p.unsaved = p.seq, true
	}
	c.sendProposal()
}

// undecided reports whether a Leave of ours, of this life or an earlier one, may still be
// carried out. Then nothing is ours for sure, what was granted after we offered
// everything least of all. The answer to it, or to any later command of ours, decides it.
func (c *Core) undecided() bool {
	seq, _ := c.state.Last(c.self.ID)
	return seq < c.prop.ownLeave
}

func (c *Core) retryProposal() {
	if c.prop.current != nil && c.ticks-c.prop.sentAt >= retryTicks {
		c.sendProposal()
	}
}

// sendProposal brings the command under way to the leader. Who has not heard its
// leader lately (a follower without a vote never notices) asks the voters in turn.
func (c *Core) sendProposal() {
	p := &c.prop
	if p.current == nil || p.unsaved && p.current.cmd.Leave != nil {
		return
	}
	p.sentAt = c.ticks
	if c.leading {
		c.appendOnce(p.current.cmd)
		return
	}
	to := c.lead
	if to == 0 || c.silence(to) > freshFor {
		if len(c.conf.Voters) == 0 {
			return
		}
		p.asked++
		to = ledger.MemberID(c.conf.Voters[p.asked%len(c.conf.Voters)])
	}
	if name, ok := c.nameOf(to); ok && to != c.self.ID {
		c.send(name, &frame{To: to, Kind: kindPropose, Command: &p.current.cmd})
	}
}

// receiveProposal appends another's command, or hands it on to the leader.
func (c *Core) receiveProposal(f *frame) {
	if f.Hops == 0 && f.Command.From != f.From {
		c.counters.WrongMember++
		return
	}
	if c.leading {
		c.appendOnce(*f.Command)
		return
	}
	name, ok := c.nameOf(c.lead)
	if !ok || f.Hops >= maxHops || c.lead == f.From {
		return
	}
	c.send(name, &frame{To: c.lead, Kind: kindPropose, Hops: f.Hops + 1, Command: f.Command})
}

// appendOnce spares the log the repetitions. That it happens once does not depend
// on it: the ledger sees to that.
func (c *Core) appendOnce(cmd ledger.Command) {
	p := &c.prop
	if last, _ := c.state.Last(cmd.From); cmd.Seq <= max(last, p.appended[cmd.From]) {
		return
	}
	if cmd.Leave != nil && c.mustWait(cmd.Leave) || c.appendCommand(cmd) != nil {
		return
	}
	if cmd.Leave != nil {
		p.leave, p.leaver = cmd.Seq, cmd.Leave.ID
	}
	if p.appended == nil {
		p.appended = make(map[ledger.MemberID]uint64)
	}
	p.appended[cmd.From] = cmd.Seq
}

// proposalApplied ends the command under way when it is this one. Another of ours
// under its number, or an answer that it is old, can only come of a copy of our
// state directory.
func (c *Core) proposalApplied(cmd ledger.Command, res ledger.Result) {
	p := &c.prop
	if p.current == nil || p.current.cmd.Seq != cmd.Seq {
		return
	}
	if (res.Code == ledger.CodeStale || !cmd.Same(p.current.cmd)) && !c.mutate.has(TrustOldState) {
		c.end(twoCopies.words())
		return
	}
	if cmd.Leave != nil && c.departing() {
		p.left, p.current = &Done{Ticket: p.current.ticket, Result: res}, nil
		return
	}
	c.finishProposal(Done{Ticket: p.current.ticket, Result: res})
}

func (c *Core) finishProposal(d Done) {
	c.prop.current = nil
	if d.Ticket == 0 {
		c.announced = c.announced || d.Err == nil && d.Result.Code == ledger.OK
		return
	}
	c.done = append(c.done, d)
}

func (c *Core) failProposals(err error) {
	p := &c.prop
	if p.left != nil {
		c.done, p.left = append(c.done, *p.left), nil
	}
	if p.current != nil {
		c.finishProposal(Done{Ticket: p.current.ticket, Err: err})
	}
	for _, q := range p.line {
		c.finishProposal(Done{Ticket: q.ticket, Err: err})
	}
	p.line = nil
}
