package replica

import (
	"net/netip"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// What a router of the first release would replay holds nothing that it cannot read: it
// would stand still in front of that, and give what others own by now.
func TestNoStoreHasAnEntryAfterItsSnapshotThatTheFirstReleaseCannotRead(t *testing.T) {
	w := three(t, 52)
	lead := w.leader()
	decided := func(c ledger.Command) {
		t.Helper()
		ticket := lead.propose(c)
		w.until("it is applied", 300, func() bool { _, ok := lead.results[ticket]; return ok })
		if d := lead.results[ticket]; d.Err != nil || d.Result.Code != ledger.OK {
			t.Fatalf("%+v", d)
		}
		w.run(30)
	}
	look := func(when string) {
		t.Helper()
		for _, h := range w.hosts {
			for _, e := range h.store.saved.Entries {
				if c, err := ledger.ParseCommand(e.Data); e.Index > h.store.saved.Snapshot.Index && err == nil && !c.Plain() {
					t.Errorf("%s: %s has entry %d behind its snapshot of %d: %+v", when, h.name, e.Index, h.store.saved.Snapshot.Index, c)
				}
			}
		}
	}
	decided(ledger.Command{AddNetwork: &ledger.AddNetwork{Network: ledger.Network{
		Name: "n", Driver: "weave", MTU: 1400, Subnets: []netip.Prefix{netip.MustParsePrefix("10.48.0.0/24")}}}})
	before := lead.store.saved.Snapshot.Index
	if decided(ledger.Command{Take: &ledger.Take{ID: lead.id, Network: "weave", Subnet: subnet4, Want: 1}}); lead.store.saved.Snapshot.Index != before {
		t.Errorf("a snapshot at %d, which costs, for what every release reads", lead.store.saved.Snapshot.Index)
	}
	n, _ := lead.state.Network("n")
	decided(ledger.Command{CloseNetwork: &ledger.CloseNetwork{Name: "n", ID: n.ID}})
	look("closed")
	decided(ledger.Command{DelNetwork: &ledger.DelNetwork{Name: "n", ID: n.ID}})
	look("removed")
	if lead.store.saved.Snapshot.Index == before {
		t.Error("no snapshot")
	}
}
