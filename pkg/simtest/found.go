package simtest

import (
	"github.com/weave-cni/weave-cni/pkg/founding"
	"github.com/weave-cni/weave-cni/pkg/gossip"
)

// startFounding is the start of a router that was told to found together with others.
func (r *router) startFounding() {
	core, err := founding.New(founding.Config{
		Self: founding.Host{Name: r.m.name, ID: r.id}, Hosts: r.m.flags.bootstrap, Cluster: r.m.clusterID(),
		Network: &r.w.network, Saved: r.m.state.founding, Forgetful: r.w.mistake == FoundingForgets,
	})
	if err != nil {
		r.w.fail("%v: start of the founding: %v", r.m, err)
	}
	r.found = core
	r.settleFounding()
}

func (r *router) settleFounding() {
	for r.found.Pending() {
		s, changed := r.found.Begin()
		if changed {
			r.m.persist()
			r.m.state.founding = s
			r.m.saved()
			r.m.persist()
		}
		for _, o := range r.found.Finish() {
			r.w.net.send(r.m.at, o.To, packet{kind: toFounding, msg: o.Msg})
		}
	}
	v := r.found.Decided()
	if v == nil {
		return
	}
	r.w.tracef("%v: decided: %s founds %s", r.m, v.Founder.Name, v.Cluster)
	r.m.persist()
	r.m.state.decided = v
	r.m.saved()
	r.found = nil
	r.startCore(false, r.foundCommand())
}

// tellDecided answers those who found still.
func (r *router) tellDecided(from gossip.Peer, msg []byte) {
	core, err := founding.New(founding.Config{
		Self: founding.Host{Name: r.m.name, ID: r.id}, Hosts: r.m.flags.bootstrap, Cluster: r.m.clusterID(),
		Network: &r.w.network, Saved: r.m.state.founding,
	})
	if err != nil {
		r.w.fail("%v: start of the founding: %v", r.m, err)
	}
	core.Receive(from, msg)
	for _, o := range core.Finish() {
		r.w.net.send(r.m.at, o.To, packet{kind: toFounding, msg: o.Msg})
	}
}
