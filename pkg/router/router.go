// Package router wires the parts of one host's router together: it is the one
// place that knows all of them, and holds no other logic than who is started
// when, who hears of what, and in which order it ends.
//
//	plugins ──ctl──> control ──> api.go ──> ipam ──> replica (ledger)
//	                               │                    │ changed
//	                               ▼                    ▼
//	          record <── endpoints.go ──> names    settle.go ──> netdev, hostfw, DNS listeners
//	             │ gossip                               ▲
//	             ▼                                      │
//	         exchange ──> followers.go ──> overlay.View ┘──> FDB, neighbours
//
// Start: kernel and claim files are read first and published as records before
// the first peer is spoken to, so that a restart is a change of nobody's
// picture. End: the control socket goes first, so that no call is cut off, then
// gossip; the kernel stays as it is.
package router

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/calllog"
	"github.com/weave-cni/weave-cni/pkg/control"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink"
	"github.com/weave-cni/weave-cni/pkg/gossip/meshlink/knownhosts"
	"github.com/weave-cni/weave-cni/pkg/hostfw"
	"github.com/weave-cni/weave-cni/pkg/identity"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/ipam/claims"
	"github.com/weave-cni/weave-cni/pkg/ipam/offers"
	"github.com/weave-cni/weave-cni/pkg/ledger"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/netdev"
	"github.com/weave-cni/weave-cni/pkg/netlists"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/place"
	"github.com/weave-cni/weave-cni/pkg/reaper"
	"github.com/weave-cni/weave-cni/pkg/record"
	"github.com/weave-cni/weave-cni/pkg/record/exchange"
	"github.com/weave-cni/weave-cni/pkg/replica"
	"github.com/weave-cni/weave-cni/pkg/replica/store"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// Router is one host's router.
type Router struct {
	config  Config
	log     *slog.Logger
	started time.Time
	vtep    netip.Addr

	id       *identity.Identity
	link     *meshlink.Link
	store    *store.File
	founders *founders // nil: not told to found together with others
	replica  *replica.Replica
	records  *record.Store
	exchange *exchange.Exchange
	ipam     *ipam.Allocator
	view     *overlay.View
	table    *names.Table
	clients  names.Clients
	dns      *names.Server
	fw       *hostfw.Firewall
	reaper   *reaper.Reaper
	server   *control.Server // from run on
	metrics  *metrics
	calls    *calllog.Log
	adds     adds
	lists    *netlists.Keeper
	codec    wire.Codec

	resolvConf *names.ResolvConf // the host's own

	place     place.Place
	stateless bool           // the state is no member's: no life has come as far as to speak to others
	vouched   bool           // it held what the last life of this host left there
	witnessed bool           // the witness follows this life
	closers   []func() error // in the order in which they were opened

	watch   *netdev.Watch
	lookout lookout

	forward chan struct{} // cap 1: remote endpoints or hosts have changed
	kick    chan struct{} // cap 1: what does not stand is to be looked at, with firewall and resolver
	recheck chan struct{} // cap 1: what stands too
	ends    chan struct{} // cap 1: a container has ended: a network that is being removed may be unused now
	resets  chan struct{} // cap 1: the operator had the host leave its cluster

	heldBack string // why this host founds no cluster and waits to be connected to; "" where it does not

	resetTurn chan struct{} // cap 1: full while a reset is under way
	resetting atomic.Bool   // it is leaving: that its identity ends is no news
	stopping  atomic.Bool   // after that it is not to begin anew
	bridges   sync.Mutex    // held while bridges are made, or have their addresses taken off

	torn      map[string]bool   // networks that are being removed and of which nothing stands here any more, by id; with bridges
	seeks     *seeks            // of this host's own addresses
	gone      leftovers         // with bridges
	traffic   traffic           // of devices
	uses      uses              // of networks, by containers that are no endpoints
	inherited map[string]bool   // by the network's id; settle's alone
	said      map[string]bool   // addresses in others' blocks that were logged; settle's alone
	known     []knownhosts.Host // reached before, as on disk; remember's alone once it runs
	targets   targets           // whom it was told to dial
	byHand    byHand            // names

	firewallMu sync.Mutex // rules are worked out and applied in one go, the latest last
	firewalled bool       // they were applied once

	served map[gossip.Peer]bool // hosts whose names are; watchPresence's alone

	mu       sync.Mutex
	networks map[string]*network // by id, those whose bridge exists
	withheld map[string]bool     // claims, by hash, of which the others do not hear
	stood    chan struct{}       // closed, and made anew, when another one does
	settled  bool                // a whole pass has ended with a network standing
	recalled map[string]bool     // attachments, by hash, of which another host has told what they had before this start
	broken   error               // why the data plane is not as it should be; nil when it is

	unmeasured error // why the metrics are not served; nil when they are, or are not wanted
}

