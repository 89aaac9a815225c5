// Package meshlink fulfils pkg/gossip over weaveworks/mesh, and is its only
// importer.
//
// mesh itself listens and dials on loopback only. Between hosts its connections
// are carried by internal/carrier in TLS 1.3 with both sides authenticated; mesh
// is told to dial only when that stands. So what mesh cannot do safely, or not
// soon enough, is not left to it: meeting strangers, noticing a dead or stuck
// peer, dialling again, telling two hosts of one name apart. What it is used for
// is routing: broadcasts, and messages to hosts without a direct connection.
//
// mesh has no end: its goroutines and its loopback listener stay until the
// process ends, so a process runs one Link, once. Everything of ours ends with Run.
package meshlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weaveworks/mesh"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/internal/carrier"
	"github.com/weave-cni/weave-cni/pkg/identity"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// DefaultPort is where routers listen for each other, and the port of a target
// that names none.
const DefaultPort = carrier.DefaultPort

// Hello is what two routers tell each other before they talk. Accept judges it;
// the link has already checked name, member id and incarnation against the
// sender's certificate.
type Hello = carrier.Hello

// Config says who we are and whom we talk to.
type Config struct {
	ID       *identity.Identity
	Listen   []netip.AddrPort  // for peers, in TLS
	MeshPort uint16            // on loopback: mesh's own, and of the aliases in 127.64.0.0/10
	Targets  []string          // host[:port], looked up again at each attempt
	Port     uint16            // of targets that name none; 0: DefaultPort
	VXLAN    uint16            // UDP port of our overlay, for our Hello; 0: we do not say
	Hello    func() Hello      // what we say of ourselves now; the link takes Cluster of it. nil: no cluster known. Called from any goroutine
	Accept   func(Hello) error // its error is what both sides log; nil: everybody. Called from any goroutine, must not block
	Log      *slog.Logger
}

// Counter counts up; in JSON it is its number.
type Counter = carrier.Counter

// Stats counts what happened since the start.
type Stats struct {
	UnicastsSent, BroadcastsSent, Received Counter

	Busy           Counter // messages refused because the queue to a peer was full
	Late           Counter // dropped because they had waited 5 s
	Undelivered    Counter // mesh knew no way
	LostBroadcasts Counter // dropped because a neighbour was slow
	Overrun        Counter // dropped because a handler was slow
	BadFrames      Counter // that do not decode or name a false sender
	UnknownChannel Counter
	HandlerPanics  Counter

	Carrier *carrier.Stats
}

// Link is one router's gossip. It implements gossip.Net.
type Link struct {
	cfg     Config
	self    gossip.Peer
	codec   wire.Codec
	carrier *carrier.Carrier
	inboxes map[gossip.Channel]*inbox // fixed before Run
	stats   Stats

	router *mesh.Router // from Run on
	gossip mesh.Gossip  // likewise
	out    *queue[[]byte]
	post   post

	names   directory
	view    atomic.Pointer[view]
	doubts  doubts
	changed bell
	stirred chan struct{} // cap 1
	seldom  seldom
}

var _ gossip.Net = (*Link)(nil)

