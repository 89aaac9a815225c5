package router

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/control"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/resolvconf"
)

type nothing = struct{}

// serve registers the calls of pkg/ctl.
func (r *Router) serve(s *control.Server) {
	control.Handle(s, ctl.PathNetwork, r.apiNetwork)
	control.Handle(s, ctl.PathAllocate, r.apiAllocate)
	control.Handle(s, ctl.PathRelease, r.apiRelease)
	control.Handle(s, ctl.PathReserved, r.apiReserved)
	control.Handle(s, ctl.PathCommit, r.apiCommit)
	control.Handle(s, ctl.PathDetach, r.apiDetach)
	control.Handle(s, ctl.PathCollect, r.apiCollect)
	control.Handle(s, ctl.PathRegister, r.apiRegister)
	control.Handle(s, ctl.PathForget, r.apiForget)
	control.Handle(s, ctl.PathNames, r.apiNames)
	control.Handle(s, ctl.PathRetire, r.apiRetire)
	control.Handle(s, ctl.PathReset, r.apiReset)
	control.Handle(s, ctl.PathNetCreate, r.apiNetCreate)
	control.Handle(s, ctl.PathNetInspect, r.apiNetInspect)
	control.Handle(s, ctl.PathNetRemove, r.apiNetRemove)
	control.Handle(s, ctl.PathNetLabel, r.apiNetLabel)
	control.HandleGet(s, ctl.PathNets, r.apiNets)
	control.Handle(s, ctl.PathConnect, r.apiConnect)
	control.Handle(s, ctl.PathForgetPeer, r.apiForgetPeer)
	control.Handle(s, ctl.PathTrace, r.apiTrace)
	control.Handle(s, ctl.PathDNSAdd, r.apiDNSAdd)
	control.Handle(s, ctl.PathDNSRemove, r.apiDNSRemove)
	control.Handle(s, ctl.PathDNSLookup, r.apiDNSLookup)
	control.Handle(s, ctl.PathDNSTrace, r.apiDNSTrace)
	r.serveForwards(s)
	control.HandleGet(s, ctl.PathReady, r.apiReady)
	control.HandleGet(s, ctl.PathStatus, r.apiStatus)
	control.HandleGet(s, ctl.PathReport, r.apiReport)
	control.HandleGet(s, ctl.PathTopology, r.apiTopology)
	control.HandleGet(s, ctl.PathTraffic, r.apiTraffic)
	control.HandleGet(s, ctl.PathNetChangeable, r.apiNetChangeable)
}

func (r *Router) apiNetwork(ctx context.Context, in ctl.NetworkRequest) (ctl.Network, error) {
	name := r.networkOfAttachment(in.Key)
	if name == "" {
		var err error
		if name, err = r.networkFor(in.Endpoint, in.Name); err != nil {
			return ctl.Network{}, err
		}
	}
	n, err := r.awaited(ctx, name)
	if err != nil {
		return ctl.Network{}, err
	}
	return n.describe(), nil
}

// awaited is a network once it stands here. One of the ledger that only has to be made is
// waited for: an ADD that waited for the router to start is not to find it a moment too early.
func (r *Router) awaited(ctx context.Context, name string) (n *network, err error) {
	ctx, cancel := context.WithTimeout(ctx, standWithin)
	defer cancel()
	r.untilStood(ctx, func() bool {
		n, err = r.network(name)
		return err == nil || !r.starts(name)
	})
	return n, err
}

// starts reports whether a network is of the ledger and about to stand on this host: that
// it does not yet is nobody's fault.
func (r *Router) starts(name string) bool {
	n, ok := r.replica.State().Network(name)
	if !ok || r.ailment(n) != "" {
		return false
	}
	state, _ := r.netState(n)
	return state == netStarting
}

func (n *network) describe() ctl.Network {
	return ctl.Network{ID: n.ID, Name: n.Name, Driver: n.Driver, Bridge: bridgeName(n.Network), MAC: n.bridge().MAC.String(), MTU: n.MTU, Gateways: n.gateways()}
}

