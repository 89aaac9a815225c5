// Package replica keeps the ledger (pkg/ledger) the same on every host: it drives
// etcd's raft over gossip messages. It is the only importer of raft.
//
// Core is the whole logic, without goroutine, clock or I/O, so that a simulator
// can run many of them in one thread. Replica is the shell: one goroutine that
// feeds a Core with ticks, messages and proposals, saves before it sends, and
// publishes the ledger.
//
// The founder of a cluster is its only voter at first. A newcomer asks any
// reachable peer; it follows without a vote, and gets one as long as there are
// fewer than five and the number stays odd. A voter that is silent for a minute
// loses its vote to somebody who is there.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ledger"
)

// Errors of Propose, besides those of its context. When the context ends first
// the error says what the proposal waited for; the command may still be carried
// out later.
var (
	ErrNotReady = errors.New("the ledger cannot be changed now")
	ErrGone     = errors.New("this host is a member no longer")
	ErrStopped  = errors.New("the replica has stopped")
)

func goneError(why string) error { return fmt.Errorf("%w: %s", ErrGone, why) }

// Config is what a Replica is made of.
type Config struct {
	Self  ledger.Member   // ID, Name (the gossip name) and Place (where this router runs)
	Net   gossip.Net      // New sets the handler of its Ledger channel
	Store Store           // stays the caller's to close, after Run has returned
	Found *ledger.Command // founds a cluster if the store is empty; nil: joins one
	Log   *slog.Logger
	Tick  time.Duration // of a Core's tick; 0: a tenth of a second

	// Vouched says that the store holds what this member saved last, on this
	// boot; see CoreConfig.
	Vouched bool
	Twin    func() string // see Core.SetTwin, asked at each tick on trial; nil: never any
	Nonce   func() uint32 // a random number; nil: from math/rand, which is seeded at random
}

// Replica is this host's copy of the ledger.
type Replica struct {
	cfg   Config
	core  *Core // Run's goroutine only
	inbox chan received
	asks  chan ask
	stops chan uint64 // tickets to cancel
	force chan chan<- error

	waiting map[uint64]chan<- Done // Run's goroutine only

	state   atomic.Pointer[ledger.State]
	status  atomic.Pointer[Status]
	lost    atomic.Uint64 // messages dropped because the inbox was full
	queued  atomic.Int64  // bytes in the inbox
	mu      sync.Mutex
	changed chan struct{}
	stopped chan struct{}
}

type received struct {
	from  gossip.Peer
	frame []byte
}

type ask struct {
	cmd    ledger.Command
	ticket chan<- uint64
	done   chan<- Done
}

// Bounds of what waits for Run: messages, and their bytes.
const (
	inboxSize  = 1024
	inboxBytes = 16 << 20
)

