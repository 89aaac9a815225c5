package router

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"strings"
	"sync"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// seeks are the searches for this host's own addresses on networks whose bridge does not
// stand yet, one for each at a time. They run beside the settling, which must not wait
// for a ledger that does not answer, nor one network for another.
type seeks struct {
	all sync.WaitGroup

	mu    sync.Mutex
	under map[string]bool   // by the network's id
	done  map[string]bool   // by the network's id: found, in this life
	why   map[string]string // networks that do not stand, or not whole, and why
}

func newSeeks() *seeks {
	return &seeks{under: map[string]bool{}, done: map[string]bool{}, why: map[string]string{}}
}

// begin reports whether no search for a network is under way, and notes that one is.
func (s *seeks) begin(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under[id] {
		return false
	}
	s.under[id] = true
	return true
}

// end notes that a search is over, and whether it found something.
func (s *seeks) end(id string, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.under, id)
	if found {
		s.done[id] = true
	}
}

// forget has the addresses on a network sought anew.
func (s *seeks) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.done, id)
}

func (s *seeks) found(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done[id]
}

// note keeps why a network does not stand, nil for nothing, and reports whether that is news.
func (s *seeks) note(id string, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.why[id]
	if err == nil {
		delete(s.why, id)
		return was != ""
	}
	s.why[id] = err.Error()
	return was != err.Error()
}

// keep forgets what was noted of networks that are not among these.
func (s *seeks) keep(all []ledger.Network) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := make(map[string]bool, len(all))
	for _, n := range all {
		there[n.ID] = true
	}
	maps.DeleteFunc(s.why, func(id string, _ string) bool { return !there[id] })
	maps.DeleteFunc(s.done, func(id string, _ bool) bool { return !there[id] })
}

// ailment says why a network's bridge does not stand as it should; "" when it does.
func (r *Router) ailment(n ledger.Network) string {
	r.seeks.mu.Lock()
	defer r.seeks.mu.Unlock()
	return r.seeks.why[n.ID]
}

// noteAilment keeps and logs what is wrong with one network. It is no reason to call the
// host unfit: the others are as they should be.
func (r *Router) noteAilment(n ledger.Network, err error) {
	if !r.seeks.note(n.ID, err) {
		return
	}
	if err != nil {
		r.log.Error("a network is not as it should be on this host", "network", n.Name, "error", err)
	} else {
		r.log.Info("a network is as it should be again", "network", n.Name)
	}
}

// seek has the allocator find this host's own addresses on a network, unless it is at
// it. Once they are claimed the settling goes on with them.
func (r *Router) seek(ctx context.Context, n ledger.Network) {
	if !r.seeks.begin(n.ID) {
		return
	}
	r.seeks.all.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, hostAddrWithin)
		defer cancel()
		has, err := netdev.BridgeAddrs(bridgeName(n))
		if err == nil || errors.Is(err, netdev.ErrNotFound) {
			_, err = r.ipam.HostAddr(ctx, n.Name, has)
		}
		r.seeks.end(n.ID, err == nil)
		var coded *ctl.Error
		switch {
		case err == nil:
			poke(r.kick)
		case errors.As(err, &coded) && coded.Code == ctl.CodeTryAgain:
			r.log.Debug("no address for the bridge yet", "network", n.Name, "why", err)
		default:
			r.noteAilment(n, err)
		}
	})
}

// found gives this host's own addresses on a network once they are known to be its own:
// the bridge stands, or a search in this life has ended well and they are claimed still.
func (r *Router) found(n ledger.Network) ([]netip.Prefix, bool) {
	r.mu.Lock()
	standing := r.networks[n.ID]
	r.mu.Unlock()
	if standing != nil {
		return standing.addrs, true
	}
	if !r.seeks.found(n.ID) {
		return nil, false
	}
	c, claimed := r.ipam.Claim(ipam.HostKey(n.Name).Hash())
	return c.Addrs, claimed && !c.Stale() && strings.HasPrefix(n.ID, c.NetID)
}
