package allot

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam/book"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Order is what somebody wants, checked as far as it can be without a ledger.
type Order struct {
	claim     Claim          // what it becomes, but for the addresses
	has       []netip.Prefix // HostAddr: what the bridge has already
	requested []netip.Addr   // distinct
	bounds    book.Bounds    // of what to choose; Within is of one family only
	part      netip.Prefix   // an endpoint's: addresses of its family come from it, and have its length
	host      bool           // HostAddr
	// Restless: an address that still rests will do, there is nothing else. Denied:
	// what other hosts own was asked for, and they had their time.
	Restless, Denied bool
}

// Lack is why an order could not be filled yet: a proposal would help, or only
// time (a nil Command).
type Lack struct {
	Command *ledger.Command
	Key     string // equal for proposals of which one is enough
	Yields  string // of Wants': the key of one that may make it needless, and is waited for if it is under way
	Why     string

	Chosen  bool // the command is for an address that nobody named: if it is taken, another will do
	Instead bool // without it there still is an address that rests
	Begs    bool // other hosts must give something up: a while after the command the order is denied
}

// after puts before the reason what has to be known with it; "" for nothing.
func (l *Lack) after(why string) *Lack {
	if why != "" {
		l.Why = why + "; " + l.Why
	}
	return l
}

// ParseAllocate checks a request as far as it can be without a ledger.
func ParseAllocate(in ctl.AllocateRequest) (o Order, err error) {
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
		o.bounds.Within, err = netip.ParsePrefix(in.Subnet)
		if err != nil || o.bounds.Within.Addr().Is4In6() {
			return o, ctl.Errorf(ctl.CodeInvalidConfig, "subnet %.60q: want a prefix like 10.32.4.0/24", in.Subnet)
		}
		o.bounds.Within = o.bounds.Within.Masked()
	}
	if o.bounds.But, o.bounds.Kept, err = parseLists(in.Exclude, in.Reserve); err != nil {
		return o, err
	}
	return o, o.setEndpoint(in.Endpoint)
}

