package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// Times of a removal.
const (
	endEvery   = time.Second     // how often it is looked whether the last container is gone
	endWithin  = 5 * time.Second // for one DelNetwork
	othersTurn = 3 * time.Second // a network without owners stays so long for the leader's host to remove
)

// endNetworks takes networks down that are being removed, whenever the ledger moves, a
// container has ended, and endEvery. Its order is that of the registry's second and third
// step (docs/design/addresses.md): containers, bridge, addresses, definition.
func (r *Router) endNetworks(ctx context.Context) error {
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	empty := map[string]time.Time{} // networks that nobody owns a block of, by id, since
	for {
		changed := r.replica.Changed()
		if r.replica.Ready() && !r.resetting.Load() {
			r.endOnce(ctx, empty)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-r.ends:
		case <-tick.C:
		}
	}
}

func (r *Router) endOnce(ctx context.Context, empty map[string]time.Time) {
	state := r.replica.State()
	all := state.Networks()
	closing := slices.DeleteFunc(slices.Clone(all), func(n ledger.Network) bool { return !n.Closing })
	for _, n := range closing {
		if n.Forced {
			r.evict(ctx, n)
		}
	}
	r.vacate(closing)
	r.dropGone(all)
	for id := range empty {
		if !slices.ContainsFunc(closing, func(n ledger.Network) bool { return n.ID == id }) {
			delete(empty, id)
		}
	}
	for _, n := range closing {
		if len(state.Holders(n.Name)) > 0 {
			continue
		}
		if _, known := empty[n.ID]; !known {
			empty[n.ID] = time.Now()
		}
		if r.replica.Status().Leader == string(r.id.Name()) || time.Since(empty[n.ID]) > othersTurn {
			r.delete(ctx, n)
		}
	}
}

// delete proposes the end of a network. Several hosts may: it happens once.
func (r *Router) delete(ctx context.Context, n ledger.Network) {
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	res, err := r.replica.Propose(ctx, ledger.Command{DelNetwork: &ledger.DelNetwork{Name: n.Name, ID: n.ID}})
	switch {
	case err != nil:
		r.log.Debug("the ledger does not remove a network yet", "network", n.Name, "error", err)
	case res.Code == ledger.OK:
		r.log.Info("network removed", "network", n.Name)
	}
}

// evict detaches the containers of a network whose removal is forced, all but those of
// an ADD under way, which fails by itself or is detached after it, and those that are not
// detachable.
func (r *Router) evict(ctx context.Context, n ledger.Network) {
	var all sync.WaitGroup
	for _, c := range r.ipam.Dwellers(n.Name) {
		if !detachable(c) || c.State != book.Attached {
			continue
		}
		all.Go(func() {
			err := r.reaper.Delete(ctx, c.Veth(), c.Hash)
			if err == nil {
				r.withdraw(c.Hash)
				err = r.ipam.ReleaseHash(c.Hash)
			}
			if err != nil {
				r.log.Error("a container stays on a network that is being removed", "network", n.Name, "container", c.Key.ContainerID, "error", err)
				return
			}
			r.log.Warn("a container was detached: its network is removed by force", "network", n.Name, "container", c.Key.ContainerID, "interface", c.Key.IfName)
		})
	}
	all.Wait()
}

// tornAtOnce is how many networks are taken down in one go. The kernel has whoever deletes
// a device wait, and for hardly longer when it deletes some together; meanwhile no bridge
// of another network is made here.
const tornAtOnce = 16

// vacate gives those networks back that nobody here uses any more: bridge and device
// first, so that nothing on this host has an address of one when the ledger hears that it
// is free.
func (r *Router) vacate(closing []ledger.Network) {
	unused := slices.DeleteFunc(slices.Clone(closing), func(n ledger.Network) bool { return len(r.ipam.Dwellers(n.Name)) > 0 })
	for some := range slices.Chunk(unused, tornAtOnce) {
		failed := r.tearDown(some)
		down := map[string]bool{}
		for _, n := range some {
			if err := failed[n.ID]; err != nil {
				r.log.Error("a network that is being removed stays on this host", "network", n.Name, "error", err)
			}
			down[n.Name] = failed[n.ID] == nil
		}
		r.giveBack(down)
	}
}

// giveBack gives back what this host has of those networks, by name, of which nothing
// stands here any more.
func (r *Router) giveBack(down map[string]bool) {
	for _, name := range r.ipam.Vacant() {
		if !down[name] {
			continue
		}
		held, err := r.ipam.Vacate(name)
		if err == nil && len(held) > 0 {
			err = fmt.Errorf("containers were found meanwhile: %v", firstOf(held))
		}
		if err != nil {
			r.log.Error("a network that is being removed is not given back", "network", name, "error", err)
		}
	}
}

// tearDown removes what networks have in this host's kernel, all of them together, and
// takes back what this host has told of them. It says by their ids which it could not.
func (r *Router) tearDown(all []ledger.Network) map[string]error {
	r.bridges.Lock()
	defer r.bridges.Unlock()
	all = slices.DeleteFunc(slices.Clone(all), func(n ledger.Network) bool { return r.torn[n.ID] })
	if len(all) == 0 {
		return nil
	}
	r.fallen(all) // before their devices: follow is not to miss them
	var devices, of []string
	for _, n := range all {
		if n.Driver == ctl.DriverWeave {
			devices, of = append(devices, deviceName(n)), append(of, n.ID)
		}
		if r.serves(n) {
			devices, of = append(devices, bridgeName(n)), append(of, n.ID)
		}
	}
	failed := map[string]error{}
	for i, err := range netdev.DeleteLinks(devices...) {
		if err != nil {
			failed[of[i]] = errors.Join(failed[of[i]], err)
		}
	}
	for _, n := range all {
		if failed[n.ID] == nil {
			r.metrics.dropped(n.ID)
			r.torn[n.ID] = true
			r.withdrawBridge(n)
		}
	}
	poke(r.kick) // resolver and firewall follow
	return failed
}

// fallen notes that networks stand here no more.
func (r *Router) fallen(all []ledger.Network) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range all {
		delete(r.networks, n.ID)
	}
}
