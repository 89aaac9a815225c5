package replica

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// seedFrames is one frame of each kind, and some that lie.
func seedFrames(t testing.TB, to ledger.MemberID) [][]byte {
	cc, err := proto.Marshal(change{{raftpb.ConfChangeRemoveNode, uint64(to)}}.v2())
	if err != nil {
		t.Fatal(err)
	}
	codec := wire.New()
	var all [][]byte
	for _, f := range []frame{
		{Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgApp), Term: 9, LogTerm: 1, Index: 2, Commit: 1 << 40, Entries: []Entry{{3, 9, 0, []byte("x")}, {4, 9, 2, cc}}}},
		{Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgHeartbeat), Term: 9, Commit: 1 << 40}},
		{Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgAppResp), Term: 1, Index: 1 << 40}},
		{Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgVote), Term: 1 << 61, Index: 1 << 40, LogTerm: 1 << 60}},
		{Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgPreVote), Term: 3, Index: 9, LogTerm: 2}},
		{Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgSnap), Term: 9, Snapshot: &snapMeta{50, 9, Conf{Voters: []uint64{uint64(to)}}}}, Part: &part{0, 1, []byte{0xa0}}},
		{Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgTimeoutNow), Term: 9}},
		{Kind: kindPropose, Command: &ledger.Command{From: 2, Seq: 1, Leave: &ledger.Leave{ID: 2}}},
		{Kind: kindJoin, Member: &ledger.Member{ID: 2, Name: "b"}},
		{Kind: kindRefused, Words: "no"},
		{Kind: kindGone, Words: "gone"},
		{Kind: kindObjection, Words: "old"},
		{Kind: kindCheck, Trial: true, Life: 5 << 32, Check: &check{Member: ledger.Member{ID: 2, Name: "b"}, Last: 1, Seq: 5 << 32}},
		{Kind: kindAnswer, Answer: &answer{Index: 1 << 40, Term: 3, Leading: true, Conf: Conf{Voters: []uint64{2}}}},
	} {
		f.Cluster, f.From, f.To = "c1", 2, to
		b, err := f.pack(codec)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	unknown := append([]byte(nil), all[len(all)-1]...)
	unknown[1] = 99
	return append(all, unknown)
}

// FuzzReceive hands any bytes to a core that leads and to one that is new. Neither
// panics, even inside raft, and both go on; the leader's blocks stay its own.
func FuzzReceive(f *testing.F) {
	for _, b := range seedFrames(f, 1) {
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, found := range []*ledger.Command{foundCommand("c1"), nil} {
			c, _, err := NewCore(CoreConfig{Self: ledger.Member{ID: 1, Name: "a"}, Found: found})
			if err != nil {
				t.Fatal(err)
			}
			c.SetPeers([]gossip.Peer{"b"})
			settle := func() {
				for c.Pending() {
					c.Begin()
					c.Finish()
				}
			}
			settle()
			c.Receive("b", b)
			settle()
			c.Receive("b", b)
			settle()
			for range 25 {
				c.Tick()
				settle()
			}
			if n := c.Counters().Panics; n > 0 {
				t.Fatalf("raft panicked %d times", n)
			}
			if found != nil && c.State().Cluster() != "c1" {
				t.Fatal("the ledger is another's")
			}
		}
	})
}

func FuzzDecodeFrame(f *testing.F) {
	for _, b := range seedFrames(f, 1) {
		f.Add(b)
	}
	codec := wire.New()
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := decodeFrame(codec, b)
		if err != nil {
			return
		}
		again, err := fr.pack(codec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeFrame(codec, again); err != nil {
			t.Fatalf("what was accepted once is not accepted again: %v", err)
		}
	})
}

func TestHostileFramesChangeNothing(t *testing.T) {
	w := newWorld(t, 3, 3)
	w.startAll()
	w.run(50)
	l := w.leader()
	for _, h := range w.hosts {
		index := h.state.Index()
		for _, b := range seedFrames(t, h.id) {
			for n := range len(b) { // also cut short, and with a bit turned
				h.core.Receive("stranger", b[:n])
				x := append([]byte(nil), b...)
				x[n] ^= 1 << (n % 8)
				h.core.Receive("stranger", x)
			}
			h.core.Receive("stranger", make([]byte, gossip.MaxMessage+1))
			h.settle()
		}
		if h.core.Counters().Panics > 0 {
			t.Errorf("%s: raft panicked", h.name)
		}
		if h.state.Index() != index {
			t.Errorf("%s: the ledger changed", h.name)
		}
	}
	w.until("all goes on", 200, func() bool { return w.leader() != nil })
	l.taken(16)
}

// What raft answers to one message points into it until the core settles, and more may
// have come by then.
func TestAMessageOfRaftStaysAsItWasWhenTheNextArrives(t *testing.T) {
	codec := wire.New()
	var p parcel
	read := func(from ledger.MemberID, term uint64) *raftpb.Message {
		f := frame{Cluster: "c1", From: from, To: 9, Kind: kindRaft, Raft: &message{Type: int32(raftpb.MsgHeartbeat), Term: term, Commit: term}}
		b, err := f.pack(codec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.decode(codec, b)
		if err != nil {
			t.Fatal(err)
		}
		return p.proto(got.From, got.To)
	}
	first := read(7, 3)
	read(8, 4)
	if first.GetFrom() != 7 || first.GetTerm() != 3 || first.GetCommit() != 3 {
		t.Errorf("the first message says now: %v", first)
	}
}