// HostOrder is the order of a host for its own addresses on a network's bridge, which
// has some already, or none.
func HostOrder(network string, has []netip.Prefix) Order {
	k := HostKey(network)
	return Order{
		claim: Claim{Hash: k.Hash(), Key: k, Network: network, Decider: ctl.DecidedByClaim, State: book.Attached},
		has:   has,
		host:  true,
	}
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

// Try fills an order from what is here, or says what is lacking: one of the three.
// A filled one is on file. Errors are *ctl.Error.
func (a *Core) Try(o Order) ([]netip.Prefix, *Lack, error) {
	old, known := a.book.Claim(o.claim.Hash)
	switch {
	case !known || !old.Stale():
	case o.host:
		old, known = Claim{}, false
	default:
		return nil, nil, ctl.Errorf(ctl.CodeInvalidConfig, "container %s, interface %s is attached to a network %s that is gone: detach it first", old.Key.ContainerID, old.Key.IfName, old.Key.Network)
	}
	if n, ok := a.synced.Network(o.claim.Network); ok && a.closed(n) != nil {
		if o.host && known { // containers are on it still
			return old.Addrs, nil, nil
		}
		return nil, nil, a.closed(n)
	}
	if known && !o.host {
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
	if err := o.misses(network); err != nil {
		return nil, nil, err
	}
	a.inUse[network.Name] = true
	var addrs []netip.Prefix
	var l *Lack
	var err error
	switch {
	case len(o.requested) > 0:
		addrs, l, err = a.theRequested(o, network)
	default:
		if o.host {
			addrs, l = a.keep(o, network, old)
		}
		if l == nil {
			addrs, l, err = a.oneOfEach(o, network, addrs)
		}
	}
	if l != nil || err != nil {
		return nil, l, err
	}
	return a.enter(o, addrs)
}

// enter makes the claim.
func (a *Core) enter(o Order, addrs []netip.Prefix) ([]netip.Prefix, *Lack, error) {
	c := o.claim
	addrs = o.sized(addrs)
	c.Join(c.Network, a.netID(c.Network))
	c.Addrs, c.BootID, c.Since = addrs, a.config.BootID, a.config.Now()
	if c.State == book.Reserved {
		c.Deadline = c.Since + book.ReserveFor
	}
	if err := a.save(c); err != nil {
		return nil, nil, err
	}
	return addrs, nil, nil
}

// again answers a key that holds addresses already; nil when it holds none.
func (a *Core) again(o Order, c Claim) ([]netip.Prefix, error) {
	for _, addr := range o.requested {
		if !c.Holds(addr) {
			return nil, ctl.Errorf(ctl.CodeInvalidConfig, "container %s, interface %s holds %v on network %s already, so it cannot get %s: detach it first", c.Key.ContainerID, c.Key.IfName, c.Addrs, c.Key.Network, addr)
		}
	}
	if len(c.Addrs) == 0 || c.Host() {
		return c.Addrs, nil
	}
	if err := o.elsewhere(c); err != nil {
		return nil, err
	}
	c.Addrs = o.sized(c.Addrs)
	c.Join(o.claim.Network, a.netID(o.claim.Network))
	c.Key, c.NetNS, c.Decider, c.BootID = o.claim.Key, o.claim.NetNS, o.claim.Decider, a.config.BootID
	c.Deadline = a.config.Now() + book.ReserveFor // an ADD is under way again
	return c.Addrs, a.save(c)
}

// unready says why nothing can be given by this host yet; nil when it can.
func (a *Core) unready() *Lack {
	if a.synced.Cluster() == "" {
		return &Lack{Why: "the ledger of the cluster has not been learnt yet: `weave status ipam` says what it waits for"}
	}
	m, ok := a.synced.Member(a.config.Self)
	switch {
	case !ok:
		return &Lack{Why: "this host is not a member of the cluster yet"}
	case !m.Live():
		return &Lack{Why: fmt.Sprintf("this host was retired from the cluster as %q: its router joins again under a new identity", m.Name)}
	case a.leaving:
		return &Lack{Why: "this host is leaving the cluster"}
	case !a.ready:
		return &Lack{Why: "this host's copy of the ledger may be an old one, a majority of the voters has to confirm it first: `weave status ipam` says which are missing"}
	}
	return nil
}

// theRequested finds out, of each requested address, whether it can be given.
func (a *Core) theRequested(o Order, n ledger.Network) (out []netip.Prefix, l *Lack, err error) {
	for _, addr := range o.requested {
		subnet, ok := a.book.SubnetOf(n.Name, addr)
		holder := a.book.Holder(addr)
		owner, owned := a.synced.Owner(n.Name, addr)
		switch {
		case !ok:
			return nil, nil, ctl.Errorf(ctl.CodeInvalidConfig, "address %s is not in network %q, which has %v", addr, n.Name, n.Subnets)
		case !o.boundsOf(addr.Is4()).Contains(addr):
			return nil, nil, o.outside(addr)
		case a.book.Reserved(addr):
			return nil, nil, ctl.Errorf(ctl.CodeInvalidConfig, "address %s is the first or the last of %s, which nobody may have", addr, subnet)
		case holder != "" && holder != o.claim.Hash:
			return nil, nil, a.taken(addr, holder)
		case owned && owner != a.config.Self && o.Denied:
			return nil, nil, ctl.Errorf(ctl.CodeAddressTaken, "address %s belongs to host %s, which did not give it up: it is probably in use there", addr, a.hostName(owner))
		case owned && owner != a.config.Self:
			return nil, a.beg(a.lackAddr(n.Name, addr)), nil
		case owned && !a.book.Owns(addr):
			return nil, &Lack{Why: fmt.Sprintf("address %s is being given back to the pool", addr)}, nil
		case !owned:
			return nil, a.lackAddr(n.Name, addr), nil
		}
		out = append(out, netip.PrefixFrom(addr, subnet.Bits()))
	}
	return out, nil, nil
}

func (a *Core) lackAddr(network string, addr netip.Addr) *Lack {
	return &Lack{
		Command: &ledger.Command{TakeAddr: &ledger.TakeAddr{ID: a.config.Self, Network: network, Addr: addr}},
		Key:     network + " " + addr.String(),
		Why:     fmt.Sprintf("the ledger must give address %s to this host first", addr),
	}
}

func (a *Core) taken(addr netip.Addr, holder string) error {
	c, _ := a.book.Claim(holder)
	who := fmt.Sprintf("container %s, interface %s, network %s", c.Key.ContainerID, c.Key.IfName, c.Key.Network)
	switch {
	case c.Host():
		who = "this host's bridge"
	case c.Key.ContainerID == "":
		who = "an attachment of this host, interface " + c.Veth()
	}
	return ctl.Errorf(ctl.CodeAddressTaken, "address %s belongs to %s", addr, who)
}

// keep is what a bridge was claimed before or has, and may keep. One that is nobody's is
// asked for first. One that is another host's is given up, unless a container here has
// it for its gateway.
func (a *Core) keep(o Order, n ledger.Network, old Claim) (kept []netip.Prefix, l *Lack) {
	for _, p := range append(slices.Clone(o.has), old.Addrs...) {
		subnet, ok := a.book.SubnetOf(n.Name, p.Addr())
		if h := a.book.Holder(p.Addr()); !ok || h != "" && h != o.claim.Hash {
			continue
		}
		switch owner, owned := a.synced.Owner(n.Name, p.Addr()); {
		case !owned:
			l := a.lackAddr(n.Name, p.Addr())
			l.Chosen = true
			return nil, l
		case owner == a.config.Self && !a.book.Owns(p.Addr()):
			a.say(p.Addr(), "the bridge's address is being given back to the pool and is given up", n, owner)
			continue
		case a.hostName(owner) == a.hostName(a.config.Self): // this host's, or what it was before it lost its state
		case a.inhabited(n.Name):
			a.say(p.Addr(), "the bridge's address belongs to another host and is kept for the containers that are here", n, owner)
		default:
			a.say(p.Addr(), "the bridge's address belongs to another host and is given up", n, owner)
			continue
		}
		kept = append(kept, netip.PrefixFrom(p.Addr(), subnet.Bits()))
	}
	return distinct(kept), nil
}

// say logs what becomes of a bridge's address, once: its order is tried again and again.
func (a *Core) say(x netip.Addr, msg string, n ledger.Network, owner ledger.MemberID) {
	if what := msg + a.hostName(owner); a.said[x] != what {
		a.said[x] = what
		a.config.Log.Error(msg, "network", n.Name, "address", x, "owner", a.hostName(owner))
	}
}

// inhabited reports whether a container here is attached to the network.
func (a *Core) inhabited(network string) bool {
	return slices.ContainsFunc(a.book.Claims(), func(c Claim) bool { return c.Network == network && !c.Host() })
}

// oneOfEach adds an address of each family that the network has and kept has not.
func (a *Core) oneOfEach(o Order, n ledger.Network, kept []netip.Prefix) ([]netip.Prefix, *Lack, error) {
	if err := o.notIn(n); err != nil {
		return nil, nil, err
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
		within := o.boundsOf(is4)
		p, ok := a.pick(o, n.Name, is4, within)
		if !ok {
			l, err := a.lackBlock(o, n, is4, within)
			return nil, l, err
		}
		if !o.Restless && a.book.Rests(p.Addr(), o.claim.Hash, a.config.Now()) {
			if l := a.lackRested(n, is4, within); l != nil {
				return nil, l, nil
			}
		}
		out = append(out, p)
	}
	return out, nil, nil
}

func (a *Core) hostName(id ledger.MemberID) string {
	if m, ok := a.synced.Member(id); ok {
		return m.Name
	}
	return fmt.Sprintf("%016x", uint64(id))
}
