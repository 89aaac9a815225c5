// Package ipam gives addresses to attachments: from the blocks that the ledger
// says are this host's, at once and with nobody's leave; more blocks it asks the
// ledger for, early.
//
//	ledger ──> own blocks ──┐
//	claim files, kernel ──> book.Book ──> Allocate, Commit, Release, Reconcile, Collect
//
// The judgement is in ipam/book, which is pure. This package adds what is not: the
// lock, the clock, the claim files (ipam/claims) and the proposals to the ledger.
//
// A claim is in its file before anybody hears of it, and no address is given
// before a ledger has been learnt. An address that is in use here but in no block of
// ours (the host lost its state, or its blocks) stays claimed: it is foreign.
package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// What a Book calls them is what they are called here.
type (
	Claim  = book.Claim
	Kernel = book.Kernel
)

// HostKey is under which key a host holds its own address on a network's bridge.
func HostKey(network string) attachment.Key { return book.HostKey(network) }

// allocateWithin bounds a call that cannot be served at once; restFor is how long a
// restarted router still knows of a freed address.
const (
	allocateWithin = 5 * time.Second
	restFor        = book.RestFor
)

// Ledger is what the allocator needs of pkg/replica.
type Ledger interface {
	// State is the last applied one; it does not change.
	State() *ledger.State
	// Changed is closed when State may have changed since it was asked for.
	Changed() <-chan struct{}
	// Propose returns once the command is applied here, or ctx ends.
	Propose(ctx context.Context, c ledger.Command) (ledger.Result, error)
}

// Files keeps claims; ipam/claims does, in the run directory.
type Files interface {
	Load() (live, resting []Claim, bad []error, err error)
	Save(Claim) error
	Rest(hash string) error // the claim has ended, its addresses rest
	Drop(hash string) error // they have rested
}

// Config is what New needs. Linked and Now may be nil.
type Config struct {
	Self   ledger.MemberID
	Ledger Ledger
	Claims Files
	BootID string // "" when it is not known: then no claim file is dropped for being of another boot
	Log    *slog.Logger

	// Linked looks whether the host has the veth of an attachment, by its name and
	// Key.Hash; nil: Release believes its caller.
	Linked func(veth, hash string) (bool, error)

	// Now is a monotonic clock; nil: time since New.
	Now func() time.Duration
}

// Allocator gives and remembers addresses. Its methods may be called from any goroutine.
type Allocator struct {
	config Config
	now    func() time.Duration
	wake   chan struct{} // Run: look at the blocks

	mu     sync.Mutex
	book   *book.Book
	synced *ledger.State
	inUse  map[string]bool          // networks that somebody has asked for here
	asks   map[string]chan struct{} // proposals under way, closed when done

	checkForeign bool // the ledger has moved: foreign addresses may be in the pool

	resting map[string]time.Duration // files to drop, and when
	trouble string                   // why the last ask for blocks failed; "" when it did not
}

// New makes an allocator. Adopt comes next, before anything else.
func New(c Config) (*Allocator, error) {
	if c.Self == 0 || c.Ledger == nil || c.Claims == nil || c.Log == nil {
		return nil, errors.New("new allocator: the configuration is incomplete")
	}
	start := time.Now()
	a := &Allocator{
		config: c, now: c.Now, wake: make(chan struct{}, 1), book: book.New(),
		inUse: map[string]bool{}, asks: map[string]chan struct{}{}, resting: map[string]time.Duration{},
	}
	if a.now == nil {
		a.now = func() time.Duration { return time.Since(start) }
	}
	return a, nil
}

