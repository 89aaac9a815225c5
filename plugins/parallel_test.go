package plugins_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/cniconf"
	"github.com/weave-cni/weave-cni/pkg/ctl"
)

// TestOfParallelADDsOneWinsAndKeepsWhatItHas: whoever comes too
// late takes nothing of the winner's back: not its address, not its alias.
func TestOfParallelADDsOneWinsAndKeepsWhatItHas(t *testing.T) {
	each(t, func(t *testing.T, b *bench) {
		const rounds, n = 3, 16
		spaces := []*netNS{newNetNS(t), newNetNS(t)} // the same namespace for half of them, another for the rest
		for round := range rounds {
			answers := make([]answer, n)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() { answers[i] = b.call("ADD", spaces[i%2].path) })
			}
			wg.Wait()
			winner := -1
			for i, a := range answers {
				switch {
				case a.rc == 0 && winner < 0:
					winner = i
				case a.rc == 0:
					t.Errorf("round %d: two ADDs of one attachment succeeded", round)
				case a.err().Code != cniconf.CodeExists && a.err().Code != ctl.CodeTryAgain:
					t.Errorf("round %d: a loser got %v", round, a.err())
				}
			}
			if winner < 0 {
				t.Fatalf("round %d: nobody won", round)
			}
			b.stands(t, answers[winner], spaces[winner%2], spaces[1-winner%2])
			if a := b.call("DEL", spaces[winner%2].path); a.rc != 0 {
				t.Errorf("DEL: %v", a.err())
			}
			if b.held() != 0 {
				t.Errorf("round %d: DEL left %d addresses", round, b.held())
			}
		}
	})
}

// stands checks that a won ADD is as its result says, and that nobody else has anything.
func (b *bench) stands(t *testing.T, won answer, in, other *netNS) {
	t.Helper()
	r := won.result(t)
	if b.held() != 1 {
		t.Errorf("%d addresses are held, want the winner's", b.held())
	}
	if b.r != nil && b.ipam(b.machine)["type"] == "weave-ipam" {
		if _, committed, _ := b.r.held(); committed != 1 {
			t.Errorf("%d attachments are committed", committed)
		}
	}
	if w := other.world(t); strings.Contains(w, "eth0") {
		t.Errorf("a loser left in its container: %s", w)
	}
	if n := strings.Count(b.world(t), "veth"); n != 1 {
		t.Errorf("%d veths on the host", n)
	}
	b.keys["prevResult"] = json.RawMessage(won.stdout)
	if a := b.call("CHECK", in.path); a.rc != 0 {
		t.Errorf("CHECK of the winner: %v", a.err())
	}
	delete(b.keys, "prevResult")
	alias := fmt.Sprint(" ", r.Interfaces[2].Mac, " ", r.IPs[0].Address.String())
	if text := output(t, b.netNS, "ip", "-d", "link", "show", r.Interfaces[1].Name); !strings.Contains(text, alias) {
		t.Errorf("the veth's alias is not the winner's %q: %s", alias, text)
	}
}
