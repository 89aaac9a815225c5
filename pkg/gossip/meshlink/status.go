package meshlink

import (
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/internal/carrier"
)

// PeerStatus is one line about a peer, or about an address where none has
// answered yet.
type PeerStatus struct {
	Name   gossip.Peer // "" as long as nobody has answered there
	Addr   string      // where we reach it; "" if it called us, or others reach it for us
	State  string      // "connected", "relayed", "dialling" or "refused"
	Detail string      // why not connected, in words
	Hello  Hello       // of a connected peer, as it last said
}

// relayed is the state of a peer that others reach for us.
const relayed = "relayed"

// Status lists every peer and every address that is being dialled, by name. A
// peer that is relayed and dialled has the one line that says both.
func (l *Link) Status() []PeerStatus {
	var out []PeerStatus
	line := map[gossip.Peer]int{}
	for _, s := range l.carrier.Status() {
		if _, there := line[s.Name]; there && s.Name != "" {
			continue // another address of the same peer
		}
		line[s.Name] = len(out)
		out = append(out, PeerStatus{s.Name, s.Addr, string(s.State), s.Detail, s.Hello})
	}
	for _, p := range l.view.Load().peers {
		if i, there := line[p]; !there {
			out = append(out, PeerStatus{Name: p, State: relayed})
		} else if out[i].State != string(carrier.Connected) {
			out[i].State = relayed
		}
	}
	slices.SortFunc(out, func(a, b PeerStatus) int {
		return strings.Compare(string(a.Name)+" "+a.Addr, string(b.Name)+" "+b.Addr)
	})
	return out
}
