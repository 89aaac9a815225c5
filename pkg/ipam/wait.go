package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// How long who waits.
const (
	allocateWithin = 5 * time.Second         // a call that cannot be served at once
	restWithin     = time.Second             // an ADD for an address that has rested, when there is one that has not
	begWithin      = 1500 * time.Millisecond // an ADD for what other hosts own
	lookEvery      = time.Second
	askWithin      = 5 * time.Second
)

// Ledger is what the allocator needs of pkg/replica.
type Ledger interface {
	// State is the last applied one; it does not change.
	State() *ledger.State
	// Ready reports whether State is known to be the present one, or was once in this life.
	Ready() bool
	// Changed is closed when State or Ready may have changed since it was asked for.
	Changed() <-chan struct{}
	// Propose returns once the command is applied here, or ctx ends.
	Propose(ctx context.Context, c ledger.Command) (ledger.Result, error)
}

// Allocate reserves addresses for an attachment and answers with them, each with its
// network's length: one of each family of the network, or exactly the requested ones.
// The same key gets the same again. Errors are *ctl.Error:
//
//	CodeInvalidConfig  no such network; an address outside it, or one that nobody may have
//	CodeAddressTaken   a requested address is somebody's
//	CodeNetworkFull    with the numbers
//	CodeTryAgain       not within 5 s, or ctx; with what it waits for
func (a *Allocator) Allocate(ctx context.Context, in ctl.AllocateRequest) ([]netip.Prefix, error) {
	o, err := allot.ParseAllocate(in)
	if err != nil {
		return nil, err
	}
	return a.fill(ctx, o, in.Network)
}

// HostAddr is the host's own addresses on a network's bridge, one of each family or
// more, IPv4 first: those that it has been claimed before or, if they are in the
// network, those that the bridge has; else new ones. One that the ledger gave to another
// host is not kept: this host may have had it of a cluster of its own.
func (a *Allocator) HostAddr(ctx context.Context, network string, has []netip.Prefix) ([]netip.Prefix, error) {
	return a.fill(ctx, allot.HostOrder(network, has), network)
}

// fill tries, proposes or waits, and tries again.
func (a *Allocator) fill(ctx context.Context, o allot.Order, network string) ([]netip.Prefix, error) {
	ctx, cancel := context.WithTimeout(ctx, allocateWithin)
	defer cancel()
	rested, cancel := context.WithTimeout(ctx, restWithin)
	defer cancel()
	begged, cancel := context.WithTimeout(ctx, begWithin)
	defer cancel()
	call := calllog.From(ctx)
	for {
		changed := a.config.Ledger.Changed()
		got, l, ended, err := a.tried(call, o)
		if err != nil || l == nil {
			return got, err
		}
		waited := call.Step(words(l))
		switch {
		case l.Instead && a.unanswered():
			o.Restless = true
			continue
		case l.Instead:
			err = a.ask(rested, *l)
			waited()
			o.Restless = err != nil || rested.Err() != nil
			continue
		case l.Begs && begged.Err() != nil:
			o.Denied = true
		case l.Begs && l.Command == nil:
			o.Denied = wait(begged, changed, ended) != nil
		case l.Command != nil:
			err = a.ask(ctx, *l)
		default:
			err = wait(ctx, changed, ended)
		}
		waited()
		if err == nil {
			err = ctx.Err()
		}
		var coded *ctl.Error
		if errors.As(err, &coded) {
			return nil, coded
		}
		if err != nil {
			return nil, &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("no address on network %q yet", network), Details: because(l.Why, err)}
		}
	}
}

// try is allot's, with what is closed when an offer is answered from now on.
func (a *Allocator) try(o allot.Order) ([]netip.Prefix, *allot.Lack, <-chan struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tryLocked(o)
}

// tryLocked is try's. a.mu is held.
func (a *Allocator) tryLocked(o allot.Order) ([]netip.Prefix, *allot.Lack, <-chan struct{}, error) {
	a.core.Sync(a.config.Ledger.State(), a.config.Ledger.Ready())
	got, l, err := a.core.Try(o)
	if len(got) > 0 || l != nil && l.Instead {
		a.look() // there is less free now
	}
	return got, l, a.ended, err
}

