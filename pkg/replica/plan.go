package replica

import (
	"cmp"
	"iter"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Who has a vote. An odd number: with two voters the loss of either stops the
// ledger, with one only the loss of that one; four stand no more losses than three.
const (
	maxVoters  = 5
	silentFor  = 600 // ticks after which a voter that is not heard is replaced
	freshFor   = 20  // ticks for which a member counts as there
	unevenFor  = 600 // ticks that an even number of voters may last when no learner is at hand
	behindAtUp = 64  // entries that a learner may lack to count as caught up
)

// view is what the leader knows when it decides about the configuration.
type view struct {
	self    uint64
	conf    Conf
	member  func(ledger.MemberID) (ledger.Member, bool)
	members iter.Seq[ledger.Member]
	silence func(id uint64) uint64 // ticks since the member was heard; 0 for oneself
	caught  func(id uint64) bool   // its log is nearly the leader's
	uneven  uint64                 // ticks for which the number of voters has been even
	times   Times
}

// next is the change to make now, if any. It is a pure function: the leader asks
// it again after each change.
func (v view) next() (ch change, ok bool) {
	if len(v.conf.Outgoing) > 0 {
		return nil, false // raft itself ends this
	}
	for _, rule := range []func() change{v.removeStrangers, v.addLearner, v.replaceSilent, v.promote, v.evenOut} {
		if ch := rule(); ch != nil {
			return ch, true
		}
	}
	return nil, false
}

func (v view) live(id uint64) bool {
	m, ok := v.member(ledger.MemberID(id))
	return ok && m.Live()
}

func (v view) fresh(id uint64) bool { return v.silence(id) <= freshFor }

// stands reports whether after the change a majority of the voters is there.
func (v view) stands(ch change) bool {
	after, ok := v.conf.with(ch)
	n := 0
	for _, id := range after.Voters {
		if v.fresh(id) {
			n++
		}
	}
	return ok && n > len(after.Voters)/2
}

// removeStrangers drops who has left or was replaced, but for oneself: a leader that
// removes itself can do nothing for the others. It hands over.
func (v view) removeStrangers() change {
	for _, id := range slices.Concat(v.conf.Learners, v.conf.Voters) {
		if v.live(id) || id == v.self {
			continue
		}
		if ch := (change{{raftpb.ConfChangeRemoveNode, id}}); v.stands(ch) {
			return ch
		}
	}
	return nil
}

// addLearner lets a member of the ledger follow.
func (v view) addLearner() change {
	missing := 0
	for m := range v.members {
		if m.Live() {
			missing++
		}
	}
	for _, ids := range [][]uint64{v.conf.Voters, v.conf.Learners} {
		for _, id := range ids {
			if v.live(id) {
				missing--
			}
		}
	}
	if missing == 0 {
		return nil
	}
	for m := range v.members {
		if m.Live() && !v.conf.has(uint64(m.ID)) {
			return change{{raftpb.ConfChangeAddLearnerNode, uint64(m.ID)}}
		}
	}
	return nil
}

// replaceSilent takes the vote of one who has been away for long, when somebody
// is there to have it, or when without that one who has left could not go; that one
// does not wait for as long.
func (v view) replaceSilent() change {
	stranger := slices.ContainsFunc(v.conf.Voters, func(id uint64) bool { return !v.live(id) })
	if len(v.candidates()) == 0 && !stranger {
		return nil
	}
	limit := v.times.Silent
	if stranger {
		limit = min(limit, v.times.Relieve/2)
	}
	return v.demote(func(id uint64) bool { return v.silence(id) > limit })
}

func (v view) demote(which func(id uint64) bool) change {
	for _, id := range v.conf.Voters {
		if id == v.self || !which(id) {
			continue
		}
		if ch := (change{{raftpb.ConfChangeAddLearnerNode, id}}); v.stands(ch) {
			return ch
		}
	}
	return nil
}

// candidates are the learners that could have a vote, the oldest member first.
func (v view) candidates() (ids []uint64) {
	for _, id := range v.conf.Learners {
		if v.live(id) && v.fresh(id) && v.caught(id) {
			ids = append(ids, id)
		}
	}
	since := func(id uint64) uint64 {
		m, _ := v.member(ledger.MemberID(id))
		return m.Since
	}
	slices.SortFunc(ids, func(a, b uint64) int { return cmp.Or(cmp.Compare(since(a), since(b)), cmp.Compare(a, b)) })
	return ids
}

// target is how many voters there should be: the largest odd number that there can be.
func (v view) target(candidates int) int {
	n := min(maxVoters, len(v.conf.Voters)+candidates)
	return max(n-1+n%2, 1)
}

// promote gives votes, two at once where that keeps their number odd: so there is
// no moment at which the loss of one of two voters would stop the ledger for good.
func (v view) promote() change {
	stay := 0 // a leader that has left makes room
	for _, id := range v.conf.Voters {
		if v.live(id) {
			stay++
		}
	}
	ready := v.candidates()
	want := min(v.target(len(ready))-stay, len(ready), 2)
	if want <= 0 {
		return nil
	}
	var ch change
	for _, id := range ready[:want] {
		ch = append(ch, step{raftpb.ConfChangeAddNode, id})
	}
	if !v.stands(ch) {
		return nil
	}
	return ch
}

// evenOut takes a vote away when an even number has lasted: of one who is away,
// else of the last.
func (v view) evenOut() change {
	if v.uneven < v.times.Uneven || len(v.conf.Voters) <= v.target(0) {
		return nil
	}
	if ch := v.demote(func(id uint64) bool { return !v.fresh(id) }); ch != nil {
		return ch
	}
	others := slices.DeleteFunc(slices.Clone(v.conf.Voters), func(id uint64) bool { return id == v.self })
	return v.demote(func(id uint64) bool { return id == others[len(others)-1] })
}