func (r *Router) apiAllocate(ctx context.Context, in ctl.AllocateRequest) (ctl.AllocateReply, error) {
	if err := in.Key.Validate(); err != nil {
		return ctl.AllocateReply{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	in, err := r.resolved(in)
	if err != nil {
		return ctl.AllocateReply{}, err
	}
	n, err := r.awaited(ctx, in.Network)
	if err != nil {
		return ctl.AllocateReply{}, err
	}
	if err := r.notCopied(); err != nil {
		return ctl.AllocateReply{}, err
	}
	prefixes, err := r.ipam.Allocate(ctx, in)
	if err != nil {
		return ctl.AllocateReply{}, err
	}
	if in.Decider == ctl.DecidedByClaim {
		poke(r.uses.news)
	}
	out := ctl.AllocateReply{Network: in.Network, Bridge: bridgeName(n.Network)}
	for _, p := range prefixes {
		a := ctl.Address{Address: p}
		if i := slices.IndexFunc(n.addrs, func(own netip.Prefix) bool { return own.Contains(p.Addr()) }); i >= 0 && !n.Internal {
			a.Gateway = n.addrs[i].Addr()
		}
		out.Addresses = append(out.Addresses, a)
	}
	return out, nil
}

func (r *Router) apiRelease(ctx context.Context, in ctl.KeyRequest) (nothing, error) {
	freed := calllog.From(ctx).Step("looked that the link is gone, and freed the address")
	if err := r.ipam.Release(in.Key); err != nil {
		return nothing{}, err
	}
	freed()
	return nothing{}, r.ended(in.Key.Hash())
}

// ended withdraws an attachment whose claim has ended. An ADD that has it again
// meanwhile has published it perhaps before that.
func (r *Router) ended(hash string) error {
	r.withdraw(hash)
	poke(r.ends)
	if c, ok := r.ipam.Claim(hash); ok {
		return r.publish(c)
	}
	return nil
}

func (r *Router) apiReserved(_ context.Context, in ctl.ReservedRequest) (nothing, error) {
	return nothing{}, r.ipam.Holds(in.Key, in.Addresses)
}

func (r *Router) apiCommit(ctx context.Context, in ctl.CommitRequest) (nothing, error) {
	if err := in.Key.Validate(); err != nil {
		return nothing{}, ctl.Errorf(ctl.CodeInvalidConfig, "%v", err)
	}
	mac, err := parseMAC(in.MAC)
	if err != nil {
		return nothing{}, ctl.Errorf(ctl.CodeInvalidConfig, "MAC %q: %v", in.MAC, err)
	}
	if host, taken := r.view.HolderOfMAC(in.Network, mac); taken {
		return nothing{}, ctl.Errorf(ctl.CodeAddressTaken, "MAC %s belongs to a container of host %s on network %s", mac, host, in.Network)
	}
	written := calllog.From(ctx).Step("claim written")
	c, err := r.ipam.Commit(ipam.Commit{Key: in.Key, Network: r.committedTo(in), MAC: mac, Addrs: in.Addresses, NetNS: in.NetNS})
	if err != nil {
		return nothing{}, err
	}
	written()
	defer calllog.From(ctx).Step("told to the other hosts")()
	return nothing{}, r.publish(c)
}

// committedTo is the network on whose bridge an attachment is. The plugin simplebridge
// names none: what it attaches is on one only where the router made that one's bridge.
func (r *Router) committedTo(in ctl.CommitRequest) string {
	if c, ok := r.ipam.Claim(in.Key.Hash()); ok && in.Network == "" {
		if n, ok := r.replica.State().Network(c.Network); ok && n.Driver == ctl.DriverSimpleBridge {
			return n.Name
		}
	}
	return in.Network
}

// apiDetach deletes an attachment's link. The address stays reserved until
// apiRelease, which the IPAM plugin calls next, or until reconciliation.
func (r *Router) apiDetach(ctx context.Context, in ctl.KeyRequest) (nothing, error) {
	hash := in.Key.Hash()
	deleted := calllog.From(ctx).Step("link deleted, with those that were asked for meanwhile")
	if err := r.reaper.Delete(ctx, in.Key.Veth(), hash); err != nil {
		return nothing{}, err
	}
	deleted()
	r.withdraw(hash)
	return nothing{}, r.ipam.Detached(in.Key)
}

func (r *Router) apiCollect(ctx context.Context, in ctl.CollectRequest) (ctl.CollectReply, error) {
	stale := r.ipam.Collect(in)
	errs := make([]error, len(stale))
	var all sync.WaitGroup
	for i, c := range stale {
		all.Go(func() { errs[i] = r.reaper.Delete(ctx, c.Veth(), c.Hash) }) // together: they share batches
	}
	all.Wait()
	var out ctl.CollectReply
	for i, c := range stale {
		if errs[i] == nil {
			r.withdraw(c.Hash)
			errs[i] = r.ipam.ReleaseHash(c.Hash)
			r.over(calllog.Collect, c)
			out.Collected = append(out.Collected, c.Hash)
		}
	}
	return out, errors.Join(errs...)
}

func (r *Router) apiRegister(_ context.Context, in ctl.RegisterRequest) (ctl.Resolver, error) {
	var valid []string
	for _, n := range in.Names {
		if name, err := names.ValidName(n); err == nil && !slices.Contains(valid, name) {
			valid = append(valid, name)
		}
	}
	naming, err := namingIn(in, valid)
	if err != nil {
		return ctl.Resolver{}, err
	}
	c, err := r.ipam.SetNames(in.Key, naming)
	if err != nil {
		return ctl.Resolver{}, err
	}
	if c, err = r.ipam.SetServers(in.Key, resolvconf.Askable(in.Upstreams)); err != nil {
		return ctl.Resolver{}, err
	}
	if err := r.publish(c); err != nil {
		return ctl.Resolver{}, err
	}
	return r.resolver(c.Network), nil
}

func (r *Router) resolver(name string) ctl.Resolver {
	out := ctl.Resolver{Domain: r.config.DNSDomain}
	if n, err := r.network(name); err == nil && r.config.DNS {
		out.Servers = n.gateways()
	}
	return out
}

func (r *Router) apiForget(_ context.Context, in ctl.KeyRequest) (nothing, error) {
	c, err := r.ipam.SetNames(in.Key, ipam.Naming{})
	if err == nil {
		c, err = r.ipam.SetServers(in.Key, nil)
	}
	var coded *ctl.Error
	if errors.As(err, &coded) && coded.Code == ctl.CodeUnknownContainer {
		return nothing{}, nil // gone already: its names went with it
	}
	if err != nil {
		return nothing{}, err
	}
	return nothing{}, r.publish(c)
}

func (r *Router) apiNames(_ context.Context, in ctl.KeyRequest) (ctl.RegisteredNames, error) {
	c, ok := r.ipam.Claim(in.Key.Hash())
	if !ok {
		return ctl.RegisteredNames{}, ctl.Errorf(ctl.CodeUnknownContainer, "no attachment of container %s, interface %s, network %s on this host", in.Key.ContainerID, in.Key.IfName, in.Key.Network)
	}
	return ctl.RegisteredNames{Names: c.Names}, nil
}

func (r *Router) apiReady(context.Context) (ctl.Ready, error) {
	return ctl.Ready{Error: r.readiness()}, nil
}

// readiness is CNI's STATUS: nil, or why no ADD can be served. A full range is no reason.
func (r *Router) readiness() *ctl.Error {
	r.mu.Lock()
	broken, settled := r.broken, r.settled
	r.mu.Unlock()
	switch {
	case broken != nil:
		return &ctl.Error{Code: ctl.CodeDegraded, Msg: "the data plane of this host is not as it should be", Details: broken.Error()}
	case !settled:
		return &ctl.Error{Code: ctl.CodeNotAvailable, Msg: "the weave router is not ready", Details: r.waiting()}
	}
	if why := r.copied(); why != "" {
		return &ctl.Error{Code: ctl.CodeNotAvailable, Msg: "the weave router is not ready", Details: why}
	}
	return nil
}

// waiting says in one sentence what the router waits for and what to do.
func (r *Router) waiting() string {
	s := r.replica.Status()
	if w := r.foundingWaits(); w != "" {
		return andJoins(w, s)
	}
	if s.Alone {
		if why := unheard(r.statusPeers(), r.link.OnlySelf(), time.Now()); why != "" {
			return why
		}
	}
	if r.heldBack != "" && r.replica.State().Cluster() == "" {
		return heldBackWaits(r.heldBack, s.Waiting, s.Alone)
	}
	if s.Waiting != "" {
		return s.Waiting
	}
	return r.ipam.Waiting()
}
