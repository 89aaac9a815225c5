// Package ipam gives addresses to attachments: from the blocks that the ledger
// says are this host's, at once and with nobody's leave; more blocks it asks the
// ledger for, early, and gives some back to hosts in need.
//
//	ledger ──> own blocks ──┐
//	claim files, kernel ──> allot.Core ──> Allocate, Commit, Release, Reconcile, Collect
//
// The judgement is in ipam/allot and ipam/book, which are pure. This package adds
// what is not: the lock, the clock, waiting, and the proposals to the ledger.
//
// A claim is in its file before anybody hears of it, and no address is given
// before a ledger has been learnt that is known to be the present one.
package ipam

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/allot"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// What allot calls them is what they are called here.
type (
	Claim  = allot.Claim
	Kernel = allot.Kernel
	Commit = allot.Commit
	Files  = allot.Files
	Naming = allot.Naming
	Offer  = allot.Offer
)

// Offers keeps what is being given back, in the state directory.
type Offers interface {
	Load() ([]Offer, error)
	// Save replaces all; they are on the disk when it returns.
	Save([]Offer) error
}

// HostKey is under which key a host holds its own address on a network's bridge.
func HostKey(network string) attachment.Key { return allot.HostKey(network) }

// Config is what New needs. Linked and Now may be nil.
type Config struct {
	Self   ledger.MemberID
	Ledger Ledger
	Claims Files  // ipam/claims does it, in the run directory
	Offers Offers // ipam/offers does it, in the state directory
	BootID string // "" when it is not known: then no claim file is dropped for being of another boot
	Log    *slog.Logger

	// Linked looks whether the host has the veth of an attachment, by its name and
	// Key.Hash; nil: Release believes its caller.
	Linked func(veth, hash string) (bool, error)

	// Unused finds the first of some addresses of a network that no other host is known
	// to use; nil: nothing is known of that. It is called under the allocator's lock.
	Unused func(network string, of []netip.Addr) (netip.Addr, bool)

	// Now is a monotonic clock; nil: time since New.
	Now func() time.Duration
}

// Allocator is an allot.Core that may be called from any goroutine.
type Allocator struct {
	config Config
	wake   chan struct{} // Run: look at the blocks

	// filing is held while offers change and until that is on file. It is taken before
	// mu, which no disk is waited for under: an ADD must not wait for fsync.
	filing sync.Mutex

	mu      sync.Mutex
	core    *allot.Core
	files   *clocked
	asks    map[string]chan struct{} // proposals under way, closed when done
	yielded bool                     // Run waits for one of them
	trouble string                   // why the last ask for blocks failed; "" when it did not
	silent  bool                     // the ledger did not answer what was asked last
	ended   chan struct{}            // closed, and made anew, when an offer was answered
}

// New makes an allocator. Adopt comes next, before anything else.
func New(c Config) (*Allocator, error) {
	if c.Self == 0 || c.Ledger == nil || c.Claims == nil || c.Offers == nil || c.Log == nil {
		return nil, errors.New("new allocator: the configuration is incomplete")
	}
	if start := time.Now(); c.Now == nil {
		c.Now = func() time.Duration { return time.Since(start) }
	}
	offers, err := c.Offers.Load()
	if err != nil {
		return nil, err
	}
	files := &clocked{Files: c.Claims, now: c.Now}
	core := allot.New(allot.Config{Self: c.Self, Claims: files, Offers: offers, BootID: c.BootID, Log: c.Log, Now: c.Now, Unused: c.Unused})
	return &Allocator{config: c, wake: make(chan struct{}, 1), core: core, files: files, asks: map[string]chan struct{}{}, ended: make(chan struct{})}, nil
}

// locked gives the core, brought up to the ledger. The caller unlocks.
func (a *Allocator) locked() *allot.Core {
	a.mu.Lock()
	a.core.Sync(a.config.Ledger.State(), a.config.Ledger.Ready())
	return a.core
}

// Adopt takes over what was before this start; see allot.
func (a *Allocator) Adopt(kernel []Kernel) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.core.Adopt(kernel)
}

// Commit notes that an attachment stands; see allot.
func (a *Allocator) Commit(in Commit) (Claim, error) {
	defer a.mu.Unlock()
	return a.locked().Commit(in)
}

// Joined notes that an attachment is a port of a network's bridge; see allot.
func (a *Allocator) Joined(hash, network string) (Claim, error) {
	defer a.mu.Unlock()
	return a.locked().Joined(hash, network)
}

