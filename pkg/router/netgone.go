package router

import (
	"errors"
	"fmt"
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

// leftovers are networks that have devices here and are not in the ledger, by the 12
// digits of the id that are in the devices' names.
type leftovers struct {
	looked time.Time
	state  *ledger.State // and notices of links, when nothing was left
	links  uint64
	since  map[string]time.Time
	spared map[string]remains // under Router.mu
}

// remains are what this host has of a network that its ledger does not have.
type remains struct {
	gone   []string // devices to delete
	spared string   // a bridge that stays, or ""
	ports  []port   // of the containers that it stays for
}

// dropGone takes down what stands of networks that are in the ledger no more: this host
// was away when they went, and owned nothing of them; or it was another member then.
func (r *Router) dropGone(all []ledger.Network) {
	there := make(map[string]bool, len(all))
	for _, n := range all {
		there[n.ID] = true
	}
	var gone []ledger.Network
	for _, n := range r.standing() {
		if !there[n.ID] {
			gone = append(gone, n.Network)
		}
	}
	for some := range slices.Chunk(gone, tornAtOnce) {
		for id, err := range r.tearDown(some) {
			r.log.Error("a network that is gone stays on this host", "network", id, "error", err)
		}
	}
	r.bridges.Lock()
	defer r.bridges.Unlock()
	maps.DeleteFunc(r.torn, func(id string, _ bool) bool { return !there[id] })
	if time.Since(r.gone.looked) < goneAfter || !r.knowsAll() {
		return
	}
	state, links := r.replica.State(), r.watch.Links()
	if state == r.gone.state && links == r.gone.links && time.Since(r.gone.looked) < wholeLook {
		return
	}
	r.gone.looked, r.gone.state = time.Now(), nil
	left, err := r.sweep(state.Networks(), r.gone.looked)
	switch {
	case err != nil:
		r.log.Error("what is left of a network that is gone stays on this host", "error", err)
	case !left:
		r.gone.state, r.gone.links = state, links
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
	all, err := netdev.Devices()
	byID = map[string][]string{}
	for _, d := range all {
		if id := networkDigits(d.Name); id != "" {
			byID[id] = append(byID[id], d.Name)
		}
	}
	return byID, err
}

// networkDigits is how the id begins of the network that a device is of, "" for none.
func networkDigits(device string) string {
	return ctl.DeviceID(device, ctl.BridgePrefix, ctl.LocalPrefix, ctl.TunnelPrefix)
}

// isGone reports whether a device is of a network that is not among these.
func isGone(networks []ledger.Network, d netdev.Device) bool {
	id := networkDigits(d.Name)
	return id != "" && !isThere(networks, id)
}

// remainsOf compares the kernel's devices with a cluster's ledger. A bridge that another
// cluster made, or that does not say which did, stays as long as it has containers: this
// ledger never knew of them, say because the one that did was damaged. Its tunnel goes
// all the same: none of this cluster's hosts is to be reached by it, and its VNI is, or
// will be, another network's.
func remainsOf(cluster string, networks []ledger.Network, devices []netdev.Device, ports []port) map[string]remains {
	on := map[string][]port{} // by bridge
	for _, p := range ports {
		on[p.bridge] = append(on[p.bridge], p)
	}
	out := map[string]remains{}
	for _, d := range devices {
		if !isGone(networks, d) {
			continue
		}
		id := networkDigits(d.Name)
		m := out[id]
		if held := on[d.Name]; len(held) > 0 && d.Cluster != cluster {
			m.spared, m.ports = d.Name, held
		} else {
			m.gone = append(m.gone, d.Name)
		}
		out[id] = m
	}
	return out
}

// sweep takes down what remains of networks that are gone, whatever this life knows of
// them. When nothing is left, the claims on this host's addresses there end; those of
// containers stay as long as they do. It reports whether something is left.
func (r *Router) sweep(all []ledger.Network, now time.Time) (left bool, err error) {
	devices, err := netdev.Devices()
	if err != nil {
		return true, err
	}
	devices = slices.DeleteFunc(devices, func(d netdev.Device) bool { return !isGone(all, d) })
	var ports []port
	if len(devices) > 0 { // which is rare, and ports are many
		if ports, err = r.ports(); err != nil {
			return true, err
		}
	}
	found := remainsOf(r.replica.State().Cluster(), all, devices, ports)
	for id := range found {
		if _, known := r.gone.since[id]; !known {
			r.gone.since[id] = now
		}
	}
	maps.DeleteFunc(r.gone.since, func(id string, _ time.Time) bool { return len(found[id].gone) == 0 && found[id].spared == "" })
	spared := map[string]remains{}
	for id, m := range found {
		if now.Sub(r.gone.since[id]) < goneAfter {
			left = true
			continue
		}
		if err := r.takeDown(m.gone); err != nil {
			return true, err
		}
		if m.spared != "" {
			left, spared[id] = true, m
		}
	}
	r.noteSpared(spared)
	if left {
		return true, nil
	}
	return false, r.ipam.Forsake()
}

func (r *Router) takeDown(devices []string) error {
	if err := errors.Join(netdev.DeleteLinks(devices...)...); err != nil {
		return err
	}
	if len(devices) > 0 {
		r.log.Warn("the network of these devices is gone, and so are they", "devices", devices)
	}
	return nil
}

// noteSpared keeps which bridges stay, and logs each once.
func (r *Router) noteSpared(now map[string]remains) {
	r.mu.Lock()
	was := r.gone.spared
	r.gone.spared = now
	r.mu.Unlock()
	for id, m := range now {
		if _, known := was[id]; !known {
			r.log.Warn("a bridge is of no network of this cluster, and stays for its containers: end them", "bridge", m.spared, "containers", r.dwellersOf(m))
		}
	}
}

// strays are problem lines, one for each bridge that stays.
func (r *Router) strays() (out []string) {
	r.mu.Lock()
	spared := r.gone.spared // a map that is replaced whole
	r.mu.Unlock()
	for _, m := range spared {
		out = append(out, strayWords(m.spared, r.dwellersOf(m)))
	}
	slices.Sort(out)
	return out
}

func strayWords(bridge string, containers []string) string {
	return fmt.Sprintf("bridge %s is of no network of this cluster, and stays for %s: %s; end them, and it goes; see `weave ps`",
		bridge, amount(len(containers), "container", "containers"), strings.Join(firstOf(containers), ", "))
}

// dwellersOf are the containers that a bridge stays for, each by its id or, where that
// was lost, by its interface here.
func (r *Router) dwellersOf(m remains) (out []string) {
	for _, p := range m.ports {
		name := p.Veth
		if c, ok := r.ipam.Claim(p.Alias.Hash); ok && c.Key.ContainerID != "" {
			name = c.Key.ContainerID
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
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
