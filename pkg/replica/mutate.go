package replica

import (
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Mutation is a set of mistakes to make on purpose, so that the simulator can show
// that it would notice them. It is for tests only.
type Mutation uint32

// The mistakes.
const (
	VoteAfterForgetting Mutation = 1 << iota // a voter that lost its memory goes on voting
	TrustOldState                            // an old copy of a state directory is taken for the member itself
	StaleWins                                // who has an old log is elected all the same
	RetireWithoutProof                       // a newcomer gets the blocks of whoever had its name
	SuccessorEarly                           // ready before it has caught up
)

func (m Mutation) has(x Mutation) bool { return m&x != 0 }

// forgeProof makes a newcomer's place one that succeeds its name's owner (RetireWithoutProof).
func (c *Core) forgeProof(j *ledger.Join) {
	old, ok := c.state.MemberByName(j.Member.Name)
	if _, again := c.state.Member(j.Member.ID); again || !ok || old.Place.Machine == "" {
		return
	}
	j.Member.Place.Machine = old.Place.Machine
	if j.Member.Place.Boot = "other"; old.Place.Boot == "other" {
		j.Member.Place.Boot = "another"
	}
}