// errFounds ends a life after which this host founds the cluster.
var errFounds = errors.New("this host founds the cluster")

// ErrAgain asks for the same program to be started again in the place of this one:
// this host's identity is over, or it has left its cluster, and a new life begins.
// (mesh cannot be ended within a process.)
var ErrAgain = errors.New("the router is to be started again")

// ErrLeft is the end of a router that has left its cluster and is not to be started again.
var ErrLeft = errors.New("this host has left its cluster for good")

// Run runs a router until ctx ends, and returns nil then.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	if err := c.Validate(); err != nil {
		return err
	}
	// This one first: it leaves nothing behind where it is another's.
	release, err := lockNetwork(ctx, c.RunDir, log)
	if err != nil {
		return err
	}
	defer release()
	unlock, err := lock(ctx, c.RunDir)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := open(ctx, c, log)
	if err == nil {
		err = r.run(ctx)
	}
	r.close()
	var spent *spentError
	switch {
	case errors.Is(err, errReset) && r.stopping.Load():
		log.Warn("this host has left its cluster; its router does not start again")
		return cmp.Or(r.forget(), ErrLeft)
	case errors.Is(err, errReset):
		log.Warn("this host has left its cluster and begins anew")
		return cmp.Or(r.forget(), ErrAgain)
	case errors.Is(err, errFounds):
		log.Info("it is decided: this host founds the cluster")
		return ErrAgain
	case errors.Is(err, errAnew):
		log.Info("this host has joined no cluster and founds one, under a new identity")
		return cmp.Or(setAside(c.StateDir), ErrAgain)
	case errors.As(err, &spent):
		log.Warn("this host's identity is over; it joins again as a new member, and its containers stay as they are", "why", spent.why)
		return cmp.Or(setAside(c.StateDir), ErrAgain)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: make room there and start it again; until then traffic goes on, and this host has no ADD and no names", err)
	}
	return err
}

// open makes all parts and reads the kernel. Nothing runs yet and nothing on the
// host or in the cluster has changed when it fails. What it opened is for close,
// also then.
func open(ctx context.Context, c Config, log *slog.Logger) (*Router, error) {
	r := &Router{
		config: c, log: log, started: time.Now(),
		view: overlay.NewView(), table: names.NewTable(), codec: wire.New(),
		resolvConf: names.NewResolvConf(hostResolvConf, resolvedServers),
		lists:      netlists.New(c.ConflistDir, log.With("part", "lists")),
		forward:    make(chan struct{}, 1), kick: make(chan struct{}, 1), recheck: make(chan struct{}, 1), resets: make(chan struct{}, 1), resetTurn: make(chan struct{}, 1),
		ends: make(chan struct{}, 1), stood: make(chan struct{}), torn: map[string]bool{}, seeks: newSeeks(),
		networks: map[string]*network{}, inherited: map[string]bool{}, withheld: map[string]bool{},
		gone:    leftovers{since: map[string]time.Time{}},
		uses:    uses{news: make(chan struct{}, 1)},
		metrics: newMetrics(), calls: calllog.New(traceCalls, traceBytes, time.Now),
	}
	for _, step := range []func(context.Context) error{
		r.openMemory, r.openUnderlay, r.openLedger, r.openRecords, r.openKernel,
	} {
		if err := step(ctx); err != nil {
			return r, err
		}
	}
	return r, nil
}

// close lets go of the files. The kernel stays as it is.
func (r *Router) close() {
	for _, close := range slices.Backward(r.closers) {
		if err := close(); err != nil {
			r.log.Warn("close", "error", err)
		}
	}
}

