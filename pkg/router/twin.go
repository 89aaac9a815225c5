package router

import (
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
)

// twinOf is what shows that another router runs with the state directory of self, or a
// copy of it: one of the two refuses the other, or a third host refuses us for it.
func twinOf(self gossip.Peer, lines []meshlink.PeerStatus, now time.Time) string {
	for _, l := range lines {
		if l.Twin && (l.Theirs || l.Name == self) && l.Fresh(now) {
			return l.Detail
		}
	}
	return ""
}

// lastSession is how long others may take this host's last life for alive: silence ends
// its session with them, on a network that loses the word of its end.
const lastSession = 15 * time.Second

// ofItself reports whether what looks like a twin may be this host's last life: its
// state was vouched for, so that was here, and has ended.
func ofItself(vouched bool, age time.Duration) bool { return vouched && age < lastSession }

func (r *Router) twin() string { return twinOf(r.id.Name(), r.link.Status(), time.Now()) }

// copied is why this host gives no address, though it has some: another router has the
// same state directory, and nobody says which of the two is the member. Whom a leader
// hears goes on; of the other, it would know.
func (r *Router) copied() string {
	leader := r.replica.Status().Leader // first, since each ADD asks and to ask the link costs more
	if leader != "" && (leader != string(r.id.Name()) || len(r.link.Peers()) > 0) || ofItself(r.vouched, time.Since(r.started)) {
		return ""
	}
	why := r.twin()
	if why == "" {
		return ""
	}
	return why + ": this host gives no address until it hears a leader of its cluster or the other router has ended. " +
		"Stop the router on the host that the state directory was copied to, remove it there, and start again"
}

// notCopied refuses to give an address while that is not sure.
func (r *Router) notCopied() error {
	if why := r.copied(); why != "" {
		return &ctl.Error{Code: ctl.CodeTryAgain, Msg: "this host's state directory may be in use twice", Details: why}
	}
	return nil
}