// Adopt takes over what was before this start: the claim files, and the attachments
// that the kernel shows. Where both speak of one the kernel is right. Files of
// another boot are dropped, unless the kernel shows their veth.
func (a *Allocator) Adopt(kernel []Kernel) error {
	live, resting, bad, err := a.config.Claims.Load()
	if err != nil {
		return err
	}
	for _, err := range bad {
		a.config.Log.Error("claim file passed over", "error", err)
	}
	shown := make(map[string]Kernel, len(kernel))
	for _, k := range kernel {
		shown[k.Alias.Hash] = k
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range live {
		k, there := shown[c.Hash]
		if !there && c.BootID != a.config.BootID && a.config.BootID != "" {
			a.config.Log.Info("claim of another boot dropped", "claim", c.Hash, "container", c.Key.ContainerID)
			a.endFile(c.Hash)
			continue
		}
		a.adopt(merge(c, k, there))
		delete(shown, c.Hash)
	}
	for _, k := range kernel {
		if _, without := shown[k.Alias.Hash]; without {
			a.adopt(k.Claim(a.config.BootID, a.now()))
		}
	}
	for _, c := range resting {
		a.book.Rested(c, a.now())
		a.resting[c.Hash] = a.now() + restFor
	}
	a.config.Log.Info("attachments of before taken over", "claims", len(a.book.Claims()), "files", len(live), "kernel", len(kernel), "resting", len(resting))
	return nil
}

// merge joins a file with what the kernel shows of the same attachment.
func merge(c Claim, k Kernel, there bool) Claim {
	if !there {
		return c
	}
	if len(k.Alias.Addrs) > 0 {
		c.Addrs = k.Alias.Addrs
	}
	c.MAC = k.Alias.MAC
	if k.Network != "" {
		c.Network, c.OnBridge = k.Network, true
	}
	return c
}

func (a *Allocator) adopt(c Claim) {
	c.Since, c.BootID = a.now(), a.config.BootID
	if c.State == book.Reserved {
		c.Deadline = c.Since + book.ReserveFor
	}
	for _, p := range c.Addrs {
		if other := a.book.Holder(p.Addr()); other != "" {
			a.config.Log.Error("two attachments have one address", "address", p.Addr(), "claim", c.Hash, "other", other)
		}
	}
	a.book.Put(c)
	if c.Network != "" {
		a.inUse[c.Network] = true
	}
}

// save writes a claim's file and enters it; in this order, so that what is
// answered is always on file.
func (a *Allocator) save(c Claim) error {
	if err := a.config.Claims.Save(c); err != nil {
		return ctl.Errorf(ctl.CodeInternal, "%v", err)
	}
	a.book.Put(c)
	return nil
}

// endFile lets a claim's file rest; a file that stays is noticed by Reconcile after a restart.
func (a *Allocator) endFile(hash string) {
	if err := a.config.Claims.Rest(hash); err != nil {
		a.config.Log.Error("claim file stays", "error", err)
		return
	}
	a.resting[hash] = a.now() + restFor
}

// Commit is the end of an ADD, as the main plugin tells it.
type Commit struct {
	Key     attachment.Key
	Network string // the ledger's name, "" for a bridge on no network of the ledger
	MAC     net.HardwareAddr
	Addrs   []netip.Prefix
	NetNS   attachment.NSID
}

// Commit notes that an attachment stands, and answers with its claim. Addresses that
// were not allocated here are noted as borrowed from another IPAM plugin,
// unless they are somebody else's: CodeAddressTaken.
func (a *Allocator) Commit(in Commit) (Claim, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sync()
	c, ok := a.book.Claim(in.Key.Hash())
	if !ok {
		c = Claim{Hash: in.Key.Hash(), Borrowed: true, Addrs: in.Addrs, Decider: ctl.DecidedByVeth, Since: a.now()}
	}
	for _, p := range in.Addrs {
		if c.Holds(p.Addr()) && ok {
			continue
		}
		if err := a.mayBorrow(in, p.Addr()); err != nil {
			return Claim{}, err
		}
		c.Addrs = append(slices.Clone(c.Addrs), p)
	}
	c.Addrs = distinct(c.Addrs)
	if in.Network != "" {
		c.Network = in.Network
	}
	c.Key, c.MAC, c.OnBridge, c.NetNS, c.BootID = in.Key, in.MAC, in.Network != "", in.NetNS, a.config.BootID
	c.State, c.Deadline = book.Attached, 0
	if err := a.save(c); err != nil {
		return Claim{}, err
	}
	return c, nil
}

// mayBorrow refuses an address that this allocator or another host's may give to somebody.
func (a *Allocator) mayBorrow(in Commit, addr netip.Addr) error {
	if h := a.book.Holder(addr); h != "" && h != in.Key.Hash() {
		return a.taken(addr, h)
	}
	if in.Network == "" {
		return nil
	}
	if _, ok := a.book.SubnetOf(in.Network, addr); ok {
		return &ctl.Error{Code: ctl.CodeAddressTaken, Msg: fmt.Sprintf("address %s is not reserved for this attachment", addr),
			Details: "its reservation has ended, or it came from another IPAM plugin, which may not give addresses of this network; use \"ipam\": {\"type\": \"weave-ipam\"}"}
	}
	return nil
}

func distinct(ps []netip.Prefix) (out []netip.Prefix) {
	for _, p := range ps {
		if !slices.ContainsFunc(out, func(q netip.Prefix) bool { return q.Addr() == p.Addr() }) {
			out = append(out, p)
		}
	}
	return out
}

// Joined notes that an attachment is a port of a network's bridge, and answers with
// its claim. CodeUnknownContainer when there is none.
func (a *Allocator) Joined(hash, network string) (Claim, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.book.Claim(hash)
	if !ok {
		return Claim{}, ctl.Errorf(ctl.CodeUnknownContainer, "no attachment %s", hash)
	}
	if c.OnBridge && c.Network == network {
		return c, nil
	}
	c.Network, c.OnBridge, a.inUse[network] = network, true, true
	return c, a.save(c)
}

// Detached notes that the attachment's link is gone. Its addresses stay reserved until
// Release, or until Reconcile finds nothing any more; borrowed ones are forgotten.
func (a *Allocator) Detached(k attachment.Key) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.book.Claim(k.Hash())
	if !ok || c.Decider != ctl.DecidedByVeth {
		return nil
	}
	if c.Borrowed {
		a.release(c.Hash)
		return nil
	}
	c.State, c.Deadline = book.Reserved, 0
	a.book.Put(c) // not to the file: what it says is undone by the kernel
	return nil
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
	a.mu.Lock()
	defer a.mu.Unlock()
	a.release(hash)
	return nil
}

