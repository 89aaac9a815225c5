package router

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/gossip/gossiptest"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/replica"
	"github.com/weave-cni/weave-cni/pkg/replica/store"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

type fullDisk struct{ *store.File }

var errFull = errors.New("no space left on device")

func (fullDisk) Save(replica.Batch) error { return errFull }

func TestAFoundingThatBreaksOffIsDoneByTheNextStart(t *testing.T) {
	c := Defaults()
	c.StateDir, c.RunDir, c.Init = t.TempDir(), t.TempDir(), InitNew
	start := func() *Router {
		r := &Router{config: c, log: slog.New(slog.DiscardHandler), codec: wire.New()}
		must(t, r.openMemory(t.Context()))
		if s, err := r.situation(); err != nil || s.begin() != founds || !r.stateless {
			t.Fatalf("%+v begins with %d, %v; stateless %v, the state is %+v", s, s.begin(), err, r.stateless, r.store.Mark())
		}
		return r
	}
	r := start()
	self := ledger.Member{ID: ledger.MemberID(r.id.MemberID()), Name: string(r.id.Name())}
	fabric := gossiptest.New(1)
	fabric.Add("a")
	found := &ledger.Command{Found: &ledger.Found{Cluster: "c1", Network: *r.firstNetwork()}}
	if _, err := replica.New(replica.Config{Self: self, Net: fabric.Node("a"), Store: fullDisk{r.store}, Found: found}); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	if r.store.Mark().Generation == 0 {
		t.Error("nothing was loaded")
	}
	r.close()
	start().close()
}