// Detached notes that the attachment's link is gone; see allot.
func (a *Allocator) Detached(k attachment.Key) error {
	defer a.mu.Unlock()
	return a.locked().Detached(k)
}

// Release ends a claim; one that is not there is no error. A claim that the veth
// decides does not end while that is there: CodeTryAgain. Whoever asks is late, or
// has not deleted it; the address is free when the veth has gone.
func (a *Allocator) Release(k attachment.Key) error {
	hash := k.Hash()
	if c, ok := a.Claim(hash); ok && c.Decider == ctl.DecidedByVeth && a.config.Linked != nil {
		if err := a.unlinked(c); err != nil {
			return err
		}
	}
	return a.ReleaseHash(hash)
}

// unlinked is nil when the claim's veth is not there.
func (a *Allocator) unlinked(c Claim) error {
	switch there, err := a.config.Linked(c.Veth(), c.Hash); {
	case err != nil:
		return &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("cannot tell whether %s is still there", c.Veth()), Details: err.Error()}
	case there:
		return &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("%v stays in use: %s is still there", c.Addrs, c.Veth()), Details: "the address is free when that has gone"}
	}
	return nil
}

// ReleaseHash ends a claim by Key.Hash, for a caller that has deleted its veth.
func (a *Allocator) ReleaseHash(hash string) error {
	defer a.mu.Unlock()
	return a.locked().Release(hash)
}

// Holds is nil when the attachment has just these addresses, else CodeUnknownContainer.
func (a *Allocator) Holds(k attachment.Key, addrs []netip.Addr) error {
	defer a.mu.Unlock()
	return a.locked().Holds(k, addrs)
}

// SetNames gives an attachment its names; see allot.
func (a *Allocator) SetNames(k attachment.Key, names Naming) (Claim, error) {
	defer a.mu.Unlock()
	return a.locked().SetNames(k, names)
}

// Restore gives names back to an attachment that lost them; see allot.
func (a *Allocator) Restore(hash string, names Naming) (Claim, bool) {
	defer a.mu.Unlock()
	return a.locked().Restore(hash, names)
}

// Claim finds one by Key.Hash.
func (a *Allocator) Claim(hash string) (Claim, bool) {
	defer a.mu.Unlock()
	return a.locked().Claim(hash)
}

// Claims lists all, by hash; also the host's own addresses (HostKey).
func (a *Allocator) Claims() []Claim {
	defer a.mu.Unlock()
	return a.locked().Claims()
}

// Reconcile compares with all the attachments that the kernel shows; see allot.
func (a *Allocator) Reconcile(present []Kernel) (released, adopted []Claim) {
	defer a.mu.Unlock()
	return a.locked().Reconcile(present)
}

// Collect lists the attachments that CNI's GC may take; see allot.
func (a *Allocator) Collect(in ctl.CollectRequest) []Claim {
	defer a.mu.Unlock()
	return a.locked().Collect(in)
}

// Usage counts every subnet of the ledger, by host.
func (a *Allocator) Usage() []ctl.SubnetUse {
	defer a.mu.Unlock()
	return a.locked().Usage()
}

// Leave stops all giving, and returns when everything own is offered, on file: then the
// ledger may be told that this host leaves. It does not when containers hold addresses,
// and answers with their ids. bare takes the host's own addresses off its bridges. It
// is called when nothing is given any more and before they are offered: they may be
// another host's as soon as the ledger hears of it.
//
// Stay takes it back. Where Leave fails or is refused, it has done so itself.
func (a *Allocator) Leave(bare func() error) (held []string, err error) {
	held = a.locked().Leave()
	a.mu.Unlock()
	if len(held) > 0 {
		return held, nil
	}
	if err = bare(); err == nil {
		held, err = a.offerAll()
	}
	if err != nil || len(held) > 0 {
		a.Stay()
	}
	return held, err
}

func (a *Allocator) offerAll() (held []string, err error) {
	a.filing.Lock()
	defer a.filing.Unlock()
	unsaved, held, err := a.locked().OfferAll()
	a.mu.Unlock()
	if err != nil || len(held) > 0 {
		return held, err
	}
	return nil, a.file(unsaved)
}

// Stay takes Leave back. What was offered goes to the pool all the same, once the ledger
// answers, and is asked for anew.
func (a *Allocator) Stay() {
	a.locked().Stay()
	a.mu.Unlock()
	a.look()
}
