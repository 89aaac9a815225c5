package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/record"
)

// uses is what this host tells of containers that are no endpoints to the others: of each
// network how many, so that nobody elsewhere takes it for unused.
type uses struct {
	news chan struct{} // cap 1: there may be others
	some atomic.Bool   // there were some when it was looked last
}

// ended has the count looked at when an attachment has ended, if it may be one of those.
func (u *uses) ended() {
	if u.some.Load() {
		poke(u.news)
	}
}

// tellUses publishes these counts whenever they have changed, until ctx ends.
func (r *Router) tellUses(ctx context.Context) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	told := map[string]int{}
	for {
		if err := r.tellUsesOnce(told); err != nil {
			r.log.Warn("the other hosts do not hear of what is on networks here", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.uses.news:
		case <-tick.C:
		}
	}
}

func (r *Router) tellUsesOnce(told map[string]int) error {
	now := usesOf(r.replica.State(), r.ipam.Claims())
	r.uses.some.Store(len(now) > 0)
	for id, n := range now {
		if told[id] == n {
			continue
		}
		b, err := r.codec.Encode(overlay.Use{Containers: n})
		if err == nil {
			err = r.exchange.Put(overlay.UsePrefix+id, b)
		}
		if err != nil {
			return err
		}
		told[id] = n
	}
	for id := range told {
		if now[id] > 0 {
			continue
		}
		if err := r.exchange.Delete(overlay.UsePrefix + id); err != nil {
			return err
		}
		delete(told, id)
	}
	return nil
}

// usesOf counts, by the network's id, the containers that other main plugins attached and
// that are told as no endpoint, see publish. Nobody removes the default network.
func usesOf(state *ledger.State, claims []ipam.Claim) map[string]int {
	out := map[string]int{}
	for _, c := range claims {
		if c.Host() || c.Stale() || detachable(c) || len(c.Names) > 0 || c.OnBridge || c.Network == DefaultNetwork {
			continue
		}
		if n, ok := state.Network(c.Network); ok {
			out[n.ID]++
		}
	}
	return out
}

func (r *Router) useChanged(c record.Change) {
	var u overlay.Use
	if c.New == nil {
		r.view.SetUse(c.Origin, c.Key, nil)
		return
	}
	if err := r.codec.Decode(c.New, &u); err != nil || !u.Valid() {
		r.log.Warn("record of a network's use not understood", "host", c.Origin, "key", c.Key, "error", err)
		return
	}
	r.view.SetUse(c.Origin, c.Key, &u)
	r.log.Debug("a host tells of containers that are no endpoints", "host", c.Origin, "key", c.Key, "containers", u.Containers)
}

// foreignUsers say, of each other host, how many containers are on a network there that
// are no endpoints.
func foreignUsers(uses map[gossip.Peer]int) (out []string) {
	for _, host := range slices.Sorted(maps.Keys(uses)) {
		out = append(out, fmt.Sprintf("%s of another main plugin on host %s", amount(uses[host], "container", "containers"), host))
	}
	return out
}

// foreignWaits says what keeps a network that is being removed on other hosts, when it is
// that; "" when it is not.
func (r *Router) foreignWaits(n ledger.Network) string {
	users := foreignUsers(r.view.Uses(n.ID))
	if len(users) == 0 {
		return ""
	}
	return strings.Join(firstOf(users), ", ") + ", which --force does not detach: remove them there; `weave net inspect " + n.Name + "` there says which"
}
