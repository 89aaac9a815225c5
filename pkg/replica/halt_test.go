package replica

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// What a newer version has put into the log.
var newCommand = []byte{99, 1, 2, 3}

func TestAnEntryThatCannotBeReadIsNotPassedOver(t *testing.T) {
	w := three(t, 51)
	for _, h := range w.hosts {
		h.taken(16)
	}
	w.run(10)
	last := w.leader().state.Index()
	if err := w.leader().core.raft().Propose(newCommand); err != nil {
		t.Fatal(err)
	}
	w.leader().settle()
	w.run(20)
	for range 2 {
		for _, h := range w.hosts {
			if s := h.core.Status(); !strings.Contains(s.Waiting, "older version") || !strings.Contains(s.Waiting, "upgrade it") || s.Spent != "" || s.Index != last || !s.Ready || h.core.Leading() {
				t.Errorf("%s: %+v", h.name, s)
			}
			if _, err := h.core.Force(); err == nil || !strings.Contains(err.Error(), "upgrade it") {
				t.Errorf("forced: %v", err)
			}
			ticket := h.take(1)
			w.run(10)
			if _, ok := h.results[ticket]; ok {
				t.Errorf("%s: the ledger goes on", h.name)
			}
			h.kill()
			h.start() // the same version again, on the same boot
		}
		w.run(30)
	}
	upgrade := (&ledger.Command{Take: &ledger.Take{ID: w.hosts[0].id, Network: "weave", Subnet: subnet4, Want: 1}}).Append(nil)
	for _, h := range w.hosts {
		h.kill()
		for i, e := range h.store.saved.Entries {
			if bytes.Equal(e.Data, newCommand) {
				h.store.saved.Entries[i].Data = upgrade // which knows it
			}
		}
	}
	for _, h := range w.hosts {
		h.start()
	}
	w.until("it goes on", 100, func() bool { return w.leader() != nil && w.agreed() && w.leader().state.Index() > last })
	w.leader().taken(1)
}

// Replaying, an older version stops before an entry that a newer one has read on this
// host, and then shows as this host's what that one has given back.
func TestAHostThatWentBackToAnOlderVersionGivesNothing(t *testing.T) {
	w := three(t, 55)
	h := w.follower()
	had := h.taken(16).Ranges
	w.leader().taken(1)
	at := w.leader().state.Index()
	ticket := h.propose(ledger.Command{Give: &ledger.Give{ID: h.id, Network: "weave", Ranges: had}})
	w.until("it has given them back", 300, func() bool { _, ok := h.results[ticket]; return ok })
	h.kill()
	for _, older := range []bool{true, false} {
		for i, e := range h.store.saved.Entries {
			if e.Index == at {
				h.store.saved.Entries[i].Data = slices.Concat([]byte{e.Data[0] ^ 99}, e.Data[1:]) // of a format to come, and back
			}
		}
		h.start()
		w.run(10)
		if s := h.core.Status(); s.Ready == older || strings.Contains(s.Waiting, "gives no address until then") != older {
			t.Errorf("older %v: %+v", older, s)
		}
		h.kill()
	}
}

func TestOneThatStandsStillHearsThatItWasGivenUp(t *testing.T) {
	w := three(t, 52)
	h := w.follower()
	h.core.halt(9, errOlder)
	w.leader().propose(ledger.Command{Retire: &ledger.Retire{ID: h.id}})
	w.until("it has heard of it", 1500, func() bool { return strings.Contains(h.core.Spent(), "given up as destroyed") })
}

func TestALedgerOfANewerVersionIsRefusedInWords(t *testing.T) {
	w := three(t, 53)
	l, h := w.leader(), w.follower()
	data := l.core.image().encode()
	data[0]++
	saved, _ := h.store.Load()
	saved.Snapshot = Snapshot{Index: saved.Hard.Commit, Term: saved.Hard.Term, Conf: h.core.conf, Data: data}
	saved.Entries = nil
	if _, _, err := NewCore(CoreConfig{Self: ledger.Member{ID: h.id, Name: string(h.name)}, Saved: saved}); err == nil || !strings.Contains(err.Error(), "upgrade it") {
		t.Errorf("in the state directory: %v", err)
	}
	at := l.state.Index() + 50
	f := frame{
		Cluster: "c1", From: l.id, To: h.id, Kind: kindRaft, Life: l.core.life, Part: &part{0, 1, data},
		Raft: &message{Type: int32(raftpb.MsgSnap), Term: l.core.term, Snapshot: &snapMeta{at, l.core.term, l.core.conf}},
	}
	b, err := f.pack(w.codec)
	if err != nil {
		t.Fatal(err)
	}
	h.core.Receive(l.name, b)
	h.settle()
	if s := h.core.Status(); !strings.Contains(s.Waiting, "upgrade it") || s.Spent != "" || s.Index >= at {
		t.Errorf("from a peer: %+v", s)
	}
	w.run(wordsTicks + 1)
	if s := h.core.Status(); s.Waiting != "" {
		t.Errorf("long after: %+v", s)
	}
}

