package replica

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// TestTheConfigurationComesToRest: from any configuration that stands, with any
// hosts there, away or gone, the leader's changes end; after each of them a
// majority is there; and where they end the voters are an odd number, all members,
// as many as there can be.
func TestTheConfigurationComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "hosts")
		v := view{self: 1, uneven: unevenFor, times: Times{}.orUsual(), caught: func(uint64) bool { return true }}
		var members []ledger.Member
		v.members = func(yield func(ledger.Member) bool) { slices.Values(members)(yield) }
		v.member = func(id ledger.MemberID) (ledger.Member, bool) {
			i := slices.IndexFunc(members, func(m ledger.Member) bool { return m.ID == id })
			return members[i], true
		}
		silence := map[uint64]uint64{}
		for i := range n {
			id := uint64(i + 1)
			m := ledger.Member{ID: ledger.MemberID(id), Name: "x", Since: id}
			if id > 1 {
				silence[id] = rapid.SampledFrom([]uint64{0, 0, 0, 100, 10000}).Draw(t, "silence")
				m.Left = rapid.IntRange(0, 5).Draw(t, "left") == 0
			}
			members = append(members, m)
			switch rapid.IntRange(0, 2).Draw(t, "role") {
			case 0:
				v.conf.Voters = append(v.conf.Voters, id)
			case 1:
				v.conf.Learners = append(v.conf.Learners, id)
			}
		}
		if !slices.Contains(v.conf.Voters, 1) {
			v.conf.Learners = slices.DeleteFunc(v.conf.Learners, func(id uint64) bool { return id == 1 })
			v.conf.Voters = append([]uint64{1}, v.conf.Voters...)
		}
		v.silence = func(id uint64) uint64 { return silence[id] }
		if there := standing(v.conf.Voters, silence); !there {
			t.Skip("no majority to begin with")
		}
		for range 40 {
			ch, ok := v.next()
			if !ok {
				atRest(t, v, silence)
				return
			}
			after, possible := v.conf.with(ch)
			if !possible {
				t.Fatalf("%v of %v is not possible", ch, v.conf)
			}
			after.Outgoing = nil // raft ends that by itself
			if v.conf = after; !standing(v.conf.Voters, silence) {
				t.Fatalf("after %v no majority of %v is there", ch, v.conf)
			}
		}
		t.Fatalf("it goes on changing: %v", v.conf)
	})
}

func standing(voters []uint64, silence map[uint64]uint64) bool {
	there := 0
	for _, id := range voters {
		if silence[id] <= freshFor {
			there++
		}
	}
	return there > len(voters)/2
}

func atRest(t *rapid.T, v view, silence map[uint64]uint64) {
	ready, gone, maybe := 0, 0, false
	for m := range v.members {
		if id := uint64(m.ID); m.Live() && silence[id] <= freshFor && !slices.Contains(v.conf.Voters, id) {
			ready++
		}
	}
	for _, id := range v.conf.Voters {
		if !v.live(id) {
			gone++
		}
		maybe = maybe || silence[id] > freshFor && silence[id] <= silentFor
	}
	if k := len(v.conf.Voters); k%2 == 0 || k > maxVoters && ready > 0 || k+1 < maxVoters && ready >= 2 || gone > 0 && !maybe {
		t.Fatalf("rests at %v with %d who could vote and %d who should not", v.conf, ready, gone)
	}
}

func TestRaftComputesTheSameConfigurations(t *testing.T) {
	// applyConf panics when it does not; this runs it through every kind of change.
	w := newWorld(t, 1, 7)
	w.startAll()
	w.until("five voters", 300, func() bool { return len(w.leader().core.conf.Voters) == 5 })
	{
		got := Conf{Voters: []uint64{1}}
		if _, ok := got.with(change{{raftpb.ConfChangeRemoveNode, 1}}); ok {
			t.Error("the last voter was removed")
		}
		if _, ok := got.with(nil); ok {
			t.Error("two majorities ended that never began")
		}
		joint, ok := Conf{Voters: []uint64{1}, Learners: []uint64{2, 3}}.with(change{{raftpb.ConfChangeAddNode, 3}, {raftpb.ConfChangeAddNode, 2}})
		if !ok || !slices.Equal(joint.Voters, []uint64{1, 2, 3}) || !slices.Equal(joint.Outgoing, []uint64{1}) {
			t.Errorf("%v", joint)
		}
		if _, ok := joint.with(change{{raftpb.ConfChangeAddNode, 4}}); ok {
			t.Error("a change in the time of two majorities")
		}
	}
}
