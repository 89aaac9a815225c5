package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// order is what somebody wants, checked as far as it can be without a ledger.
type order struct {
	claim     Claim          // what it becomes, but for the addresses
	has       []netip.Prefix // HostAddr: what the bridge has already
	requested []netip.Addr   // distinct
	within    netip.Prefix   // valid: a subnet to choose from
	host      bool           // HostAddr
	restless  bool           // an address that still rests will do: there is nothing else
}

// lack is why an order could not be filled yet: a proposal would help, or only
// time (a nil command).
type lack struct {
	command *ledger.Command
	key     string // equal for proposals of which one is enough
	why     string

	chosen  bool // the command is for an address that nobody named: if it is taken, another will do
	instead bool // without it there still is an address that rests
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
	o, err := parse(in)
	if err != nil {
		return nil, err
	}
	return a.fill(ctx, o)
}

// HostAddr is the host's own addresses on a network's bridge, one of each family or
// more, IPv4 first: those that it has been claimed before or, if they are in the
// network, those that the bridge has; else new ones. One that the ledger gave to another
// host is not kept: this host may have had it of a cluster of its own.
func (a *Allocator) HostAddr(ctx context.Context, network string, has []netip.Prefix) ([]netip.Prefix, error) {
	k := HostKey(network)
	return a.fill(ctx, order{
		claim: Claim{Hash: k.Hash(), Key: k, Network: network, Decider: ctl.DecidedByClaim, State: book.Attached},
		has:   has,
		host:  true,
	})
}

