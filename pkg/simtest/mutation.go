package simtest

import "github.com/weave-cni/weave-cni/pkg/replica"

// Mutation is a mistake that is made on purpose, to see that the simulator notices.
type Mutation uint8

// The mistakes. The replica's own are made there (replica.Mutation).
const (
	None                Mutation = iota
	UseBeforeCommit              // a block is allocated from when it was asked for
	GiveBeforeStop               // a block that is being given back is allocated from
	OfferNotDurable              // a crash forgets what is being given back
	RetireWithoutProof           // who joins under a name has the blocks of the one before
	VoteAfterForgetting          // a voter without its ledger goes on under its old identity
	SuccessorEarly               // a host allocates before it has caught up
	TrustOldState                // an old copy of the state directory is taken for the state
	KernelNotCounted             // attachments that the kernel shows are not claims
	StaleWins                    // an old copy of the ledger takes the place of a newer one
	FoundingForgets              // whoever answers counts as an acceptor, also one that forgot
	GiveUnderContainers          // a network that is being removed is given back before its containers are gone
	lastMutation
)

func (m Mutation) String() string {
	return [...]string{"none", "use before commit", "give back before stopping", "offer not durable", "retired without proof",
		"voter that forgot votes again", "successor allocates before it has caught up", "old state restored and trusted",
		"kernel claims not counted", "stale copy of the ledger wins", "founding counts those who forgot",
		"network given back under its containers"}[m]
}

// Scenario is the one that is meant to catch the mistake; others may, too.
func (m Mutation) Scenario() *Scenario {
	return ByName([...]string{"everything", "network", "gives", "gives", "clone", "forget", "restore", "restore", "forget", "crash", "bootstrap", "registry"}[m])
}

// Mutations lists all.
func Mutations() (all []Mutation) {
	for m := None + 1; m < lastMutation; m++ {
		all = append(all, m)
	}
	return all
}

// replica is the mistake as the replica makes it; 0 for the others.
func (m Mutation) replica() replica.Mutation {
	switch m {
	case RetireWithoutProof:
		return replica.RetireWithoutProof
	case VoteAfterForgetting:
		return replica.VoteAfterForgetting
	case SuccessorEarly:
		return replica.SuccessorEarly
	case TrustOldState:
		return replica.TrustOldState
	case StaleWins:
		return replica.StaleWins
	}
	return 0
}
