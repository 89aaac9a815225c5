// Package netlists keeps the files by which the runtimes of a host know the cluster's
// networks: a network list each, made from the one of the default network, which is the
// operator's. A file that it did not write it leaves alone.
package netlists

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/weave-cni/weave-cni/pkg/conflist"
)

// Pattern is the default network's list, from which the others are made.
const Pattern = "10-weave.conflist"

// defaultName is what the default network is called.
const defaultName = "weave"

// lookEvery is how often it is looked whether somebody changed the files or the pattern.
const lookEvery = 5 * time.Second

// Network is one that runtimes of this host are to know.
type Network struct {
	conflist.Network

	// Ready: its bridge stands. Before that its list is not written, but one that is
	// there from the router's last life stays, so that no runtime misses it meanwhile.
	Ready bool
}

// Keeper keeps the lists in one directory. Its methods may be called at any time.
type Keeper struct {
	dir  string // "": it keeps none
	log  *slog.Logger
	wake chan struct{} // cap 1: what is wanted has changed

	mu       sync.Mutex
	told     bool // Want was called; before that nothing is known to be gone
	want     []Network
	problems []string
	files    map[string]string // of networks that runtimes can see, by name
	dealt    map[string]bool   // ids of the ready networks of the last pass
	passed   chan struct{}     // closed when another pass has ended

	last *done // Run's alone

	looking sync.Mutex
	seen    sight // at the last look
}

// done is what a pass had before it when it found nothing to do.
type done struct {
	seen sight
	want []Network
}

// New makes a keeper of the lists in a directory; "" makes one that does nothing.
func New(dir string, log *slog.Logger) *Keeper {
	return &Keeper{dir: dir, log: log, wake: make(chan struct{}, 1), passed: make(chan struct{})}
}

// Want says which networks there are, all of them: the lists of others go.
func (k *Keeper) Want(networks []Network) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.told && reflect.DeepEqual(k.want, networks) {
		return
	}
	k.told, k.want = true, slices.Clone(networks)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Run keeps the lists until ctx ends; they stay then.
func (k *Keeper) Run(ctx context.Context) error {
	if k.dir == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	if err := k.sweep(time.Now().Add(-abandoned)); err != nil {
		k.log.Debug("remove what a killed router left", "error", err)
	}
	for {
		k.sync()
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-tick.C:
		}
	}
}

// Problems are what keeps runtimes from seeing a network, a sentence each.
func (k *Keeper) Problems() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.problems)
}

// File is the path of a network's list, "" where runtimes see none.
func (k *Keeper) File(network string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.files[network]
}

// Await waits until the list of a network that is wanted and ready is written, or cannot
// be and that is among the problems, or ctx ends.
func (k *Keeper) Await(ctx context.Context, id string) {
	for k.dir != "" {
		k.mu.Lock()
		dealt, passed := k.dealt[id], k.passed
		k.mu.Unlock()
		if dealt {
			return
		}
		select {
		case <-passed:
		case <-ctx.Done():
			return
		}
	}
}

// sync brings the directory once to where it should be.
func (k *Keeper) sync() {
	k.mu.Lock()
	told, want := k.told, k.want
	k.mu.Unlock()
	if !told {
		return
	}
	seen := k.look()
	if k.last != nil && k.last.seen.equal(seen) && reflect.DeepEqual(k.last.want, want) {
		return
	}
	p := decide(seen, want)
	failed := k.act(&p)
	k.note(&p, want, failed)
	k.last = nil
	if len(p.write)+len(p.remove) == 0 {
		k.last = &done{seen, want}
	}
}

// look is look, with what was understood at the last one.
func (k *Keeper) look() sight {
	k.looking.Lock()
	defer k.looking.Unlock()
	k.seen = look(k.dir, k.seen)
	return k.seen
}

// note keeps what came of a plan, for status, and logs what is new of it.
func (k *Keeper) note(p *plan, want []Network, failed []string) {
	problems := append(p.problems(k.dir), failed...)
	files := maps.Clone(p.have)
	for network, name := range files {
		files[network] = filepath.Join(k.dir, name)
	}
	dealt := map[string]bool{}
	for _, n := range want {
		dealt[n.ID] = n.Ready
	}
	k.mu.Lock()
	was := k.problems
	k.problems, k.files, k.dealt = problems, files, dealt
	close(k.passed)
	k.passed = make(chan struct{})
	k.mu.Unlock()
	for _, line := range problems {
		if !slices.Contains(was, line) {
			k.log.Warn("network lists are not as they should be", "problem", line)
		}
	}
}
