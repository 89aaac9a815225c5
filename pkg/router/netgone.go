package router

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// goneAfter is how long a device's network has to be missing in the ledger. Right after a
// start the leader may not have said yet how far the ledger is.
const goneAfter = 3 * time.Second

// leftovers are networks that have devices here and are not in the ledger.
type leftovers struct {
	looked time.Time
	since  map[string]time.Time // by the 12 digits of the id that are in the devices' names
}

// dropGone takes down what stands of networks that are in the ledger no more: this host
// was away when they went, and owned nothing of them; or it was another member then.
func (r *Router) dropGone(all []ledger.Network) {
	for _, n := range r.standing() {
		if !isThere(all, n.ID) {
			if err := r.tearDown(n.Network); err != nil {
				r.log.Error("a network that is gone stays on this host", "network", n.Name, "error", err)
			}
		}
	}
	r.bridges.Lock()
	defer r.bridges.Unlock()
	for id := range r.torn {
		if !isThere(all, id) {
			delete(r.torn, id)
		}
	}
	if time.Since(r.gone.looked) < goneAfter || !r.knowsAll() {
		return
	}
	r.gone.looked = time.Now()
	if err := r.sweep(all, r.gone.looked); err != nil {
		r.log.Error("what is left of a network that is gone stays on this host", "error", err)
	}
}

// knowsAll reports whether this host's ledger is the leader's, as far as it was told.
func (r *Router) knowsAll() bool {
	s := r.replica.Status()
	return s.Ready && s.Leader != "" && s.Index >= s.Decided
}

// isThere reports whether a network's id begins so.
func isThere(all []ledger.Network, id string) bool {
	return slices.ContainsFunc(all, func(n ledger.Network) bool { return strings.HasPrefix(n.ID, id) })
}

// networkDevices are the devices here that are of networks, by how their names end.
func networkDevices() (byID map[string][]string, err error) {
	names, err := netdev.Devices()
	byID = map[string][]string{}
	for _, name := range names {
		if id := ctl.DeviceID(name, ctl.BridgePrefix, ctl.LocalPrefix, ctl.TunnelPrefix); id != "" {
			byID[id] = append(byID[id], name)
		}
	}
	return byID, err
}

// sweep compares the kernel's devices with the ledger, whatever this life knows of them.
// When none is left of networks that are gone, the claims on this host's addresses there
// end; those of containers stay as long as they do.
func (r *Router) sweep(all []ledger.Network, now time.Time) error {
	devices, err := networkDevices()
	if err != nil {
		return err
	}
	for id := range devices {
		if isThere(all, id) {
			delete(devices, id)
		}
	}
	for id := range r.gone.since {
		if devices[id] == nil {
			delete(r.gone.since, id)
		}
	}
	left := false
	for id, names := range devices {
		since, known := r.gone.since[id]
		if !known {
			r.gone.since[id] = now
		}
		if left = left || !known || now.Sub(since) < goneAfter; !known || now.Sub(since) < goneAfter {
			continue
		}
		for _, name := range names {
			if err := netdev.DeleteLink(name); err != nil {
				return err
			}
		}
		r.log.Warn("the network of these devices is gone, and so are they", "devices", names)
	}
	if left {
		return nil
	}
	return r.ipam.Forsake()
}

// withholds reports whether the others are not to hear of a claim, and notes that: its
// network is gone, or that is not known, since there is no ledger yet. The network of
// that name may be another one by now.
func (r *Router) withholds(c ipam.Claim) bool {
	if c.NetID == "" || !c.Stale() && r.replica.State().Cluster() != "" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.withheld[c.Hash] = true
	return true
}

// rehear has the other hosts hear of claims once the ledger says that their network is
// there, and no more once it says that it is gone.
func (r *Router) rehear() {
	claimed := map[string]bool{}
	for _, c := range r.ipam.Claims() {
		claimed[c.Hash] = true
		r.mu.Lock()
		was := r.withheld[c.Hash]
		r.mu.Unlock()
		switch is := r.withholds(c); {
		case is && !was:
			r.withdraw(c.Hash)
		case was && !is:
			if err := r.publishClaim(c); err != nil {
				r.log.Error("publish an attachment whose network is there", "attachment", c.Hash, "error", err)
			}
			r.mu.Lock()
			delete(r.withheld, c.Hash)
			r.mu.Unlock()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.withheld, func(hash string, _ bool) bool { return !claimed[hash] })
}

// publishClaim is publish, also for this host's own address on a bridge.
func (r *Router) publishClaim(c ipam.Claim) error {
	if c.Host() {
		return r.publishBridge(c.Network, c.Addrs)
	}
	return r.publish(c)
}
