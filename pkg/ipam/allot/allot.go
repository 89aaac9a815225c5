// Package allot is the allocator's judgement over the ledger: which order can be
// filled from this host's own blocks, which proposal would help where that fails,
// what the host asks for early and what it gives back to those in need.
//
// It has no lock, no clock, no goroutine, and its files are an interface, so a
// simulator runs it as it is; pkg/ipam adds what it lacks. Times are monotonic,
// since a start that the caller chooses.
//
// "Own" is what the ledger last applied here says, less what this host has offered
// back. An address in use here and not own (the host lost its state, or its blocks)
// stays claimed: it is foreign, and is given to nobody.
package allot

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
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
	Naming = book.Naming
)

// HostKey is under which key a host holds its own address on a network's bridge.
func HostKey(network string) attachment.Key { return book.HostKey(network) }

// Files keeps claims. Each method is done when it returns: what it wrote is there
// after a crash of the router, though not after a reboot.
type Files interface {
	Load() (live, resting []Claim, bad []error, err error)
	Save(Claim) error
	Rest(hash string) error // the claim has ended, its addresses rest
	Drop(hash string) error // they have rested
}

// Log is where goes what an operator should know.
type Log interface {
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}

// Config is what New needs; all but Offers, BootID and Unused.
type Config struct {
	Self   ledger.MemberID
	Claims Files
	Offers []Offer // those on file
	BootID string  // "" when it is not known: then no claim file is dropped for being of another boot
	Log    Log
	Now    func() time.Duration

	// Unused finds the first of some addresses of a network that no other host is known
	// to use; nil: nothing is known of that.
	Unused func(network string, of []netip.Addr) (netip.Addr, bool)
}

// Core gives and remembers addresses. Make it with New; then Adopt comes first. It
// is not safe for concurrent use.
type Core struct {
	config Config
	book   *book.Book
	synced *ledger.State   // nothing is given before the first Sync
	ready  bool            // the ledger is known to be the present one
	inUse  map[string]bool // networks that somebody has asked for here
	offers []Offer         // being given back

	unsaved  bool   // offers are not on file as they are
	proposed *Offer // the one that Offer answered with last, unless it is answered
	leaving  bool   // the host is leaving the cluster

	checkForeign bool // the ledger has moved: foreign addresses may be in the pool

	resting map[string]time.Duration // files to drop, and when

	said map[netip.Addr]string // of a bridge's addresses, what was logged last
}

// New makes a core.
func New(c Config) *Core {
	return &Core{
		config: c, book: book.New(), synced: ledger.New(), offers: c.Offers,
		inUse: map[string]bool{}, resting: map[string]time.Duration{}, said: map[netip.Addr]string{},
	}
}