// openUnderlay finds the address at which other hosts reach this one.
func (r *Router) openUnderlay(ctx context.Context) error {
	a, err := r.config.Advertise, error(nil)
	if !a.IsValid() {
		a, err = sourceAddr(ctx, r.config.Peers, r.log)
	}
	if err != nil {
		return fmt.Errorf("find the address at which other hosts reach this one (give --advertise): %w", err)
	}
	r.vtep = a
	mtu, err := netdev.UnderlayMTU(a)
	if errors.Is(err, netdev.ErrNotFound) && r.config.Advertise.IsValid() {
		return errors.New("--advertise: " + notOfThisHost(a))
	}
	if err != nil {
		return fmt.Errorf("address %s: %w", a, err)
	}
	if need := r.config.MTU + overhead(a); mtu < need {
		r.log.Warn("the underlay's MTU is too small for the default network", "underlay", mtu, "needed", need, "cure", fmt.Sprintf("found the cluster with --mtu %d", mtu-overhead(a)))
	}
	return nil
}

// overhead is what VXLAN adds to a container's frame, in bytes: outer IP and
// UDP, VXLAN, inner Ethernet.
func overhead(vtep netip.Addr) int {
	if vtep.Is4() {
		return 20 + 8 + 8 + 14
	}
	return 40 + 8 + 8 + 14
}

// openLedger opens gossip and the ledger that rides on it.
func (r *Router) openLedger(context.Context) error {
	founders, err := r.openFounders()
	if err != nil {
		return err
	}
	r.founders = founders
	found, err := r.founding()
	if err != nil {
		return err
	}
	r.link, err = meshlink.New(meshlink.Config{
		ID:       r.id,
		Listen:   r.listenAddrs(),
		MeshPort: r.config.MeshPort,
		Targets:  slices.Concat(r.config.Peers, r.targets.named),
		Port:     r.config.Port,
		VXLAN:    r.config.VXLANPort,
		Hello:    r.hello,
		Accept:   r.accept,
		Log:      r.log.With("part", "gossip"),
	})
	if err != nil {
		return err
	}
	if founders != nil {
		r.link.Handle(gossip.Founding, founders.receive)
	}
	r.recall()
	r.replica, err = replica.New(replica.Config{
		Self:    ledger.Member{ID: ledger.MemberID(r.id.MemberID()), Name: string(r.id.Name()), Place: ledger.Place(r.place)},
		Net:     r.link,
		Store:   r.store,
		Found:   found,
		Vouched: r.vouched,
		Twin:    r.twin,
		Log:     r.log.With("part", "ledger"),
	})
	if err != nil {
		return err
	}
	if err := errors.Join(r.checkFounding(), r.holdBack()); err != nil {
		return err
	}
	if m, ok := r.replica.State().Member(ledger.MemberID(r.id.MemberID())); ok && m.Live() && m.Name != string(r.id.Name()) {
		return fmt.Errorf("the state in %s is that of host %q, and this host is to be called %q: start it with --name %s, or give it to a new member by removing the state",
			r.config.StateDir, m.Name, r.id.Name(), m.Name)
	}
	return nil
}

// founding is the command that founds a cluster, nil on a host that joins one, waits
// for one, or has state: it goes on where it was. One that knows other hosts of before
// has lost a part of its state and joins them again.
func (r *Router) founding() (*ledger.Command, error) {
	if r.founders != nil {
		return r.founders.decided(ledger.MemberID(r.id.MemberID())), nil
	}
	s, err := r.situation()
	if err != nil {
		return nil, err
	}
	begins := s.begin()
	if !r.stateless || begins == goesOn {
		return nil, nil
	}
	if err := r.checkNoCluster(); err != nil || begins == waits {
		return nil, err
	}
	if err := r.checkRanges(r.config.Ranges); err != nil {
		return nil, err
	}
	return &ledger.Command{Found: &ledger.Found{Cluster: rand.Text(), Network: *r.firstNetwork()}}, nil
}

// firstNetwork is what a cluster is founded with.
func (r *Router) firstNetwork() *ledger.Network {
	return &ledger.Network{Name: DefaultNetwork, Driver: "weave", MTU: r.config.MTU, Subnets: r.config.Ranges}
}

// checkNoCluster refuses to found a cluster on a host whose kernel still leads to
// other hosts: it was a member, its state is gone, and a second cluster would
// give the same addresses again.
func (r *Router) checkNoCluster() error {
	leads, n, err := leadsElsewhere()
	if !leads {
		return err
	}
	return fmt.Errorf("no state in %s and no PEER named, but this host was in a cluster: its kernel still leads to %d endpoints on other hosts. "+
		"Name one of the other hosts as PEER to join them again; to leave them for good, first remove the containers and run: ip link del %s; ip link del %s",
		r.config.StateDir, n, DefaultDevice, DefaultBridge)
}