func (a *Allocator) release(hash string) {
	if _, ok := a.book.Release(hash, a.now()); ok {
		a.endFile(hash)
	}
}

// Holds is nil when the attachment has just these addresses, else CodeUnknownContainer.
func (a *Allocator) Holds(k attachment.Key, addrs []netip.Addr) error {
	c, ok := a.Claim(k.Hash())
	if !ok {
		return ctl.Errorf(ctl.CodeUnknownContainer, "container %s, interface %s has no address on network %s", k.ContainerID, k.IfName, k.Network)
	}
	for _, addr := range addrs {
		if !c.Holds(addr) {
			return ctl.Errorf(ctl.CodeUnknownContainer, "address %s is not reserved for container %s, interface %s: that has %v", addr, k.ContainerID, k.IfName, c.Addrs)
		}
	}
	if len(c.Addrs) != len(addrs) {
		return ctl.Errorf(ctl.CodeUnknownContainer, "container %s, interface %s has %v, not %v", k.ContainerID, k.IfName, c.Addrs, addrs)
	}
	return nil
}

// SetNames gives an attachment its names, in the place of those before, and answers
// with its claim. CodeUnknownContainer when there is none.
func (a *Allocator) SetNames(k attachment.Key, names []string) (Claim, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.book.Claim(k.Hash())
	if !ok {
		return Claim{}, ctl.Errorf(ctl.CodeUnknownContainer, "container %s, interface %s is not attached to network %s", k.ContainerID, k.IfName, k.Network)
	}
	if c.Key.ContainerID == "" {
		c.Key = k // it was known by its hash alone
	}
	if slices.Equal(c.Names, names) {
		return c, nil
	}
	c.Names = slices.Clone(names)
	return c, a.save(c)
}

// Restore gives names back to an attachment that was read from the kernel alone and so lost
// them. It does nothing to one that has some, or is not there.
func (a *Allocator) Restore(hash string, names []string) (Claim, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.book.Claim(hash)
	if !ok || len(c.Names) > 0 || c.Key.ContainerID != "" || len(names) == 0 {
		return Claim{}, false
	}
	c.Names = slices.Clone(names)
	if err := a.save(c); err != nil {
		a.config.Log.Error("restore names", "error", err)
	}
	return c, true
}

// Claim finds one by Key.Hash.
func (a *Allocator) Claim(hash string) (Claim, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.book.Claim(hash)
}

// Claims lists all, by hash; also the host's own addresses (HostKey).
func (a *Allocator) Claims() []Claim {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.book.Claims()
}

// Reconcile compares with all the attachments that the kernel shows, and answers
// with the claims that it released and those that it took over, each by hash. Call it
// only with a complete list.
func (a *Allocator) Reconcile(present []Kernel) (released, adopted []Claim) {
	a.mu.Lock()
	defer a.mu.Unlock()
	released, adopted = a.book.Reconcile(present, a.config.BootID, a.now())
	for _, c := range released {
		a.endFile(c.Hash)
	}
	a.checkForeign = a.checkForeign || len(adopted) > 0
	for _, c := range adopted {
		a.config.Log.Warn("the kernel has an attachment that was not known", "claim", c.Hash, "addresses", c.Addrs)
	}
	return released, adopted
}

// Collect lists the attachments that CNI's GC may take. It releases none: their
// links go first, then ReleaseHash.
//
// Those that are on no list go when nobody lives in their namespace. When there is no
// list at all, only those whose namespace is held by nothing any more. One whose
// namespace is not known stays: reconciliation frees it when its veth is gone.
func (a *Allocator) Collect(in ctl.CollectRequest) []Claim {
	alive := func(id attachment.NSID) bool {
		return slices.Contains(in.Inhabited, id) || in.Absent && slices.Contains(in.Held, id)
	}
	valid := make(map[string]bool, len(in.Valid))
	for _, k := range in.Valid {
		valid[k.Hash()] = true
		valid[attachment.Key{Network: in.Network, ContainerID: k.ContainerID, IfName: k.IfName}.Hash()] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.book.Stale(in.Network, valid, alive, a.now())
}
