package router

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// What the kernel has is looked at when the kernel says that something may have changed,
// at the next tick of settle; and all of it now and then, since not everything is said.
const (
	wholeLook = 30 * time.Second // at most so much and a half apart: hosts do not look together
	fewLooks  = 8                // networks that are looked at one by one; of more one picture is taken
)

// lookout is what settle knows of the kernel without looking. It is settle's alone.
type lookout struct {
	whole   time.Time       // when everything is to be looked at again
	state   *ledger.State   // of which attachments were compared
	links   uint64          // notices of links, as they were compared
	shown   map[string]bool // attachments, by hash, that were there
	odd     bool            // some were not as they should be
	suspect map[string]bool // networks, by id, that may not stand as they should
	unfit   bool            // the default network did not, when it was looked at last
	forward map[bool]bool   // families, true for IPv6, that the host forwards
}

// watchKernel begins to watch. Whatever changes from here on is looked at.
func (r *Router) watchKernel() (err error) {
	r.lookout = lookout{suspect: map[string]bool{}, forward: map[bool]bool{}}
	r.watch, err = netdev.NewWatch(func(device string) bool {
		return device == DefaultBridge || device == DefaultDevice || networkDigits(device) != ""
	})
	if err == nil {
		r.closers = append(r.closers, r.watch.Close)
	}
	return err
}

// due reports whether everything is to be looked at, and when it was.
func (l *lookout) due(now time.Time) bool {
	if now.Before(l.whole) {
		return false
	}
	l.whole = now.Add(wholeLook + rand.N(wholeLook/2))
	return true
}

// look finds out which networks may not stand as they should, and has their forwarding
// entries compared.
func (r *Router) look(touched netdev.Touched, whole bool) {
	suspects := touchedOf(r.here(), touched.Devices)
	if whole || len(suspects) > fewLooks {
		suspects = r.differing(suspects, whole)
		r.log.Debug("compared networks with one picture of the kernel", "all", whole, "lost", touched.All, "differ", len(suspects))
	}
	if (whole || touched.Settings) && !r.routeStill() {
		suspects = r.here() // each says what it lacks
	}
	for _, n := range suspects {
		r.lookout.suspect[n.ID] = true
		r.view.Touch(n.Name)
	}
}

// touchedOf are the networks of which a device was touched.
func touchedOf(all []ledger.Network, devices map[string]bool) (out []ledger.Network) {
	if len(devices) == 0 {
		return nil
	}
	for _, n := range all {
		if devices[bridgeName(n)] || devices[deviceName(n)] {
			out = append(out, n)
		}
	}
	return out
}

// differing are, of some networks or of all, those that one picture of the kernel shows
// otherwise than they should be; all of them when there is no picture.
func (r *Router) differing(some []ledger.Network, all bool) (out []ledger.Network) {
	if all {
		some = r.here()
	}
	p, err := netdev.Look()
	if err != nil {
		r.log.Warn("look at all devices", "error", err)
		return some
	}
	cluster := r.replica.State().Cluster()
	for _, n := range some {
		if !r.shows(p, n, cluster) {
			out = append(out, n)
		}
	}
	return out
}

// shows reports whether a picture has a network as it should be.
func (r *Router) shows(p *netdev.Picture, def ledger.Network, cluster string) bool {
	r.mu.Lock()
	n := r.networks[def.ID]
	r.mu.Unlock()
	if n == nil {
		return true // nothing is to be there, or it is made without a look
	}
	b := n.bridge()
	b.Cluster = cluster
	return p.Bridge(b) && (!overlaid(def) || p.VXLAN(r.tunnel(def)) && p.Forwarding(b.Name, deviceName(def), r.forwarding(n)))
}

// routeFor lets the host route for a network's containers. That is done once for each
// family, and again when it may have been turned off.
func (r *Router) routeFor(n *network) error {
	var errs []error
	for _, a := range n.addrs {
		if is6 := a.Addr().Is6(); !r.lookout.forward[is6] {
			err := netdev.EnableForwarding(is6)
			r.lookout.forward[is6] = err == nil
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// routeStill has the host route as it did, and reports whether it does.
func (r *Router) routeStill() (ok bool) {
	ok = true
	for is6 := range r.lookout.forward {
		if netdev.EnableForwarding(is6) != nil {
			r.lookout.forward[is6], ok = false, false
		}
	}
	return ok
}

// lookAtAttachments reconciles the claims with the kernel's attachments, unless nothing
// can have changed since it was done last.
func (r *Router) lookAtAttachments(whole bool) {
	state, links := r.replica.State(), r.watch.Links()
	if !whole && state == r.lookout.state && links == r.lookout.links && !r.lookout.odd && r.allShown() {
		return
	}
	r.lookout.state, r.lookout.links = state, links
	r.lookout.odd = !r.reconcile()
	r.sayContested(state)
}

// allShown reports whether the kernel showed, when it was asked last, whatever it is to
// decide about.
func (r *Router) allShown() bool {
	for _, c := range r.ipam.Claims() {
		if c.Decider == ctl.DecidedByVeth && !r.lookout.shown[c.Hash] {
			return false
		}
	}
	return true
}