// leadsElsewhere reports whether the kernel leads to other hosts, and to how many endpoints there.
func leadsElsewhere() (leads bool, endpoints int, err error) {
	f, err := netdev.ReadForwarding(DefaultBridge, DefaultDevice)
	if errors.Is(err, netdev.ErrNotFound) {
		return false, 0, nil
	}
	return len(f.Remotes)+len(f.Flood) > 0, len(f.Remotes), err
}

// listenAddrs are all addresses, of IPv6 too where the kernel has it.
func (r *Router) listenAddrs() []netip.AddrPort {
	addrs := []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), r.config.Port)}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		addrs = append(addrs, netip.AddrPortFrom(netip.IPv6Unspecified(), r.config.Port))
	}
	return addrs
}

func (r *Router) openRecords(context.Context) error {
	r.records = record.New(r.id.Name(), r.id.Incarnation(), r.id.Sign, r.id.Cert(), r.id.Verify)
	r.exchange = exchange.New(exchange.Config{Store: r.records, Net: r.link, Log: r.log.With("part", "records"), Watch: r.recordsChanged, Former: r.former})
	files, err := claims.Open(filepath.Join(r.config.RunDir, ctl.ClaimsDir))
	if err != nil {
		return err
	}
	r.closers = append(r.closers, files.Close)
	if err := files.Announce(r.config.socket()); err != nil {
		return err
	}
	r.ipam, err = ipam.New(ipam.Config{
		Self:   ledger.MemberID(r.id.MemberID()),
		Ledger: r.replica,
		Claims: files,
		Offers: offers.New(r.store),
		BootID: bootID(),
		Linked: netdev.Attached,
		Unused: r.unused,
		Log:    r.log.With("part", "ipam"),
	})
	return err
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // claim files of this boot and others cannot be told apart: none is dropped for its age
	}
	return strings.TrimSpace(string(b))
}

// run starts everything and waits for all of it.
func (r *Router) run(ctx context.Context) error {
	defer r.fw.Close()
	sock, err := control.Listen(r.config.socket())
	if err != nil {
		return err
	}
	r.server = control.New(r.log.With("part", "control"))
	r.server.Watch(r.watchCall)
	r.serve(r.server)

	// The inner context outlives the outer one until the control socket is
	// closed and its last call is answered.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, inner := errgroup.WithContext(inner)
	for name, part := range r.parts() {
		g.Go(func() error {
			err := part(inner)
			if err != nil && inner.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if inner.Err() == nil {
				return fmt.Errorf("%s ended by itself", name)
			}
			return nil
		})
	}
	r.log.Info("weave router is up", "name", r.id.Name(), "address", r.vtep, "socket", r.config.socket(), "version", r.config.Version)
	served, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(inner, cancel)()
	err = r.server.Serve(served, sock)
	stop()
	err = errors.Join(err, g.Wait())
	r.seeks.all.Wait()
	if err == nil && len(r.resets) > 0 {
		return errReset // its caller was answered, though SIGTERM came at once
	}
	if err == nil {
		r.log.Info("weave router has ended; the network goes on")
	}
	return err
}

// parts are what runs beside the control socket, each until its context ends.
func (r *Router) parts() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"gossip":   r.link.Run,
		"ledger":   r.replica.Run,
		"records":  r.exchange.Run,
		"ipam":     r.ipam.Run,
		"dns":      r.dns.Run,
		"reaper":   r.reaper.Run,
		"settle":   r.settle,
		"forward":  r.follow,
		"presence": r.watchPresence,
		"beat":     r.beat,
		"guard":    r.watchFirewall,
		"watch":    r.watch.Run,
		"remember": r.remember,
		"identity": r.watchIdentity,
		"reset":    r.watchReset,
		"founding": r.bootstrap,
		"networks": r.endNetworks,
		"metrics":  r.serveMetrics,
		"lists":    r.lists.Run,
		"links":    r.tellLinks,
		"uses":     r.tellUses,
		"traffic":  r.watchTraffic,
		"byhand":   r.followByHand,
	}
}

// poke fills a channel of capacity one: whoever reads it will look again.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
