package ipam

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/weave-cni/weave-cni/pkg/addr"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// How blocks are asked for.
const (
	freeAtLeast = 256 // addresses of a family that a host holds free ...
	freePart    = 16  // ... or one in so many of the network, if that is less
	lookEvery   = time.Second
	askWithin   = 5 * time.Second
	restWithin  = time.Second // so long an ADD waits for an address that has rested when there is one that has not
	ownAtOnce   = 64          // foreign addresses asked for in one look
)

// Run keeps the host provided: as much free as used, so that an ADD finds an address
// here and a partition finds every host with some. It also asks for the foreign
// addresses that have come back to the pool, and forgets those that have rested.
// It ends with ctx.
func (a *Allocator) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		changed := a.config.Ledger.Changed()
		a.provide(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-a.wake:
		case <-tick.C:
			a.dropRested()
		}
	}
}

// look lets Run see whether enough is free. It does not block.
func (a *Allocator) look() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Allocator) provide(ctx context.Context) {
	a.mu.Lock()
	a.sync()
	wants := a.wants()
	a.mu.Unlock()
	var failed error
	for _, l := range wants {
		askCtx, cancel := context.WithTimeout(ctx, askWithin)
		err := a.ask(askCtx, l)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if failed == nil {
			failed = err
		}
	}
	a.note(failed)
}

// note keeps why asking failed, for Waiting.
func (a *Allocator) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.trouble
	a.trouble = ""
	if err != nil {
		a.trouble = err.Error()
	}
	if a.trouble != "" && was == "" {
		a.config.Log.Warn("no more addresses for this host now", "error", err)
	}
}

// wants lists what the host should ask for, whether or not somebody waits for it.
func (a *Allocator) wants() (out []lack) {
	if a.unready() != nil {
		return nil
	}
	for _, n := range a.synced.Networks() {
		if !a.inUse[n.Name] {
			continue
		}
		for _, is4 := range []bool{true, false} {
			if l := a.wantEarly(n, is4); l != nil {
				out = append(out, *l)
			}
		}
		if a.checkForeign {
			out = append(out, a.wantForeign(n)...)
		}
	}
	a.checkForeign = len(out) > 0 // after these, look again: there may be more
	return out
}

// wantEarly is a proposal for more blocks of a family, if too little of it is free.
func (a *Allocator) wantEarly(n ledger.Network, is4 bool) *lack {
	var free, used, size uint64
	for _, p := range n.Subnets {
		if p.Addr().Is4() == is4 {
			u := a.book.Use(n.Name, p, false)
			rested := u.Free() - min(u.Free(), a.book.Resting(n.Name, p, a.now()))
			free, used, size = plus(free, rested), plus(used, u.Used), plus(size, addr.RangeOf(p).Size())
		}
	}
	need := max(used, min(freeAtLeast, size/freePart), 1)
	if size == 0 || free >= need {
		return nil
	}
	for _, p := range n.Subnets {
		if p.Addr().Is4() == is4 && a.mayGet(n.Name, p) {
			return a.lackTake(n.Name, p, need-free+used/2, true)
		}
	}
	return nil
}

// mayGet reports whether an early ask would be served: the pool has something, and
// this host does not hold its share (as ledger.Take counts it) already.
func (a *Allocator) mayGet(network string, p netip.Prefix) bool {
	if a.synced.Pool(network, p) == 0 {
		return false
	}
	var held uint64
	for _, r := range a.synced.Owned(network, p, a.config.Self) {
		held = plus(held, r.Size())
	}
	var live uint64
	for _, m := range a.synced.Members() {
		if m.Live() {
			live++
		}
	}
	return held == 0 || held < addr.RangeOf(p).Size()/(live+1)
}