// wait waits for one of two.
func wait(ctx context.Context, changed, or <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-or:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// because joins what was waited for with how the waiting ended, if that tells anything.
func because(why string, err error) string {
	if errors.Is(err, context.DeadlineExceeded) && err.Error() == context.DeadlineExceeded.Error() {
		return why
	}
	return why + ": " + err.Error()
}

// ask makes a proposal, or waits for one like it that is under way. A nil error means
// that trying again makes sense.
func (a *Allocator) ask(ctx context.Context, l allot.Lack) error {
	a.mu.Lock()
	if done, ok := a.asks[l.Key]; ok {
		a.mu.Unlock()
		return wait(ctx, done, nil)
	}
	done := make(chan struct{})
	a.asks[l.Key] = done
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.asks, l.Key)
		if a.yielded {
			a.yielded = false
			a.look() // the ledger moved before this was seen to end
		}
		a.mu.Unlock()
		close(done)
	}()
	res, err := a.config.Ledger.Propose(ctx, *l.Command)
	if !errors.Is(ctx.Err(), context.Canceled) {
		a.noteSilence(err != nil)
	}
	if err != nil {
		return err
	}
	if (l.Chosen || l.Begs) && res.Code == ledger.CodeTaken {
		return nil // the next one will do; or the ledger shows the need now
	}
	return allot.Refusal(res)
}

// underWay reports whether a proposal of that key is: then Run looks again when one ends.
func (a *Allocator) underWay(key string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asks[key] == nil {
		return false
	}
	a.yielded = true
	return true
}

func (a *Allocator) noteSilence(silent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent = silent
}

// unanswered reports whether to ask would be in vain, as far as is known: Run goes on
// asking, and finds out when it is not.
func (a *Allocator) unanswered() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.silent
}

// Run keeps the host provided: as much free as used, so that an ADD finds an address
// here and a partition finds every host with some. It also asks for the foreign
// addresses that have come back to the pool, gives back what others need, and forgets
// those that have rested. It ends with ctx.
func (a *Allocator) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		changed := a.config.Ledger.Changed()
		a.provide(ctx)
		a.give(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-a.wake:
		case <-tick.C:
			a.locked().DropRested()
			a.mu.Unlock()
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
	wants := a.locked().Wants()
	a.mu.Unlock()
	var failed error
	yielded := false
	for _, l := range wants {
		if a.underWay(l.Yields) {
			yielded = true
			continue
		}
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
	if !yielded || failed != nil {
		a.note(failed)
	}
}

// give hands back what others need, one offer at a time. What fails is tried again.
func (a *Allocator) give(ctx context.Context) {
	for ctx.Err() == nil {
		cmd, err := a.offer()
		if err != nil {
			a.config.Log.Error("addresses that another host needs are not given back", "error", err)
			return
		}
		if cmd == nil {
			return
		}
		askCtx, cancel := context.WithTimeout(ctx, askWithin)
		_, err = a.config.Ledger.Propose(askCtx, *cmd)
		cancel()
		if err != nil {
			return // the offer stands
		}
		if err := a.answered(); err != nil {
			a.config.Log.Error("an offer that was answered stays on file", "error", err)
			return
		}
	}
}

// offer is what to propose, nil for nothing. It is on file; if that fails, nothing of it
// is given all the same, until a later try.
func (a *Allocator) offer() (*ledger.Command, error) {
	a.filing.Lock()
	defer a.filing.Unlock()
	cmd, unsaved := a.locked().Offer()
	a.mu.Unlock()
	if err := a.file(unsaved); err != nil {
		return nil, err
	}
	return cmd, nil
}

// file saves offers, unless they are nil. The caller has filing, not mu.
func (a *Allocator) file(unsaved []Offer) error {
	if unsaved == nil {
		return nil
	}
	if err := a.config.Offers.Save(unsaved); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.core.Saved()
	return nil
}

// answered ends what offer answered with last: on file, then here.
func (a *Allocator) answered() error {
	a.filing.Lock()
	defer a.filing.Unlock()
	left := a.locked().Left()
	a.mu.Unlock()
	if err := a.config.Offers.Save(left); err != nil {
		return err
	}
	defer a.mu.Unlock()
	a.locked().Answered()
	close(a.ended)
	a.ended = make(chan struct{})
	return nil
}

// note keeps why asking failed, for Waiting.
func (a *Allocator) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.trouble
	a.trouble, a.silent = "", a.silent && err != nil
	if err != nil {
		a.trouble = err.Error()
	}
	if a.trouble != "" && was == "" {
		a.config.Log.Warn("no more addresses for this host now", "error", err)
	}
}

// Waiting says in one sentence what no address can be given without; "" when nothing is waited for.
func (a *Allocator) Waiting() string {
	defer a.mu.Unlock()
	core := a.locked()
	if why := core.Unready(); why != "" || a.trouble == "" {
		return why
	}
	network, why := core.RunsShort()
	if network == "" {
		return ""
	}
	return fmt.Sprintf("network %s runs short of addresses on this host: %s: %s", network, why, a.trouble)
}