func parse(in ctl.AllocateRequest) (o order, err error) {
	if err := in.Key.Validate(); err != nil {
		return o, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	o.claim = Claim{Hash: in.Key.Hash(), Key: in.Key, Network: in.Network, NetNS: in.NetNS, Decider: in.Decider, State: book.Reserved}
	switch in.Decider {
	case ctl.DecidedByVeth:
	case ctl.DecidedByClaim:
		o.claim.State = book.Attached // nobody will say when
	default:
		return o, ctl.Errorf(ctl.CodeInvalidConfig, "decider %.40q: want %q or %q", in.Decider, ctl.DecidedByVeth, ctl.DecidedByClaim)
	}
	for _, text := range in.Requested {
		addr, err := parseAddr(text)
		if err != nil {
			return o, ctl.Errorf(ctl.CodeInvalidConfig, "requested address %.60q: want an address like 10.32.0.5, or 10.32.0.5/12", text)
		}
		if !slices.Contains(o.requested, addr) {
			o.requested = append(o.requested, addr)
		}
	}
	if in.Subnet != "" {
		o.within, err = netip.ParsePrefix(in.Subnet)
		if err != nil || o.within.Addr().Is4In6() {
			return o, ctl.Errorf(ctl.CodeInvalidConfig, "subnet %.60q: want a prefix like 10.32.4.0/24", in.Subnet)
		}
		o.within = o.within.Masked()
	}
	return o, nil
}

func parseAddr(text string) (netip.Addr, error) {
	addr, _, _ := strings.Cut(strings.TrimSpace(text), "/")
	if p, err := netip.ParsePrefix(strings.TrimSpace(text)); err == nil {
		addr = p.Addr().String()
	} else if strings.Contains(text, "/") {
		return netip.Addr{}, err
	}
	got, err := netip.ParseAddr(addr)
	if err != nil || got.Zone() != "" {
		return netip.Addr{}, errors.New("not an address")
	}
	return got.Unmap(), nil
}

// fill tries, proposes or waits, and tries again.
func (a *Allocator) fill(ctx context.Context, o order) ([]netip.Prefix, error) {
	ctx, cancel := context.WithTimeout(ctx, allocateWithin)
	defer cancel()
	patience, cancel := context.WithTimeout(ctx, restWithin)
	defer cancel()
	for {
		changed := a.config.Ledger.Changed()
		got, l, err := a.try(o)
		if err != nil || l == nil {
			return got, err
		}
		switch {
		case l.instead:
			err = a.ask(patience, *l)
			o.restless = err != nil || patience.Err() != nil
			continue
		case l.command != nil:
			err = a.ask(ctx, *l)
		default:
			err = wait(ctx, changed)
		}
		if err == nil {
			err = ctx.Err()
		}
		var coded *ctl.Error
		if errors.As(err, &coded) {
			return nil, coded
		}
		if err != nil {
			return nil, &ctl.Error{Code: ctl.CodeTryAgain, Msg: fmt.Sprintf("no address on network %q yet", o.claim.Network), Details: because(l.why, err)}
		}
	}
}

func wait(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
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

// try fills the order from what is here, or says what is lacking.
func (a *Allocator) try(o order) ([]netip.Prefix, *lack, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sync()
	old, known := a.book.Claim(o.claim.Hash)
	if known && o.has == nil && !(o.host && a.unready() == nil) {
		if got, err := a.again(o, old); got != nil || err != nil {
			return got, nil, err
		}
	}
	if l := a.unready(); l != nil {
		return nil, l, nil
	}
	network, ok := a.synced.Network(o.claim.Network)
	if !ok {
		return nil, nil, &ctl.Error{Code: ctl.CodeInvalidConfig, Msg: fmt.Sprintf("no network is called %q", o.claim.Network), Details: "`weave status` lists those that there are"}
	}
	a.inUse[network.Name] = true
	var addrs []netip.Prefix
	var l *lack
	var err error
	switch {
	case len(o.requested) > 0:
		addrs, l, err = a.theRequested(o, network)
	default:
		if o.host {
			addrs = a.keep(o, network, old)
		}
		addrs, l, err = a.oneOfEach(o, network, addrs)
	}
	if l != nil || err != nil {
		return nil, l, err
	}
	return a.enter(o, addrs)
}

// enter makes the claim.
func (a *Allocator) enter(o order, addrs []netip.Prefix) ([]netip.Prefix, *lack, error) {
	c := o.claim
	c.Addrs, c.BootID, c.Since = addrs, a.config.BootID, a.now()
	if c.State == book.Reserved {
		c.Deadline = c.Since + book.ReserveFor
	}
	if err := a.save(c); err != nil {
		return nil, nil, err
	}
	a.look()
	return addrs, nil, nil
}

// again answers a key that holds addresses already; nil when it holds none.
func (a *Allocator) again(o order, c Claim) ([]netip.Prefix, error) {
	for _, addr := range o.requested {
		if !c.Holds(addr) {
			return nil, ctl.Errorf(ctl.CodeInvalidConfig, "container %s, interface %s holds %v on network %s already, so it cannot get %s: detach it first", c.Key.ContainerID, c.Key.IfName, c.Addrs, c.Key.Network, addr)
		}
	}
	if len(c.Addrs) == 0 || c.Hash == HostKey(c.Network).Hash() {
		return c.Addrs, nil
	}
	c.Key, c.Network, c.NetNS, c.Decider, c.BootID = o.claim.Key, o.claim.Network, o.claim.NetNS, o.claim.Decider, a.config.BootID
	c.Deadline = a.now() + book.ReserveFor // an ADD is under way again
	return c.Addrs, a.save(c)
}

// unready says why nothing can be given by this host yet; nil when it can.
func (a *Allocator) unready() *lack {
	if a.synced.Cluster() == "" {
		return &lack{why: "the ledger of the cluster has not been learnt yet: `weave status ipam` says what it waits for"}
	}
	m, ok := a.synced.Member(a.config.Self)
	switch {
	case !ok:
		return &lack{why: "this host is not a member of the cluster yet"}
	case !m.Live():
		return &lack{why: fmt.Sprintf("this host was retired from the cluster as %q: stop its router, remove its state directory and start it again", m.Name)}
	}
	return nil
}

// theRequested finds out, of each requested address, whether it can be given.
func (a *Allocator) theRequested(o order, n ledger.Network) (out []netip.Prefix, l *lack, err error) {
	for _, addr := range o.requested {
		subnet, ok := a.book.SubnetOf(n.Name, addr)
		holder := a.book.Holder(addr)
		owner, owned := a.synced.Owner(n.Name, addr)
		switch {
		case !ok:
			return nil, nil, ctl.Errorf(ctl.CodeInvalidConfig, "address %s is not in network %q, which has %v", addr, n.Name, n.Subnets)
		case o.within.IsValid() && !o.within.Contains(addr):
			return nil, nil, ctl.Errorf(ctl.CodeInvalidConfig, "address %s is not in the subnet %s that was asked for", addr, o.within)
		case a.book.Reserved(addr):
			return nil, nil, ctl.Errorf(ctl.CodeInvalidConfig, "address %s is the first or the last of %s, which nobody may have", addr, subnet)
		case holder != "" && holder != o.claim.Hash:
			return nil, nil, a.taken(addr, holder)
		case owned && owner != a.config.Self:
			return nil, nil, ctl.Errorf(ctl.CodeAddressTaken, "address %s is in a block of host %s", addr, a.hostName(owner))
		case !owned:
			return nil, a.lackAddr(n.Name, addr), nil
		}
		out = append(out, netip.PrefixFrom(addr, subnet.Bits()))
	}
	return out, nil, nil
}

func (a *Allocator) lackAddr(network string, addr netip.Addr) *lack {
	return &lack{
		command: &ledger.Command{TakeAddr: &ledger.TakeAddr{ID: a.config.Self, Network: network, Addr: addr}},
		key:     network + " " + addr.String(),
		why:     fmt.Sprintf("the ledger must give address %s to this host first", addr),
	}
}

func (a *Allocator) taken(addr netip.Addr, holder string) error {
	c, _ := a.book.Claim(holder)
	who := fmt.Sprintf("container %s, interface %s, network %s", c.Key.ContainerID, c.Key.IfName, c.Key.Network)
	switch {
	case c.Hash == HostKey(c.Network).Hash():
		who = "this host's bridge"
	case c.Key.ContainerID == "":
		who = "an attachment of this host, interface " + c.Veth()
	}
	return ctl.Errorf(ctl.CodeAddressTaken, "address %s belongs to %s", addr, who)
}

// keep is what a bridge was claimed before or has, and may keep.
func (a *Allocator) keep(o order, n ledger.Network, old Claim) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range append(slices.Clone(o.has), old.Addrs...) {
		subnet, ok := a.book.SubnetOf(n.Name, p.Addr())
		if h := a.book.Holder(p.Addr()); !ok || h != "" && h != o.claim.Hash {
			continue
		}
		if owner, is := a.anothers(n.Name, p.Addr()); is {
			a.config.Log.Error("the bridge's address belongs to another host and is given up", "network", n.Name, "address", p.Addr(), "owner", owner)
			continue
		}
		out = append(out, netip.PrefixFrom(p.Addr(), subnet.Bits()))
	}
	return distinct(out)
}

// anothers reports whether the ledger gave an address to another host, and to which. A
// member of this host's name is what this host was before it lost its state.
func (a *Allocator) anothers(network string, addr netip.Addr) (owner string, is bool) {
	id, owned := a.synced.Owner(network, addr)
	if !owned || id == a.config.Self {
		return "", false
	}
	owner = a.hostName(id)
	return owner, owner != a.hostName(a.config.Self)
}

// oneOfEach adds an address of each family that the network has and kept has not.
func (a *Allocator) oneOfEach(o order, n ledger.Network, kept []netip.Prefix) ([]netip.Prefix, *lack, error) {
	if o.within.IsValid() && !slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Bits() <= o.within.Bits() && p.Contains(o.within.Addr()) }) {
		return nil, nil, ctl.Errorf(ctl.CodeInvalidConfig, "subnet %s is not in network %q, which has %v", o.within, n.Name, n.Subnets)
	}
	var out []netip.Prefix
	for _, is4 := range []bool{true, false} {
		family := func(p netip.Prefix) bool { return p.Addr().Is4() == is4 }
		if !slices.ContainsFunc(n.Subnets, family) {
			continue
		}
		if slices.ContainsFunc(kept, family) {
			out = append(out, slices.DeleteFunc(slices.Clone(kept), func(p netip.Prefix) bool { return !family(p) })...)
			continue
		}
		within := o.within
		if within.IsValid() && !family(within) {
			within = netip.Prefix{} // it bounds its own family only
		}
		p, ok := a.book.Pick(o.claim.Hash, n.Name, is4, within)
		if !ok {
			l, err := a.lackBlock(n, is4, within)
			return nil, l, err
		}
		if !o.restless && a.book.Rests(p.Addr(), o.claim.Hash, a.now()) {
			if l := a.lackRested(n, is4, within); l != nil {
				return nil, l, nil
			}
		}
		out = append(out, p)
	}
	return out, nil, nil
}

// sync brings the book up to the ledger, if that has moved.
func (a *Allocator) sync() {
	s := a.config.Ledger.State()
	if s == a.synced {
		return
	}
	a.synced, a.checkForeign = s, true
	var subnets []book.Subnet
	for _, n := range s.Networks() {
		for _, p := range n.Subnets {
			subnets = append(subnets, book.Subnet{Network: n.Name, Prefix: p, Own: s.Owned(n.Name, p, a.config.Self)})
		}
	}
	a.book.Sync(subnets)
}

func (a *Allocator) hostName(id ledger.MemberID) string {
	if m, ok := a.synced.Member(id); ok {
		return m.Name
	}
	return fmt.Sprintf("%016x", uint64(id))
}
