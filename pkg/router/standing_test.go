package router

import (
	"errors"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/ledger"
)

func TestANetworkThatStandsAsTheLedgerHasItIsNotLookedAtForEachEntry(t *testing.T) {
	red := ledger.Network{ID: "1", Name: "red", Driver: "weave", VNI: 7, MTU: 1400, Labels: []ledger.Label{{Key: "tier", Value: "db"}}}
	r := &Router{networks: map[string]*network{}, seeks: newSeeks()}
	if r.standsSo(red) {
		t.Error("it stands before it was made")
	}
	was := red
	r.networks[red.ID] = &network{Network: was}
	if !r.standsSo(red) {
		t.Error("it does not stand")
	}
	changed := red
	changed.Labels = []ledger.Label{{Key: "tier", Value: "web"}}
	if r.standsSo(changed) {
		t.Error("its labels are not taken over")
	}
	r.seeks.note(red.ID, errors.New("its bridge has no address"))
	if r.standsSo(red) {
		t.Error("what is wrong with it is not tried again")
	}
	def := ledger.Network{ID: "0", Name: DefaultNetwork}
	r.networks[def.ID] = &network{Network: def}
	if !r.standsSo(def) {
		t.Error("the default network does not stand")
	}
	if r.lookout.unfit = true; r.standsSo(def) {
		t.Error("what is wrong with the default network is forgotten")
	}
}
