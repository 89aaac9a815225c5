package replica

import (
	"testing"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Each mistake does what it says; that it is noticed is the simulator's to show.

func TestTrustingAnOldStateMakesItReadyAtOnce(t *testing.T) {
	w := three(t, 51)
	w.mutate = TrustOldState
	h := w.follower()
	backup := h.store.Copy()
	h.taken(1)
	h.kill()
	h.store, w.unvouched = backup, true
	h.start()
	if !h.core.Ready() || h.core.trial != nil {
		t.Errorf("%+v", h.core.Status())
	}
}

func TestAForgetfulVoterVotesOnTrial(t *testing.T) {
	for _, m := range []Mutation{0, VoteAfterForgetting} {
		w := three(t, 52)
		h := w.follower()
		for _, x := range w.hosts {
			x.kill()
		}
		w.unvouched, w.mutate = true, m
		h.start()
		before := h.store.saved.Hard.Term
		frame := &frame{Cluster: "c1", From: w.hosts[0].id, To: h.id, Life: 1 << 40, Kind: kindRaft, Raft: &message{Type: 5, Term: before + 5, LogTerm: before + 5, Index: 1 << 20}}
		if w.hosts[0] == h {
			frame.From = w.hosts[1].id
		}
		b, err := frame.pack(w.codec)
		if err != nil {
			t.Fatal(err)
		}
		from, _ := h.state.Member(frame.From)
		h.core.Receive(gossip.Peer(from.Name), b)
		h.settle()
		if voted := h.store.saved.Hard.Vote == uint64(frame.From); voted != (m != 0) {
			t.Errorf("mutation %d: voted %v", m, voted)
		}
	}
}

func TestAnEarlySuccessorIsReadyThoughRetired(t *testing.T) {
	w := three(t, 53)
	w.mutate = SuccessorEarly
	h := w.follower()
	h.kill()
	l := w.leader()
	l.propose(ledger.Command{Retire: &ledger.Retire{ID: h.id}})
	w.run(5)
	w.unvouched = true
	h.start()
	if !h.core.Ready() {
		t.Error("it is not")
	}
}

func TestAnUnprovedSuccessorGetsTheBlocks(t *testing.T) {
	for _, m := range []Mutation{0, RetireWithoutProof} {
		w := three(t, 54)
		w.hosts[2].taken(16)
		for _, h := range w.hosts { // with the mutation from now on
			h.kill()
		}
		w.mutate = m
		h := w.hosts[2]
		w.hosts[0].start()
		w.hosts[1].start()
		w.run(80)
		h.rebirth()
		h.found, h.place = nil, ledger.Place{Machine: "clone", Boot: "x", NetNS: "n"}
		h.start()
		w.until("it is a member", 200, h.core.Ready)
		if got := len(h.usable(subnet4)) > 0; got != (m != 0) {
			t.Errorf("mutation %d: it has blocks: %v", m, got)
		}
	}
}

func TestAStaleCandidateIsElected(t *testing.T) {
	for _, m := range []Mutation{0, StaleWins} {
		w := three(t, 55)
		h := w.follower()
		frame := &frame{Cluster: "c1", From: w.leader().id, To: h.id, Life: 1 << 40, Kind: kindRaft, Raft: &message{Type: 5, Term: 99, LogTerm: 1, Index: 1}}
		b, err := frame.pack(w.codec)
		if err != nil {
			t.Fatal(err)
		}
		from := w.leader().name
		w.mutate = m
		h.kill()
		h.start()
		h.core.Receive(from, b)
		h.settle()
		if voted := h.store.saved.Hard.Vote == uint64(frame.From) && h.store.saved.Hard.Term == 99; voted != (m != 0) {
			t.Errorf("mutation %d: voted %v", m, voted)
		}
	}
}