// Adopt takes over what was before this start: the claim files, and the attachments
// that the kernel shows. Where both speak of one the kernel is right. Files of
// another boot are dropped, unless the kernel shows their veth.
func (a *Core) Adopt(kernel []Kernel) error {
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
	for _, c := range live {
		k, there := shown[c.Hash]
		if !there && c.BootID != a.config.BootID && a.config.BootID != "" {
			a.config.Log.Info("claim of another boot dropped", "claim", c.Hash, "container", c.Key.ContainerID)
			a.endOrLeave(c.Hash)
			continue
		}
		a.adopt(merge(c, k, there))
		delete(shown, c.Hash)
	}
	for _, k := range kernel {
		if _, without := shown[k.Alias.Hash]; without {
			a.adopt(k.Claim(a.config.BootID, a.config.Now()))
		}
	}
	for _, c := range resting {
		a.book.Rested(c, a.config.Now())
		a.resting[c.Hash] = a.config.Now() + book.RestFor
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
	if k.Network != "" || k.NetID != "" {
		c.Network, c.NetID, c.OnBridge = k.Network, k.NetID, true
	}
	return c
}

func (a *Core) adopt(c Claim) {
	c.Since, c.BootID = a.config.Now(), a.config.BootID
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
func (a *Core) save(c Claim) error {
	if err := a.config.Claims.Save(c); err != nil {
		return ctl.Errorf(ctl.CodeInternal, "%v", err)
	}
	a.book.Put(c)
	return nil
}

// endFile lets a claim's file rest.
func (a *Core) endFile(hash string) error {
	if err := a.config.Claims.Rest(hash); err != nil {
		return ctl.Errorf(ctl.CodeTryAgain, "the claim does not end: %v", err)
	}
	a.resting[hash] = a.config.Now() + book.RestFor
	return nil
}

// endOrLeave is endFile for a claim that the kernel decides on, or another boot: a file
// that stays now is ended after the next start, likewise.
func (a *Core) endOrLeave(hash string) {
	if err := a.endFile(hash); err != nil {
		a.config.Log.Error("claim file stays", "error", err)
	}
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
func (a *Core) Commit(in Commit) (Claim, error) {
	c, ok := a.book.Claim(in.Key.Hash())
	if n, there := a.synced.Network(in.Network); !ok && there && a.closed(n) != nil {
		return Claim{}, a.closed(n)
	}
	if c.Stale() {
		return Claim{}, ctl.Errorf(ctl.CodeInvalidConfig, "the network %s on which this attachment was begun is gone", c.Key.Network)
	}
	if !ok {
		c = Claim{Hash: in.Key.Hash(), Borrowed: true, Addrs: in.Addrs, Decider: ctl.DecidedByVeth, Since: a.config.Now()}
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
		c.Join(in.Network, a.netID(in.Network))
	}
	c.Key, c.MAC, c.OnBridge, c.NetNS, c.BootID = in.Key, in.MAC, in.Network != "", in.NetNS, a.config.BootID
	c.State, c.Deadline = book.Attached, 0
	if err := a.save(c); err != nil {
		return Claim{}, err
	}
	return c, nil
}

// mayBorrow refuses an address that this allocator or another host's may give to somebody.
func (a *Core) mayBorrow(in Commit, addr netip.Addr) error {
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
func (a *Core) Joined(hash, network string) (Claim, error) {
	c, ok := a.book.Claim(hash)
	if !ok {
		return Claim{}, ctl.Errorf(ctl.CodeUnknownContainer, "no attachment %s", hash)
	}
	if c.OnBridge && c.Network == network {
		return c, nil
	}
	c.Join(network, a.netID(network))
	c.OnBridge, a.inUse[network] = true, true
	return c, a.save(c)
}

// Detached notes that the attachment's link is gone. Its addresses stay reserved until
// Release, or until Reconcile finds nothing any more; borrowed ones are forgotten.
func (a *Core) Detached(k attachment.Key) error {
	c, ok := a.book.Claim(k.Hash())
	switch {
	case !ok || c.Decider != ctl.DecidedByVeth:
	case c.Borrowed:
		return a.Release(c.Hash)
	default:
		c.State, c.Deadline = book.Reserved, 0
		a.book.Put(c) // not to the file: what it says is undone by the kernel
	}
	return nil
}

// Release ends a claim, by Key.Hash; one that is not there is no error. A claim whose
// file stays does not end (CodeTryAgain): after a restart it would hold its addresses
// again, for good where no veth decides.
func (a *Core) Release(hash string) error {
	if _, ok := a.book.Claim(hash); !ok {
		return nil
	}
	if err := a.endFile(hash); err != nil {
		return err
	}
	a.book.Release(hash, a.config.Now())
	return nil
}

// Holds is nil when the attachment has just these addresses, else CodeUnknownContainer.
func (a *Core) Holds(k attachment.Key, addrs []netip.Addr) error {
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
func (a *Core) SetNames(k attachment.Key, names Naming) (Claim, error) {
	c, ok := a.book.Claim(k.Hash())
	if !ok {
		return Claim{}, ctl.Errorf(ctl.CodeUnknownContainer, "container %s, interface %s is not attached to network %s", k.ContainerID, k.IfName, k.Network)
	}
	if c.Key.ContainerID == "" {
		c.Key = k // it was known by its hash alone
	}
	if names.Equal(c.Naming()) {
		return c, nil
	}
	c.SetNaming(names)
	return c, a.save(c)
}

// Restore gives names back to an attachment that was read from the kernel alone and so lost
// them. It does nothing to one that has some, or is not there.
func (a *Core) Restore(hash string, names Naming) (Claim, bool) {
	c, ok := a.book.Claim(hash)
	if !ok || len(c.Names) > 0 || c.Key.ContainerID != "" || len(names.Names) == 0 {
		return Claim{}, false
	}
	c.SetNaming(names)
	if err := a.save(c); err != nil {
		a.config.Log.Error("restore names", "error", err)
	}
	return c, true
}

// Claim finds one by Key.Hash.
func (a *Core) Claim(hash string) (Claim, bool) {
	return a.book.Claim(hash)
}

// Claims lists all, by hash; also the host's own addresses (HostKey).
func (a *Core) Claims() []Claim {
	return a.book.Claims()
}

// Reconcile compares with all the attachments that the kernel shows, and answers
// with the claims that it released and those that it took over, each by hash. Call it
// only with a complete list.
func (a *Core) Reconcile(present []Kernel) (released, adopted []Claim) {
	released, adopted = a.book.Reconcile(present, a.config.BootID, a.config.Now())
	for _, c := range released {
		a.endOrLeave(c.Hash)
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
func (a *Core) Collect(in ctl.CollectRequest) []Claim {
	alive := func(id attachment.NSID) bool {
		return slices.Contains(in.Inhabited, id) || in.Absent && slices.Contains(in.Held, id)
	}
	valid := make(map[string]bool, len(in.Valid))
	for _, k := range in.Valid {
		valid[k.Hash()] = true
		valid[attachment.Key{Network: in.Network, ContainerID: k.ContainerID, IfName: k.IfName}.Hash()] = true
	}
	return a.book.Stale(in.Network, valid, alive, a.config.Now())
}