// New checks cfg. Nothing is bound and nothing runs before Run.
func New(cfg Config) (*Link, error) {
	if cfg.ID == nil || cfg.Log == nil || cfg.MeshPort == 0 {
		return nil, errors.New("gossip needs an identity, a loopback port and a log")
	}
	if cfg.Hello == nil {
		cfg.Hello = func() Hello { return Hello{} }
	}
	if cfg.Accept == nil {
		cfg.Accept = func(Hello) error { return nil }
	}
	l := &Link{
		cfg: cfg, self: cfg.ID.Name(), codec: wire.New(), inboxes: map[gossip.Channel]*inbox{},
		out: newQueue[[]byte](outboxFrames, outboxBytes), stirred: make(chan struct{}, 1),
	}
	l.post = post{send: l.unicast, stats: &l.stats, boxes: map[mesh.PeerName]*queue[[]byte]{}}
	l.names = directory{byMesh: map[mesh.PeerName]known{}, news: l.stir}
	l.view.Store(&view{})
	var err error
	l.carrier, err = carrier.New(carrier.Config{
		ID: cfg.ID, Listen: cfg.Listen, Targets: cfg.Targets, Port: cfg.Port, VXLAN: cfg.VXLAN, Cluster: func() string { return cfg.Hello().Cluster }, Accept: l.accept,
		Inner: &loops{port: cfg.MeshPort, call: l.call, forget: l.forget}, Lost: l.lose, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	l.stats.Carrier = l.carrier.Stats()
	return l, nil
}

// Self is this host's name.
func (l *Link) Self() gossip.Peer { return l.self }

// Handle sets a channel's receiver; before Run only.
func (l *Link) Handle(ch gossip.Channel, h gossip.Handler) {
	l.inboxes[ch] = &inbox{ch, h, newQueue[message](inboxFrames, inboxBytes)}
}

// Run talks to peers until ctx ends; then every connection and listener of ours
// is closed and every goroutine of ours has ended. It fails at once when a port
// cannot be had. A Link runs once.
func (l *Link) Run(ctx context.Context) error {
	if err := l.startMesh(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for _, b := range l.inboxes {
		wg.Go(func() { b.run(ctx, l) })
	}
	wg.Go(func() { l.post.run(ctx) })
	wg.Go(func() { l.broadcasts(ctx) })
	wg.Go(func() { l.watch(ctx) })
	return l.carrier.Run(ctx)
}

// meshGossipInterval is how often mesh repeats its topology to a few neighbours,
// in case an update was lost.
const meshGossipInterval = 10 * time.Second

// startMesh starts mesh on loopback. mesh panics when it cannot listen, so the
// port is tried first.
func (l *Link) startMesh() (err error) {
	addr := net.JoinHostPort(meshHost.String(), strconv.Itoa(int(l.cfg.MeshPort)))
	probe, err := net.Listen("tcp4", addr)
	if err != nil {
		return fmt.Errorf("mesh's loopback port: %w", err)
	}
	probe.Close()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("start mesh on %s: %v", addr, r)
		}
	}()
	interval := meshGossipInterval
	// No nickname: mesh reads and writes it without a lock, which for a string
	// may end in a crash. Names travel in our own frames.
	l.router, err = mesh.NewRouter(mesh.Config{
		Host: meshHost.String(), Port: int(l.cfg.MeshPort), ProtocolMinVersion: 2, PeerDiscovery: false, ConnLimit: 0,
		Password: l.cfg.ID.Derive("mesh password"), GossipInterval: &interval,
	}, meshName(l.self), "", mesh.NullOverlay{}, meshLog{l.cfg.Log, &l.seldom})
	if err != nil {
		return fmt.Errorf("make mesh's router: %w", err)
	}
	if l.gossip, err = l.router.NewGossip("weave", ears{l}); err != nil {
		return fmt.Errorf("make mesh's channel: %w", err)
	}
	l.router.Routes.OnChange(l.stir)
	l.router.Start()
	return nil
}

// accept adds what the whole mesh knows to the judgement about a peer: a name
// that a reachable host has already, or whose hash it has.
func (l *Link) accept(h Hello) error {
	m, v := meshName(h.Name), l.view.Load()
	k, ok := l.names.get(m)
	switch {
	case m == meshName(l.self), ok && k.name != h.Name && v.reaches(m):
		return fmt.Errorf("the name %q has the same hash as another host's: give this host another with --name", h.Name)
	case ok && v.reaches(m) && !slices.Contains(v.neighbours, h.Name) && k.memberID != 0 && k.memberID != h.MemberID:
		if l.doubts.about(m, lostLately) {
			return fmt.Errorf("%q was connected a moment ago with another key: this connection is tried again, and taken as soon as all have lost that one", h.Name)
		}
		return fmt.Errorf("another host is in the cluster as %q, with another key: "+
			"give one of the two a name of its own with --name (cloned machines share a machine-id)", h.Name)
	}
	return l.cfg.Accept(h)
}

// call and forget are what loops asks of mesh.
func (l *Link) call(target string) {
	if errs := l.router.ConnectionMaker.InitiateConnections([]string{target}, false); len(errs) > 0 {
		l.cfg.Log.Error("have mesh call an alias", "alias", target, "error", errs[0])
	}
}

func (l *Link) forget(target string) {
	l.router.ConnectionMaker.ForgetConnections([]string{target})
}

// Learn replaces what is known of where a peer can be reached; no addresses: the
// peer is forgotten. At most 16 addresses a peer and 1024 peers are kept.
func (l *Link) Learn(p gossip.Peer, addrs []netip.AddrPort) { l.carrier.Learn(p, addrs) }

// Target is how a target is written in full, HOST:PORT, with this port where it names none.
func Target(target string, port uint16) (string, error) { return carrier.Target(target, port) }

// Connect adds a target, host[:port], that is dialled from now on.
func (l *Link) Connect(target string) error { return l.carrier.Connect(target) }

// Forget removes a target and reports whether it was there. A connection that
// came of it stays.
func (l *Link) Forget(target string) bool { return l.carrier.Forget(target) }

// OnlySelf reports whether there are targets and all of them lead to this router itself.
func (l *Link) OnlySelf() bool { return l.carrier.OnlySelf() }

// Recheck asks Accept again about every connected peer, tells every peer our
// Hello as it is now, and dials at once whoever had refused us.
func (l *Link) Recheck() { l.carrier.Recheck() }

// Stats returns the counters; they go on counting.
func (l *Link) Stats() *Stats { return &l.stats }