// wantForeign asks for addresses that are in use here and have come back to the
// pool, before somebody else gets them.
func (a *Allocator) wantForeign(n ledger.Network) (out []lack) {
	for _, p := range n.Subnets {
		for _, f := range a.book.Foreign(n.Name, p) {
			if _, owned := a.synced.Owner(n.Name, f); !owned && len(out) < ownAtOnce {
				out = append(out, *a.lackAddr(n.Name, f))
			}
		}
	}
	return out
}

func (a *Allocator) lackTake(network string, p netip.Prefix, want uint64, early bool) *lack {
	return &lack{
		command: &ledger.Command{Take: &ledger.Take{ID: a.config.Self, Network: network, Subnet: p, Want: want, Early: early}},
		key:     fmt.Sprint(network, " ", p, " ", early),
		why:     fmt.Sprintf("the ledger must give this host more addresses of %s first", p),
	}
}

// lackBlock is what helps when none of a family is free in the own blocks; an error
// when nothing does.
func (a *Allocator) lackBlock(n ledger.Network, is4 bool, within netip.Prefix) (*lack, error) {
	for _, p := range n.Subnets {
		if l := a.lackIn(n, p, is4, within); l != nil {
			return l, nil
		}
	}
	return nil, a.full(n, is4, within)
}

// lackRested is what helps when all that is free in the own blocks still rests: nil when
// the pool has nothing that is for this host.
func (a *Allocator) lackRested(n ledger.Network, is4 bool, within netip.Prefix) *lack {
	for _, p := range n.Subnets {
		if l := a.lackIn(n, p, is4, within); l != nil && a.mayGet(n.Name, p) {
			l.instead = true
			return l
		}
	}
	return nil
}

// lackIn is a proposal for more of one subnet; nil when its pool has nothing that helps.
func (a *Allocator) lackIn(n ledger.Network, p netip.Prefix, is4 bool, within netip.Prefix) *lack {
	if p.Addr().Is4() != is4 || a.synced.Pool(n.Name, p) == 0 {
		return nil
	}
	if !within.IsValid() || within == p {
		return a.lackTake(n.Name, p, min(freeAtLeast, max(addr.RangeOf(p).Size()/freePart, 1)), false)
	}
	x, ok := a.inPool(n.Name, p, within)
	if !ok {
		return nil
	}
	l := a.lackAddr(n.Name, x)
	l.chosen = true
	return l
}

// inPool finds an address of a part of a subnet that nobody owns, holds or may not have.
func (a *Allocator) inPool(network string, subnet, within netip.Prefix) (netip.Addr, bool) {
	limit, ok := addr.RangeOf(within).Within(addr.RangeOf(subnet))
	x := limit.First
	for owners := a.synced.Owners(network, subnet); ok; {
		i := slices.IndexFunc(owners, func(o ledger.Ownership) bool { return !o.Range.Last.Less(x) })
		switch {
		case i >= 0 && owners[i].Range.Contains(x):
			x = owners[i].Range.Last
		case a.book.Holder(x) == "" && !a.book.Reserved(x):
			return x, true
		}
		if !x.Less(limit.Last) {
			break
		}
		x = x.Next()
	}
	return netip.Addr{}, false
}

// full says in numbers where all the addresses are.
func (a *Allocator) full(n ledger.Network, is4 bool, within netip.Prefix) error {
	var size, mine, used, others, pool uint64
	for _, p := range n.Subnets {
		if p.Addr().Is4() != is4 {
			continue
		}
		u := a.book.Use(n.Name, p, false)
		size, mine, used, pool = plus(size, addr.RangeOf(p).Size()), plus(mine, u.Usable), plus(used, u.Used), plus(pool, a.synced.Pool(n.Name, p))
		for _, o := range a.synced.Owners(n.Name, p) {
			if o.Member != a.config.Self {
				others = plus(others, o.Range.Size())
			}
		}
	}
	e := &ctl.Error{
		Code:    ctl.CodeNetworkFull,
		Msg:     fmt.Sprintf("network %q has no free address for this host", n.Name),
		Details: fmt.Sprintf("of %d addresses this host holds %d, with %d in use; other hosts hold %d; %d belong to nobody", size, mine, used, others, pool),
	}
	if within.IsValid() {
		e.Msg = fmt.Sprintf("subnet %s of network %q has no free address for this host", within, n.Name)
	}
	return e
}