func TestTwoLogsThatBothCountAsDecidedEndAnIdentityWithWords(t *testing.T) {
	for what, from := range map[string]uint64{"an entry before": 0, "an entry": 1, "one of several": 2} {
		var log bytes.Buffer
		w := three(t, 54)
		l, h := w.leader(), w.follower()
		h.core.log = slog.New(slog.NewTextHandler(&log, nil))
		at := h.state.Index() - from
		before, err := h.core.mem.Term(at)
		if err != nil {
			t.Fatal(err)
		}
		term := h.core.term + 1 // of another leader, which has another entry where ours is decided
		m := &message{Type: int32(raftpb.MsgApp), Term: term, Index: at, LogTerm: before}
		if from == 0 {
			m.LogTerm = term
		}
		for i := range from {
			m.Entries = append(m.Entries, Entry{Index: at + 1 + i, Term: term})
		}
		f := frame{Cluster: "c1", From: l.id, To: h.id, Kind: kindRaft, Life: l.core.life, Raft: m}
		b, err := f.pack(w.codec)
		if err != nil {
			t.Fatal(err)
		}
		h.core.Receive(l.name, b)
		h.settle()
		if s := h.core.Status(); !strings.Contains(s.Spent, "different things for decided") || s.Ready {
			t.Errorf("%s: %+v", what, s)
		}
		if words := log.String(); !strings.Contains(words, "level=ERROR") || !strings.Contains(words, "contradict each other") {
			t.Errorf("%s: the log says %q", what, words)
		}
	}
}

func TestAPanicOfRaftIsLoggedAndOneThatProvesALieEndsTheIdentity(t *testing.T) {
	var log bytes.Buffer
	w := three(t, 56)
	h := w.follower()
	h.core.log = slog.New(slog.NewTextHandler(&log, nil))
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(w.leader().id)), Term: new(uint64(3))}
	h.core.survive("entries[3:4) is unavailable from storage", m)
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "unavailable from storage") || h.core.Spent() != "" || h.core.Counters().Panics != 1 {
		t.Errorf("%q, %q", log.String(), h.core.Spent())
	}
	if h.core.survive("entry 4 conflict with committed entry [committed(5)]", m); h.core.Spent() == "" {
		t.Error("it goes on")
	}
}

func TestACommandThatNoLogTakesIsAnsweredAndKeepsNobodyWaiting(t *testing.T) {
	w := newWorld(t, 55, 1)
	w.startAll()
	h := w.hosts[0]
	g := &ledger.Give{ID: h.id, Network: "weave"}
	for i := range uint64(3000) {
		first, _ := addr.Add(subnet6.Addr(), 4*i)
		g.Ranges = append(g.Ranges, addr.Range{First: first, Last: first.Next()})
	}
	large, next := h.propose(ledger.Command{Give: g}), h.take(4)
	w.run(20)
	if d, ok := h.results[large]; !ok || d.Err != nil || d.Result.Code != ledger.CodeTooMany || !strings.Contains(d.Result.Err, "bytes") {
		t.Errorf("%v, %+v", ok, d)
	}
	if d, ok := h.results[next]; !ok || d.Result.Code != ledger.OK {
		t.Errorf("the next: %v, %+v", ok, d)
	}
	g.Ranges = g.Ranges[:ledger.MaxGive]
	if n := len(ledger.Command{Give: g}.Append(nil)); n > maxCommand-100 {
		t.Errorf("the largest Give has %d bytes", n)
	}
}

// A ledger at all its limits at once can be sent.
func TestALedgerAtItsLimitsFitsIntoASnapshot(t *testing.T) {
	text := strings.Repeat("x", ledger.MaxName)
	high := netip.MustParsePrefix("ff00::/16").Addr()
	d := ledger.Dump{Index: maxNumber, Cluster: text, NextVNI: 1<<24 - 1}
	pieces := make([]addr.Range, 16)
	for i := range pieces {
		pieces[i] = addr.Range{First: high, Last: high}
	}
	for i := range ledger.MaxMembers + 1024 {
		id := 1<<63 + ledger.MemberID(i)
		d.Members = append(d.Members, ledger.Member{ID: id, Name: text, Place: ledger.Place{Machine: text, Boot: text, NetNS: text}, Replaced: id, Since: maxNumber})
		if i < ledger.MaxMembers {
			d.Recalls = append(d.Recalls, ledger.Recall{ID: id, Seq: 1 << 50, Result: ledger.Result{Ranges: pieces}})
		}
	}
	for range ledger.MaxNetworks {
		d.Networks = append(d.Networks, ledger.NetworkDump{
			Network: ledger.Network{ID: text, Name: text, Driver: text, VNI: 1<<24 - 1, MTU: 65535, Subnets: make([]netip.Prefix, ledger.MaxSubnets)},
			Owners:  make([][]ledger.Ownership, ledger.MaxSubnets),
		})
	}
	owned := make([]ledger.Ownership, 122000)
	for i := range owned {
		owned[i] = ledger.Ownership{Member: d.Members[len(d.Members)-1].ID, Range: pieces[0]}
	}
	d.Networks[0].Owners[0] = owned
	for range 4096 {
		d.Needs = append(d.Needs, ledger.Need{Member: 1 << 63, Network: text, Subnet: netip.PrefixFrom(high, 16), Want: 1 << 60, Addr: high})
	}
	n := len(d.Append(nil))
	if t.Logf("%d of %d bytes", n, maxSnapshot); n > maxSnapshot || maxParts*partSize < maxSnapshot {
		t.Error("a ledger may be too large to be sent")
	}
}