// New opens the store; State is there when it returns, and a cluster that it was
// told to found is founded. Run does the rest.
func New(cfg Config) (*Replica, error) {
	if cfg.Tick == 0 {
		cfg.Tick = time.Second / TicksPerSecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Nonce == nil {
		cfg.Nonce = rand.Uint32
	}
	saved, err := cfg.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	core, first, err := NewCore(CoreConfig{Self: cfg.Self, Saved: saved, Found: cfg.Found, Log: cfg.Log, Vouched: cfg.Vouched, Nonce: cfg.Nonce()})
	if err != nil {
		return nil, err
	}
	if !first.Empty() {
		if err := cfg.Store.Save(first); err != nil {
			return nil, fmt.Errorf("save the ledger: %w", err)
		}
	}
	r := &Replica{
		cfg: cfg, core: core, inbox: make(chan received, inboxSize), asks: make(chan ask), stops: make(chan uint64),
		force: make(chan chan<- error), waiting: make(map[uint64]chan<- Done), changed: make(chan struct{}), stopped: make(chan struct{}),
	}
	r.state.Store(core.State())
	r.note()
	cfg.Net.Handle(gossip.Ledger, r.receive)
	return r, nil
}

// State is the ledger as far as it is known here. It never changes: ask again.
func (r *Replica) State() *ledger.State { return r.state.Load() }

// Changed is closed when State may give another one than when Changed was called.
// Call Changed first, State second.
func (r *Replica) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Status is how things were at the last tick.
func (r *Replica) Status() Status { return *r.status.Load() }

// Ready reports whether addresses may be given out of this host's blocks: see
// Core.Ready. Once it was, only Spent ends it. Changed tells when it may have changed.
func (r *Replica) Ready() bool { return r.status.Load().Ready }

// Spent is why this host's identity is over, "" while it is not: the router must
// start again under a new one. Changed tells when it may have changed.
func (r *Replica) Spent() string { return r.status.Load().Spent }

// Force goes on without the majority: see Core.Force. It asks the hosts that can
// be reached first, which takes up to a few seconds.
func (r *Replica) Force(ctx context.Context) error {
	poll := time.NewTicker(r.cfg.Tick)
	defer poll.Stop()
	for {
		done := make(chan error, 1)
		select {
		case r.force <- done:
		case <-r.stopped:
			return ErrStopped
		case <-ctx.Done():
			return fmt.Errorf("force the ledger on: %w", context.Cause(ctx))
		}
		err := <-done // Run answers at once
		if !errors.Is(err, ErrAsking) {
			return err
		}
		select {
		case <-poll.C:
		case <-r.stopped:
			return ErrStopped
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// goOn is Force in Run's goroutine. What it tells is on disk.
func (r *Replica) goOn() (answer, fatal error) {
	b, err := r.core.Force()
	if err != nil {
		return err, nil
	}
	if err := r.cfg.Store.Save(b); err != nil {
		err = fmt.Errorf("save the ledger: %w", err)
		return err, err
	}
	return nil, nil
}

// receive copies, since the carrier keeps its buffer.
func (r *Replica) receive(from gossip.Peer, msg []byte) {
	if r.queued.Load() > inboxBytes {
		r.lost.Add(1)
		return
	}
	select {
	case r.inbox <- received{from, append([]byte(nil), msg...)}:
		r.queued.Add(int64(len(msg)))
	default:
		r.lost.Add(1)
	}
}

func (r *Replica) hear(m received) {
	r.queued.Add(-int64(len(m.frame)))
	r.core.Receive(m.from, m.frame)
}

// Propose has a command carried out once, and returns when it is applied here. A
// refusal by the ledger is a Result, not an error. Commands of one host are
// carried out one after the other.
func (r *Replica) Propose(ctx context.Context, cmd ledger.Command) (ledger.Result, error) {
	tickets, done := make(chan uint64, 1), make(chan Done, 1)
	select {
	case r.asks <- ask{cmd, tickets, done}:
	case <-ctx.Done():
		return ledger.Result{}, r.unready(ctx)
	case <-r.stopped:
		return ledger.Result{}, ErrStopped
	}
	select {
	case d := <-done:
		return d.Result, d.Err
	case <-r.stopped:
		return ledger.Result{}, ErrStopped
	case <-ctx.Done():
	}
	select {
	case r.stops <- <-tickets:
	case <-r.stopped:
	}
	return ledger.Result{}, r.unready(ctx)
}

// unready says why nothing came of a proposal in time.
func (r *Replica) unready(ctx context.Context) error {
	if why := r.Status().Waiting; why != "" {
		return fmt.Errorf("%w: %s%w", ErrNotReady, why, wordless{context.Cause(ctx)})
	}
	return fmt.Errorf("%w: the leader has not answered in time%w", ErrNotReady, wordless{context.Cause(ctx)})
}

// wordless keeps the end of a context in the chain for errors.Is: it tells no operator anything.
type wordless struct{ error }

func (wordless) Error() string   { return "" }
func (w wordless) Unwrap() error { return w.error }

// Run drives the replica until ctx ends (nil) or the store fails.
func (r *Replica) Run(ctx context.Context) error {
	defer close(r.stopped)
	ticker := time.NewTicker(r.cfg.Tick)
	defer ticker.Stop()
	peers := r.cfg.Net.Changed()
	r.core.SetPeers(r.cfg.Net.Peers())
	for {
		if err := r.settle(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if r.cfg.Twin != nil && r.core.trial != nil {
				r.core.SetTwin(r.cfg.Twin())
			}
			r.core.Tick()
			r.note()
		case m := <-r.inbox:
			r.hear(m)
			r.drain()
		case a := <-r.asks:
			ticket := r.core.Propose(a.cmd)
			r.waiting[ticket] = a.done
			a.ticket <- ticket
		case done := <-r.force:
			answer, err := r.goOn()
			done <- answer
			if err != nil {
				return err
			}
		case ticket := <-r.stops:
			delete(r.waiting, ticket)
			r.core.Cancel(ticket)
		case <-peers:
			peers = r.cfg.Net.Changed()
			r.core.SetPeers(r.cfg.Net.Peers())
		}
	}
}

// drain takes what else has arrived, so that one write to disk serves it all.
func (r *Replica) drain() {
	for range 64 {
		select {
		case m := <-r.inbox:
			r.hear(m)
		default:
			return
		}
	}
}

// settle saves, then acts, until the core has nothing more to do.
func (r *Replica) settle() error {
	for r.core.Pending() {
		if b := r.core.Begin(); !b.Empty() {
			if err := r.cfg.Store.Save(b); err != nil {
				return fmt.Errorf("save the ledger: %w", err)
			}
		}
		r.act(r.core.Finish())
	}
	return nil
}

func (r *Replica) act(e Effects) {
	if e.State != nil {
		r.state.Store(e.State)
		r.note()
		r.mu.Lock()
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()
	}
	for _, d := range e.Done {
		if c, ok := r.waiting[d.Ticket]; ok {
			c <- d // buffered, and one Done a ticket
			delete(r.waiting, d.Ticket)
		}
	}
	for _, o := range e.Send {
		if r.cfg.Net.Send(o.To, gossip.Ledger, o.Frame) != nil && o.ID != 0 {
			r.core.Unreachable(o.ID)
		}
	}
}

func (r *Replica) note() {
	s := r.core.Status()
	s.Lost = r.lost.Load()
	r.status.Store(&s)
}