// ask makes a proposal, or waits for one like it that is under way. A nil error means
// that trying again makes sense.
func (a *Allocator) ask(ctx context.Context, l lack) error {
	a.mu.Lock()
	if done, ok := a.asks[l.key]; ok {
		a.mu.Unlock()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done := make(chan struct{})
	a.asks[l.key] = done
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.asks, l.key)
		a.mu.Unlock()
		close(done)
	}()
	res, err := a.config.Ledger.Propose(ctx, *l.command)
	if err != nil {
		return err
	}
	if l.chosen && res.Code == ledger.CodeTaken {
		return nil // the next one
	}
	return refusal(res)
}

// refusal reads a ledger's answer: nil when trying again makes sense.
func refusal(res ledger.Result) error {
	switch res.Code {
	case ledger.OK, ledger.CodeEmpty, ledger.CodeShare, ledger.CodeStale:
		return nil // the state that was applied with it tells more
	case ledger.CodeTaken:
		return ctl.Errorf(ctl.CodeAddressTaken, "%s", res.Err)
	case ledger.CodeInvalid, ledger.CodeUnknown:
		return ctl.Errorf(ctl.CodeInvalidConfig, "%s", res.Err)
	case ledger.CodeTooMany:
		return ctl.Errorf(ctl.CodeNetworkFull, "%s", res.Err)
	}
	return errors.New(res.Err) // retired, for one: it passes, or somebody acts
}

func (a *Allocator) dropRested() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for hash, at := range a.resting {
		if now < at {
			continue
		}
		if err := a.config.Claims.Drop(hash); err != nil {
			a.config.Log.Warn("claim file stays", "error", err)
		}
		delete(a.resting, hash)
	}
}

// Waiting says in one sentence what no address can be given without; "" when nothing is waited for.
func (a *Allocator) Waiting() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sync()
	if l := a.unready(); l != nil {
		return l.why
	}
	if a.trouble == "" {
		return ""
	}
	for _, n := range a.synced.Networks() {
		for _, is4 := range []bool{true, false} {
			if l := a.wantEarly(n, is4); l != nil && a.inUse[n.Name] {
				return fmt.Sprintf("network %s runs short of addresses on this host: %s: %s", n.Name, l.why, a.trouble)
			}
		}
	}
	return ""
}

// Usage counts every subnet of the ledger, by host.
func (a *Allocator) Usage() (out []ctl.SubnetUse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sync()
	for _, n := range a.synced.Networks() {
		for _, p := range n.Subnets {
			out = append(out, ctl.SubnetUse{Network: n.Name, Subnet: p, Pool: a.synced.Pool(n.Name, p), Hosts: a.hostUse(n.Name, p)})
		}
	}
	return out
}

func (a *Allocator) hostUse(network string, p netip.Prefix) []ctl.HostUse {
	own := a.book.Use(network, p, true)
	self := ctl.HostUse{Host: a.hostName(a.config.Self), Self: true, Used: own.Used, Foreign: own.Foreign}
	hosts := []ctl.HostUse{self}
	at := map[ledger.MemberID]int{a.config.Self: 0}
	for _, o := range a.synced.Owners(network, p) {
		i, ok := at[o.Member]
		if !ok {
			i, at[o.Member] = len(hosts), len(hosts)
			hosts = append(hosts, ctl.HostUse{Host: a.hostName(o.Member)})
		}
		hosts[i].Blocks = append(hosts[i].Blocks, o.Range)
		hosts[i].Owned = plus(hosts[i].Owned, o.Range.Size())
	}
	return hosts
}

// plus adds, at most to math.MaxUint64.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}
